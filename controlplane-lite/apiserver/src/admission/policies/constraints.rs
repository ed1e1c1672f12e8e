//! Which requests a policy or binding is about (`policy/matching/matching.go`).

use serde_json::{Value, json};

use crate::admission::Refusal;
use crate::admission::webhooks::hook::Hook;
use crate::admission::webhooks::request::{Asked, Seen};
use crate::outbound::Unusable;
use scheme::access::{at, list_at};

/// `matchConstraints` of a policy, or `matchResources` of a binding.
#[derive(Debug)]
pub(super) struct Constraints {
    resources: Rules,
    excluded: Option<Rules>,
}

/// Rules, with the selectors beside them.
#[derive(Debug)]
struct Rules {
    hook: Hook,
    /// As they are written, if some name objects: which of them count depends on the request then.
    named: Option<Value>,
}

impl Rules {
    fn new(rules: &[Value], beside: &Value) -> Self {
        let mut form = beside.clone();
        form["rules"] = rules.into();
        let named = rules.iter().any(|rule| !list_at(rule, &["resourceNames"]).is_empty());
        Self { hook: hook(&form), named: named.then_some(form) }
    }

    /// Whether they are about a request, and as which resource.
    async fn matches(&self, asked: &Asked<'_>, object: Option<&Value>) -> Result<Option<Seen>, Refusal> {
        // Policies have conditions of their own.
        let none = |_: &str, _: &crate::admission::webhooks::Condition<'_>, _: &dyn crate::admission::View| Ok(true);
        let Some(form) = &self.named else { return asked.wants(&self.hook, object, &none).await };
        let mut form = form.clone();
        if let Some(rules) = form["rules"].as_array_mut() {
            rules.retain(|rule| {
                let names = list_at(rule, &["resourceNames"]);
                names.is_empty() || names.iter().any(|name| name == asked.request.name)
            });
        }
        asked.wants(&hook(&form), object, &none).await
    }
}

/// Rules and selectors as those of a webhook that nobody calls.
fn hook(form: &Value) -> Hook {
    Hook::read("", form, 0, |_| Err(Unusable::NoPlace))
}

impl Constraints {
    /// Those of a policy. A binding without rules is about all that its policy is about.
    pub(super) fn read(constraints: &Value, of_binding: bool) -> Self {
        let beside = json!({
            "matchPolicy": at(constraints, &["matchPolicy"]),
            "namespaceSelector": or_all(at(constraints, &["namespaceSelector"])),
            "objectSelector": or_all(at(constraints, &["objectSelector"])),
        });
        let every = [json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*", "*/*"]})];
        let rules = match list_at(constraints, &["resourceRules"]) {
            [] if of_binding => &every[..],
            rules => rules,
        };
        let everywhere = json!({"matchPolicy": beside["matchPolicy"], "namespaceSelector": {}, "objectSelector": {}});
        let excluded = list_at(constraints, &["excludeResourceRules"]);
        Self {
            resources: Rules::new(rules, &beside),
            excluded: (!excluded.is_empty()).then(|| Rules::new(excluded, &everywhere)),
        }
    }

    /// Whether they are about a request, and as which resource it is seen.
    ///
    /// # Errors
    /// If that cannot be told.
    pub(super) async fn matches(&self, asked: &Asked<'_>, object: Option<&Value>) -> Result<Option<Seen>, Refusal> {
        if let Some(excluded) = &self.excluded
            && excluded.matches(asked, object).await?.is_some()
        {
            return Ok(None);
        }
        self.resources.matches(asked, object).await
    }
}

/// A selector; one that is not there selects all.
fn or_all(selector: &Value) -> Value {
    if selector.is_null() { json!({}) } else { selector.clone() }
}
