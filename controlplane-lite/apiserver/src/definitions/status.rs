//! Pure: what a definition is told of itself (k8s.io/apiextensions-apiserver/pkg/controller/{status,establish,
//! nonstructuralschema,apiapproval}).

use serde_json::Value;

use scheme::FieldErrors;
use scheme::access::{at_mut, bool_at};
use scheme::crd::names::{self, Condition, ESTABLISHED, NAMES_ACCEPTED, Taken};
use scheme::crd::{self, condition_is_true};
use scheme::field::Path;

const NON_STRUCTURAL: &str = "NonStructuralSchema";

/// Writes what is said of names, schemas and approval into a definition; `problem` is what cannot be read of its
/// schemas.
/// Returns whether there was anything to write.
pub fn decide(crd: &mut Value, taken: &Taken, problem: Option<&str>, now: &str) -> bool {
    let mut changed = false;
    if !names::settled(crd) || Condition::of(crd, NAMES_ACCEPTED).is_none() {
        changed |= names::decide(crd, taken).apply(crd, now);
    }
    changed |= match non_structural(crd, problem) {
        Some(condition) => set(crd, &condition, now),
        None => remove(crd, NON_STRUCTURAL),
    };
    if let Some(condition) = crd::approval(crd) {
        changed |= set(crd, &condition, now);
    }
    changed
}

/// Says that the objects of a definition are served. Returns whether that is new.
pub fn establish(crd: &mut Value, now: &str) -> bool {
    let established = condition_is_true(crd, ESTABLISHED);
    if !established {
        Condition::established().set(crd, now);
    }
    !established
}

/// Whether the objects of a definition are to be served.
pub fn is_served(crd: &Value) -> bool {
    condition_is_true(crd, NAMES_ACCEPTED) || condition_is_true(crd, ESTABLISHED)
}

fn non_structural(crd: &Value, problem: Option<&str>) -> Option<Condition> {
    if let Some(problem) = problem {
        let why = format!("failed to check validation schema for {problem}");
        return Some(Condition::new(NON_STRUCTURAL, "Unknown", "StructuralError", &why));
    }
    if !bool_at(crd, &["spec", "preserveUnknownFields"]) {
        return None;
    }
    let mut errors = FieldErrors::new();
    errors.invalid(&Path::new("spec").child("preserveUnknownFields"), true, "must be false");
    Some(Condition::new(NON_STRUCTURAL, "True", "Violations", &errors.0[0].to_string()))
}

/// Writes a condition unless it is there.
pub fn set(crd: &mut Value, condition: &Condition, now: &str) -> bool {
    if Condition::of(crd, &condition.ty).as_ref() == Some(condition) {
        return false;
    }
    condition.set(crd, now);
    true
}

fn remove(crd: &mut Value, ty: &str) -> bool {
    let Some(conditions) = at_mut(crd, &["status", "conditions"]).and_then(Value::as_array_mut) else { return false };
    let before = conditions.len();
    conditions.retain(|condition| condition["type"] != ty);
    conditions.len() != before
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn definition(group: &str) -> Value {
        let names = json!({"plural": "ws", "singular": "w", "kind": "W", "listKind": "WList"});
        json!({"metadata": {}, "spec": {"group": group, "names": names}})
    }

    fn told(crd: &Value) -> Vec<String> {
        let conditions = crd["status"]["conditions"].as_array().into_iter().flatten();
        conditions.map(|c| format!("{}={} {}", c["type"], c["status"], c["reason"]).replace('"', "")).collect()
    }

    #[test]
    fn a_definition_is_told_once() {
        let mut crd = definition("example.com");
        assert!(!is_served(&crd));
        assert!(decide(&mut crd, &Taken::default(), None, NOW) && is_served(&crd));
        assert!(establish(&mut crd, NOW) && !establish(&mut crd, NOW));
        assert_eq!(told(&crd), ["NamesAccepted=True NoConflicts", "Established=True InitialNamesAccepted"]);
        assert!(!decide(&mut crd, &Taken::default(), None, NOW));
    }

    #[test]
    fn what_is_wrong_with_it_is_told_until_it_is_right() {
        let mut crd = definition("a.k8s.io");
        crd["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, a test"});
        crd["spec"]["preserveUnknownFields"] = json!(true);
        assert!(decide(&mut crd, &Taken::default(), None, NOW));
        assert_eq!(
            told(&crd)[2..],
            ["NonStructuralSchema=True Violations", "KubernetesAPIApprovalPolicyConformant=False UnapprovedAnnotation"]
        );
        crd["spec"]["preserveUnknownFields"] = json!(false);
        assert!(decide(&mut crd, &Taken::default(), Some("version v1: no"), NOW));
        assert_eq!(told(&crd)[2], "NonStructuralSchema=Unknown StructuralError");
        assert!(decide(&mut crd, &Taken::default(), None, NOW));
        assert_eq!(told(&crd).len(), 3);
    }
}
