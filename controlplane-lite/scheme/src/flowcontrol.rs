//! What FlowSchemas and PriorityLevelConfigurations say: the objects that every cluster has, and how they are kept as
//! they should be. Pure; who matches requests with them, and who writes, is elsewhere.

use serde_json::{Value, json};

use crate::access::{at, ensure_map, list_at, str_at};

mod bootstrap;

pub use bootstrap::{Bootstrap, bootstrap, mandatory_level, mandatory_schema};

/// The group of both kinds.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Says whether the server keeps the spec of an object as its own version has it.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// The schema, and the level, that nothing holds up.
pub const EXEMPT: &str = "exempt";
/// The schema, and the level, for what no other schema matches.
pub const CATCH_ALL: &str = "catch-all";

/// Go's `strconv.ParseBool`.
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn annotation(object: &Value) -> Option<bool> {
    at(object, &["metadata", "annotations"]).get(AUTO_UPDATE).and_then(Value::as_str).and_then(flag)
}

/// What becomes of a stored object of which the server has its own version (`ShouldUpdate` of
/// pkg/registry/flowcontrol/ensurer/strategy.go): nothing, or this. A mandatory object always gets the server's spec,
/// a suggested one while its annotation says so, or while nobody has changed it; the annotation says which.
#[must_use]
pub fn updated(stored: &Value, own: &Bootstrap) -> Option<Value> {
    let untouched = || stored["metadata"]["generation"] == 1;
    let update_spec = own.mandatory || annotation(stored).unwrap_or_else(untouched);
    let mut next = stored.clone();
    if annotation(stored) != Some(update_spec) {
        let annotations = ensure_map(&mut next, &["metadata", "annotations"]);
        annotations.insert(AUTO_UPDATE.to_owned(), update_spec.to_string().into());
    }
    if update_spec && !has_spec(stored, own) {
        next["spec"] = own.object["spec"].clone();
    }
    (next != *stored).then_some(next)
}

/// Whether an object has the server's spec, but for what anybody may change of it: how much the exempt level lends
/// (`plcSpecEqualish` of pkg/registry/flowcontrol/ensurer/prioritylevelconfiguration.go).
fn has_spec(stored: &Value, own: &Bootstrap) -> bool {
    let mut expected = own.object["spec"].clone();
    let exempt = at(stored, &["spec", "exempt"]);
    if expected.get("exempt").is_some() && !exempt.is_null() {
        expected["exempt"] = exempt.clone();
    }
    crate::crd::same(at(stored, &["spec"]), &expected)
}

/// Whether an object that the server made once, and knows no longer, goes (`removeConfiguration` there): as long as
/// nobody took it over.
#[must_use]
pub fn is_left_over(stored: &Value, own: &[Bootstrap]) -> bool {
    let name = str_at(stored, &["metadata", "name"]);
    annotation(stored) == Some(true) && !own.iter().any(|b| str_at(&b.object, &["metadata", "name"]) == name)
}

/// The name of the level that a schema leads to.
#[must_use]
pub fn level_of(schema: &Value) -> &str {
    str_at(schema, &["spec", "priorityLevelConfiguration", "name"])
}

