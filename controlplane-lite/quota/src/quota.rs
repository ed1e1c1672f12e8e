//! A ResourceQuota as it is reckoned with.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::amounts::{Amounts, add, grown, read, to_value};
use crate::evaluator::Evaluator;
use crate::measured::Measured;
use crate::pod::list;
use quantity::Quantity;

/// What a quota says and what is used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Its name.
    pub name: String,
    /// `spec.hard`: what is wanted.
    pub wanted: Amounts,
    /// `status.hard`: what holds.
    pub hard: Amounts,
    /// `status.used`.
    pub used: Amounts,
    /// What an object has to be in to count; all objects without any.
    pub selectors: Vec<Selector>,
    known: bool,
}

/// A scope that a quota is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    pub(crate) scope: String,
    operator: String,
    values: Vec<String>,
}

impl Quota {
    /// Reads an object.
    #[must_use]
    pub fn read(object: &Value) -> Self {
        let (spec, status) = (&object["spec"], &object["status"]);
        let scopes = list(&spec["scopes"]).iter().map(|scope| Selector::of(scope, &json!("Exists"), &Value::Null));
        let selected = list(&spec["scopeSelector"]["matchExpressions"])
            .iter()
            .map(|one| Selector::of(&one["scopeName"], &one["operator"], &one["values"]));
        Self {
            name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            wanted: read(&spec["hard"]),
            hard: read(&status["hard"]),
            used: read(&status["used"]),
            selectors: scopes.chain(selected).collect(),
            known: status["hard"].is_object() && status["used"].is_object(),
        }
    }

    /// Whether it counts an object of a kind.
    pub(crate) fn matches(&self, evaluator: &Evaluator, object: &Measured) -> bool {
        self.hard.keys().any(|name| evaluator.tracks(name)) && self.selects(object)
    }

    fn selects(&self, object: &Measured) -> bool {
        self.selectors.iter().all(|selector| object.is_in(selector))
    }

    /// What objects of a kind use of what is wanted: zero where there are none.
    #[must_use]
    pub fn count<'o>(
        &self,
        evaluator: &Evaluator,
        objects: impl IntoIterator<Item = &'o Measured>,
        now: Timestamp,
    ) -> Amounts {
        let tracked = self.wanted.keys().filter(|name| evaluator.tracks(name));
        let mut used: Amounts = tracked.map(|name| (name.clone(), Quantity::ZERO)).collect();
        for object in objects.into_iter().filter(|object| self.selects(object)) {
            let usage = object.usage(now);
            add(&mut used, &usage.into_iter().filter(|(name, _)| self.wanted.contains_key(name)).collect());
        }
        used
    }

    /// What a change of an object, or its end, leaves to others.
    #[must_use]
    pub fn freed(&self, old: &Measured, new: Option<&Measured>, now: Timestamp) -> Amounts {
        let usage = |object: Option<&Measured>, at| {
            object.filter(|object| self.selects(object)).map(|object| object.usage(at)).unwrap_or_default()
        };
        // Nobody is told when a pod's time is over: it is still charged.
        let mut freed = grown(&usage(Some(old), Timestamp::MIN), &usage(new, now));
        freed.retain(|name, quantity| !quantity.is_zero() && self.wanted.contains_key(name));
        freed
    }

    /// The status to write, when `counted` was found; nothing if it is there already. What could not be counted stays.
    #[must_use]
    pub fn next_status(&self, counted: &Amounts) -> Option<Value> {
        let mut used = self.used.clone();
        used.extend(counted.iter().map(|(name, quantity)| (name.clone(), *quantity)));
        used.retain(|name, _| self.wanted.contains_key(name));
        let same = self.known && self.wanted == self.hard && used == self.used;
        (!same).then(|| json!({"hard": to_value(&self.wanted), "used": to_value(&used)}))
    }
}

impl Selector {
    fn of(scope: &Value, operator: &Value, values: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self { scope: text(scope), operator: text(operator), values: list(values).iter().map(text).collect() }
    }

    /// Whether its values allow one, or none at all.
    pub(crate) fn allows(&self, value: Option<&str>) -> bool {
        let named = value.is_some_and(|value| self.values.iter().any(|known| known == value));
        match &*self.operator {
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "In" => named,
            "NotIn" => !named,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota() -> Value {
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5", "requests.cpu": "1", "count/x.y": "3"}}})
    }

    fn pod(phase: &str) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "300m"}}}]},
            "status": {"phase": phase}})
    }

    #[test]
    fn a_count_covers_what_is_tracked_and_nothing_else() {
        let quota = Quota::read(&quota());
        let pods = Evaluator::of("", "pods");
        let now = Timestamp::UNIX_EPOCH;
        let measured: Vec<_> = ["Running", "Pending", "Failed"].iter().map(|phase| pods.measure(&pod(phase))).collect();
        let used = quota.count(&pods, &measured, now);
        assert_eq!(to_value(&used), json!({"pods": "2", "requests.cpu": "600m"}));
        assert_eq!(to_value(&quota.count(&pods, [], now)), json!({"pods": "0", "requests.cpu": "0"}));
    }

    #[test]
    fn what_goes_or_ends_is_left_to_others() {
        let quota = Quota::read(&quota());
        let measure = |phase: &str| Evaluator::Pods.measure(&pod(phase));
        let freed = |old: &str, new: Option<&str>| {
            to_value(&quota.freed(&measure(old), new.map(measure).as_ref(), Timestamp::UNIX_EPOCH))
        };
        assert_eq!(freed("Running", None), json!({"pods": "1", "requests.cpu": "300m"}));
        assert_eq!(freed("Running", Some("Succeeded")), json!({"pods": "1", "requests.cpu": "300m"}));
        assert_eq!(freed("Pending", Some("Running")), json!({}));
        assert_eq!(freed("Failed", None), json!({}));
    }

    #[test]
    fn a_status_is_written_when_it_says_something_new() {
        let mut object = quota();
        let counted = read(&json!({"pods": "2", "requests.cpu": "0"}));
        let first = Quota::read(&object).next_status(&counted).expect("nothing is known yet");
        assert_eq!(first["used"], json!({"pods": "2", "requests.cpu": "0"}));
        assert_eq!(first["hard"], object["spec"]["hard"]);
        object["status"] = first;
        assert_eq!(Quota::read(&object).next_status(&counted), None);
        object["spec"]["hard"] = json!({"pods": "7", "count/x.y": "3"});
        object["status"]["used"]["count/x.y"] = "1".into();
        let second = Quota::read(&object).next_status(&read(&json!({"pods": "2"}))).expect("other limits");
        assert_eq!(second, json!({"hard": {"pods": "7", "count/x.y": "3"}, "used": {"pods": "2", "count/x.y": "1"}}));
        let empty = Quota::read(&json!({"metadata": {"name": "q"}, "spec": {}}));
        assert_eq!(empty.next_status(&Amounts::new()), Some(json!({"hard": {}, "used": {}})));
        let known = json!({"spec": {}, "status": {"hard": {}, "used": {}}});
        assert_eq!(Quota::read(&known).next_status(&Amounts::new()), None);
    }
}
