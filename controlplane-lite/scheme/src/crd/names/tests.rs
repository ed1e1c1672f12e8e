//! The cases of k8s.io/apiextensions-apiserver/pkg/controller/status/naming_controller_test.go.

#![allow(clippy::unwrap_used)]

use super::*;

fn named([plural, singular, kind, list]: [&str; 4], short: &[&str]) -> Value {
    let mut names = json!({"plural": plural, "kind": kind});
    for (field, name) in [("singular", singular), ("listKind", list)] {
        if !name.is_empty() {
            names[field] = json!(name);
        }
    }
    if !short.is_empty() {
        names["shortNames"] = json!(short);
    }
    names
}

const ASKED: [&str; 4] = ["alfa", "delta", "Echo", "Foxtrot"];
const SHORT: &[&str] = &["golf", "hotel"];
const HAD: [&str; 4] = ["zulu", "yankee", "Xray", "Whiskey"];
const HAD_SHORT: &[&str] = &["victor", "uniform"];

fn crd(group: &str, asked: Value, had: Value) -> Value {
    json!({"spec": {"group": group, "names": asked}, "status": {"acceptedNames": had}})
}

fn asking() -> Value {
    crd("bravo.com", named(ASKED, SHORT), json!({}))
}

fn other(names: [&str; 4], short: &[&str]) -> Value {
    crd("bravo.com", json!({}), named(names, short))
}

fn accepted() -> Condition {
    Condition::new(NAMES_ACCEPTED, "True", "NoConflicts", "no conflicts found")
}

fn conflict(reason: &str, message: &str) -> Condition {
    Condition::new(NAMES_ACCEPTED, "False", reason, message)
}

fn installing() -> Condition {
    Condition::new(ESTABLISHED, "False", "Installing", "the initial names have been accepted")
}

fn not_established() -> Condition {
    Condition::new(ESTABLISHED, "False", "NotAccepted", "not all names are accepted")
}