/// A schema whose condition `Dangling` says whether its level exists, unless it says so already
/// (`presyncFlowSchemaStatus` of k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go). `now` is the time as objects
/// carry it.
#[must_use]
pub fn with_dangling(schema: &Value, exists: bool, now: &str) -> Option<Value> {
    let level = crate::field::go_quote(level_of(schema));
    let (status, reason, rest) =
        if exists { ("False", "Found", "it exists") } else { ("True", "NotFound", "there is no such object") };
    let and = if exists { "and" } else { "but" };
    let message =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level} {and} {rest}");
    let mut conditions = list_at(schema, &["status", "conditions"]).to_vec();
    let mut wanted = json!({"type": "Dangling", "status": status, "reason": reason, "message": message});
    wanted["lastTransitionTime"] = now.into();
    match conditions.iter_mut().find(|condition| str_at(condition, &["type"]) == "Dangling") {
        Some(condition) => {
            if ["status", "reason", "message"].iter().all(|field| condition[field] == wanted[field]) {
                return None;
            }
            *condition = wanted;
        }
        None => conditions.push(wanted),
    }
    let mut next = schema.clone();
    ensure_map(&mut next, &["status"]).insert("conditions".to_owned(), conditions.into());
    Some(next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn named(name: &str) -> Bootstrap {
        bootstrap().into_iter().find(|b| str_at(&b.object, &["metadata", "name"]) == name).unwrap()
    }

    fn changed(own: &Bootstrap, generation: i64, annotation: Option<&str>, precedence: i64) -> Value {
        let mut stored = own.object.clone();
        stored["metadata"]["generation"] = generation.into();
        stored["metadata"]["annotations"] = annotation.map_or(json!(null), |text| json!({AUTO_UPDATE: text}));
        stored["spec"]["matchingPrecedence"] = precedence.into();
        stored
    }

    /// The cases of pkg/registry/flowcontrol/ensurer/strategy_test.go.
    #[test]
    fn own_objects_are_kept_and_others_left() {
        let (suggested, mandatory) = (named("system-nodes"), named(CATCH_ALL));
        let own = |of: &Bootstrap| of.object["spec"]["matchingPrecedence"].as_i64().unwrap();
        for (of, generation, text, other_spec, spec_follows, annotation) in [
            // What carries the annotation is kept, or not, as it says.
            (&suggested, 2, Some("true"), false, false, None),
            (&suggested, 2, Some("true"), true, true, None),
            (&suggested, 2, Some("false"), true, false, None),
            (&suggested, 1, Some("false"), true, false, None),
            (&suggested, 2, Some("T"), true, true, None),
            // What does not, until somebody changes it.
            (&suggested, 1, None, true, true, Some("true")),
            (&suggested, 1, Some("maybe"), false, false, Some("true")),
            (&suggested, 2, None, true, false, Some("false")),
            // What is mandatory is kept whatever it says.
            (&mandatory, 5, Some("false"), true, true, Some("true")),
            (&mandatory, 5, Some("true"), false, false, None),
        ] {
            let precedence = if other_spec { 7 } else { own(of) };
            let stored = changed(of, generation, text, precedence);
            let next = updated(&stored, of);
            assert_eq!(next.is_some(), spec_follows || annotation.is_some(), "{stored}");
            let next = next.unwrap_or(stored);
            assert_eq!(next["spec"]["matchingPrecedence"], if spec_follows { own(of) } else { precedence }, "{next}");
            let expect = annotation.map_or(json!(text), |text| json!(text));
            assert_eq!(next["metadata"]["annotations"][AUTO_UPDATE], expect, "{next}");
        }
    }

    #[test]
    fn what_the_exempt_level_lends_is_anybodys_to_say() {
        let exempt = |stored: &Bootstrap| stored.plural == "prioritylevelconfigurations";
        let own = bootstrap().into_iter().rfind(exempt).unwrap();
        let mut stored = own.object.clone();
        stored["spec"]["exempt"] = json!({"nominalConcurrencyShares": 7, "lendablePercent": 10});
        assert_eq!(updated(&stored, &own), None);
        stored["spec"] = json!({"type": "Exempt"});
        assert_eq!(updated(&stored, &own).unwrap()["spec"], own.object["spec"]);
    }

    #[test]
    fn what_is_no_longer_made_goes_unless_somebody_took_it() {
        let own = bootstrap();
        let object = |name: &str, text: &str| json!({"metadata": {"name": name, "annotations": {AUTO_UPDATE: text}}});
        for (stored, expect) in [
            (object("old", "true"), true),
            (object("old", "false"), false),
            (object("old", "x"), false),
            (object(EXEMPT, "true"), false),
            (json!({"metadata": {"name": "theirs"}}), false),
        ] {
            assert_eq!(is_left_over(&stored, &own), expect, "{stored}");
        }
    }

    #[test]
    fn a_schema_says_whether_its_level_exists() {
        let schema = json!({"spec": {"priorityLevelConfiguration": {"name": "l"}}});
        let dangling = with_dangling(&schema, false, "t1").unwrap();
        assert_eq!(
            dangling["status"]["conditions"],
            json!([{"type": "Dangling", "status": "True", "reason": "NotFound", "lastTransitionTime": "t1", "message":
                "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there is no such object"}])
        );
        assert_eq!(with_dangling(&dangling, false, "t2"), None);
        let found = with_dangling(&dangling, true, "t3").unwrap();
        let condition = &found["status"]["conditions"][0];
        assert_eq!(
            (condition["reason"].as_str(), condition["lastTransitionTime"].as_str()),
            (Some("Found"), Some("t3"))
        );
        assert_eq!(with_dangling(&found, true, "t4"), None);
    }
}