/// What a row is about, a definition, those that are there, and what is told of names and of both conditions.
type Row = (&'static str, Value, Vec<Value>, Value, Condition, Condition);

#[test]
fn names_are_given_to_who_comes_first() {
    let with = |condition: &Condition| {
        let mut crd = asking();
        condition.set(&mut crd, "2026-01-01T00:00:00Z");
        crd
    };
    let renamed = crd("bravo.com", named(ASKED, SHORT), named(HAD, HAD_SHORT));
    let itself = crd("bravo.com", named(ASKED, SHORT), named(ASKED, SHORT));
    let all = named(ASKED, SHORT);
    let bare = crd("bravo.com", json!({"plural": "alfa", "kind": ""}), json!({}));
    let foreign = crd("charlie.com", json!({}), named(ASKED, SHORT));
    let in_use = |name: &str| format!("\"{name}\" is already in use");
    let but = |place: usize| {
        let mut names = ASKED;
        names[place] = "";
        let mut names = named(names, SHORT);
        // What was never given is not there.
        let field = ["plural", "singular", "kind", "listKind"][place];
        names.as_object_mut().unwrap().remove(field);
        names
    };
    let served = Condition::established();
    let rows: Vec<Row> = vec![
        ("the first", bare, vec![], json!({"plural": "alfa", "kind": ""}), accepted(), installing()),
        ("another group", asking(), vec![foreign], all.clone(), accepted(), installing()),
        (
            "a plural that is a singular",
            asking(),
            vec![other(["india", "alfa", "", ""], &[])],
            but(0),
            conflict("PluralConflict", &in_use("alfa")),
            not_established(),
        ),
        (
            "a singular that is a short name",
            asking(),
            vec![other(["india", "indias", "", ""], &["delta"])],
            but(1),
            conflict("SingularConflict", &in_use("delta")),
            not_established(),
        ),
        (
            "a short name",
            asking(),
            vec![other(["india", "indias", "", ""], &["hotel"])],
            named(ASKED, &[]),
            conflict("ShortNamesConflict", &in_use("hotel")),
            not_established(),
        ),
        (
            "both short names",
            asking(),
            vec![other(["india", "indias", "", ""], &["hotel", "golf"])],
            named(ASKED, &[]),
            conflict("ShortNamesConflict", &format!("[{}, {}]", in_use("golf"), in_use("hotel"))),
            not_established(),
        ),
        (
            "a kind that is a list",
            asking(),
            vec![other(["india", "indias", "", "Echo"], &[])],
            but(2),
            conflict("KindConflict", &in_use("Echo")),
            not_established(),
        ),
        (
            "a list that is a kind",
            asking(),
            vec![other(["india", "indias", "Foxtrot", ""], &[])],
            but(3),
            conflict("ListKindConflict", &in_use("Foxtrot")),
            not_established(),
        ),
        (
            "a resource may be called as a kind",
            asking(),
            vec![other(["india", "Echo", "", ""], &[])],
            all.clone(),
            accepted(),
            installing(),
        ),
        (
            "what is free is taken, the rest stays",
            renamed.clone(),
            vec![other(["india", "indias", "Foxtrot", ""], &["delta"])],
            named(["alfa", "yankee", "Echo", "Whiskey"], SHORT),
            conflict("ListKindConflict", &in_use("Foxtrot")),
            not_established(),
        ),
        (
            "short names are taken together",
            renamed,
            vec![other(["india", "indias", "Foxtrot", ""], &["delta", "golf"])],
            named(["alfa", "yankee", "Echo", "Whiskey"], HAD_SHORT),
            conflict("ListKindConflict", &in_use("Foxtrot")),
            not_established(),
        ),
        ("its own names", itself.clone(), vec![itself.clone()], all.clone(), accepted(), installing()),
        (
            "a short name less",
            crd("bravo.com", named(ASKED, &["golf"]), named(ASKED, SHORT)),
            vec![itself],
            named(ASKED, &["golf"]),
            accepted(),
            installing(),
        ),
        ("accepted before", with(&accepted()), vec![], all.clone(), accepted(), installing()),
        (
            "refused before",
            with(&conflict("NotAccepted", "not all names are accepted")),
            vec![],
            all.clone(),
            accepted(),
            installing(),
        ),
        (
            "accepted before, and in conflict",
            with(&accepted()),
            vec![other(["india", "alfa", "", ""], &[])],
            but(0),
            conflict("PluralConflict", &in_use("alfa")),
            not_established(),
        ),
        ("served before", with(&served), vec![], all, accepted(), served.clone()),
        (
            "served before, and in conflict",
            with(&served),
            vec![other(["india", "", "Echo", ""], &[])],
            but(2),
            conflict("KindConflict", &in_use("Echo")),
            served,
        ),
    ];
    for (name, crd, others, names, condition, established) in rows {
        let decision = decide(&crd, &Taken::of("bravo.com", &others));
        let accepted: Map<String, Value> =
            decision.accepted.as_object().unwrap().clone().into_iter().filter(|(_, v)| !v.is_null()).collect();
        assert_eq!((&Value::from(accepted), &decision.names_accepted), (&names, &condition), "{name}");
        assert_eq!(decision.established, established, "{name}");
    }
}

#[test]
fn a_decision_is_written_once_and_keeps_its_time() {
    let (first, later) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    let mut crd = asking();
    assert!(!settled(&crd));
    let decision = decide(&crd, &Taken::default());
    assert!(decision.apply(&mut crd, first));
    assert!(!decision.apply(&mut crd, later));
    assert!(settled(&crd));
    assert_eq!(
        crd["status"]["conditions"],
        json!([
            {"type": "NamesAccepted", "status": "True", "lastTransitionTime": first, "reason": "NoConflicts",
                "message": "no conflicts found"},
            {"type": "Established", "status": "False", "lastTransitionTime": first, "reason": "Installing",
                "message": "the initial names have been accepted"},
        ])
    );
    Condition::established().set(&mut crd, later);
    assert_eq!(crd["status"]["conditions"][1]["lastTransitionTime"], later);
    assert!(condition_is_true(&crd, ESTABLISHED));
    // Another word of the same status is no transition.
    Condition::new(NAMES_ACCEPTED, "True", "Other", "").set(&mut crd, later);
    assert_eq!(crd["status"]["conditions"][0]["lastTransitionTime"], first);
    assert_eq!(crd["status"]["conditions"][0]["reason"], "Other");
    // A new definition has no list of conditions.
    let mut new = json!({"status": {"conditions": null}});
    Condition::terminating().set(&mut new, first);
    assert_eq!(new["status"]["conditions"][0]["reason"], "InstanceDeletionPending");
}
