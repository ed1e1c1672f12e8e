//! Tests of `scheme::meta`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

#[test]
fn names_follow_their_rule() {
    for (rule, name, ok) in [
        (NameRule::Dns1123Subdomain, "a.b-c.1", true),
        (NameRule::Dns1123Subdomain, "A", false),
        (NameRule::Dns1123Subdomain, "a..b", false),
        (NameRule::Dns1123Subdomain, "-a", false),
        (NameRule::Dns1123Label, "a.b", false),
        (NameRule::Dns1123Label, "1a", true),
        (NameRule::Dns1035Label, "1a", false),
        (NameRule::PathSegment, "system:node:x", true),
        (NameRule::PathSegment, "a/b", false),
        (NameRule::IpAddress, "10.0.0.1", true),
        (NameRule::IpAddress, "2001:db8::ffff", true),
        (NameRule::IpAddress, "::ffff:1.2.3.4", true),
        (NameRule::IpAddress, "2001:DB8::ffff", false),
        (NameRule::IpAddress, "2001:db8:0::ffff", false),
        (NameRule::IpAddress, "10.0.0.01", false),
        (NameRule::IpAddress, "web", false),
        (NameRule::PathSegment, "..", false),
    ] {
        assert_eq!(rule.check(name, false).is_empty(), ok, "{rule:?} {name}");
    }
    assert!(NameRule::Dns1123Subdomain.check("web-", true).is_empty());
    assert!(!NameRule::Dns1123Subdomain.check("web-", false).is_empty());
    assert!(!dns1123_subdomain(&"a".repeat(254)).is_empty());
    assert!(!dns1123_label(&"a".repeat(64)).is_empty());
}

#[test]
fn invalid_names_are_told_as_upstream() {
    let mut errors = FieldErrors::new();
    validate(
        &json!({"metadata": {"name": "Bad_Name", "namespace": "x"}}),
        true,
        NameRule::Dns1123Subdomain,
        &Path::new("metadata"),
        &mut errors,
    );
    assert_eq!(
        errors.0[0].to_string(),
        "metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case \
         alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
         'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    );
}

/// `ValidateFieldManager`.
#[test]
fn managers_can_be_printed() {
    let told = |manager: &str| {
        let mut errors = FieldErrors::new();
        let object = json!({"metadata": {"name": "x", "managedFields": [
            {"manager": manager, "operation": "Update", "fieldsType": "FieldsV1"}]}});
        validate(&object, false, NameRule::Any, &Path::new("metadata"), &mut errors);
        errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(told("kubectl \u{e9}\u{301}").is_empty());
    let path = "metadata.managedFields[0].manager: Invalid value: ";
    let (bell, spaces) = ("\"a\\a\"", "\"\\u00a0\u{e9}\\u2028\"");
    assert_eq!(told("a\u{7}"), [format!("{path}{bell}: invalid character U+0007 (at position 1)")]);
    assert_eq!(
        told("\u{a0}\u{e9}\u{2028}"),
        [
            format!("{path}{spaces}: invalid character U+00A0 (at position 0)"),
            format!("{path}{spaces}: invalid character U+2028 (at position 4)"),
        ]
    );
}

/// Those of `TestDedupOwnerReferences` (apiserver, `pkg/endpoints/handlers/rest_test.go`), and no more.
#[test]
fn owners_that_say_the_same_are_one() {
    let owner = |uid: &str, more: Value| {
        let mut owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid});
        owner.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        owner
    };
    let plain = |uid: &str| owner(uid, json!({}));
    let leads = owner("1", json!({"controller": true}));
    let blocks = owner("1", json!({"blockOwnerDeletion": false}));
    let other = owner("1", json!({"name": "q"}));
    for (owners, expect, taken) in [
        (json!([plain("1")]), json!([plain("1")]), vec![]),
        (json!([plain("1"), plain("2"), plain("1"), plain("1")]), json!([plain("1"), plain("2")]), vec!["1", "1"]),
        (
            json!([plain("1"), leads, blocks, other, leads, owner("1", json!({"controller": null}))]),
            json!([plain("1"), leads, blocks, other]),
            vec!["1", "1"],
        ),
    ] {
        let mut object = json!({"metadata": {"name": "x", "ownerReferences": owners}});
        assert_eq!(dedup_owners(&mut object), taken);
        assert_eq!(object["metadata"]["ownerReferences"], expect);
    }
    let mut none = json!({"metadata": {"ownerReferences": null}});
    assert!(dedup_owners(&mut none).is_empty() && dedup_owners(&mut json!({})).is_empty());
}

#[test]
fn labels_annotations_owners() {
    let check = |meta: Value| {
        let mut errors = FieldErrors::new();
        validate(&json!({"metadata": meta}), false, NameRule::Any, &Path::new("metadata"), &mut errors);
        errors.0.into_iter().map(|e| e.path).collect::<Vec<_>>()
    };
    assert!(check(json!({"labels": {"a.b/c": "d", "e": ""}, "annotations": {"X/y": "anything at all"}})).is_empty());
    assert_eq!(check(json!({"labels": {"a/b/c": "d"}})), ["metadata.labels"]);
    assert_eq!(check(json!({"labels": {"a": "d!"}})), ["metadata.labels[a]"]);
    assert_eq!(check(json!({"annotations": {"a": "x".repeat(ANNOTATIONS_MAX)}})), ["metadata.annotations"]);
    assert_eq!(check(json!({"finalizers": ["no good"]})), ["metadata.finalizers"]);
    assert_eq!(check(json!({"namespace": "x"})), ["metadata.namespace"]);
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true});
    assert!(check(json!({"ownerReferences": [owner]})).is_empty());
    assert_eq!(check(json!({"ownerReferences": [owner, owner]})), ["metadata.ownerReferences"]);
    assert_eq!(
        check(json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]})),
        ["metadata.ownerReferences[0].uid"]
    );
}

#[test]
fn system_metadata() {
    let mut object =
        json!({"metadata": {"name": "a", "resourceVersion": "9", "generation": 7, "deletionTimestamp": "x"}});
    fill_create(&mut object, "uid-1", "2026-01-01T00:00:00Z");
    assert_eq!(object["metadata"], json!({"name": "a", "uid": "uid-1", "creationTimestamp": "2026-01-01T00:00:00Z"}));
    set_generation(&mut object, 1);
    let mut new = json!({"metadata": {"name": "a", "generation": 99, "creationTimestamp": "1999-01-01T00:00:00Z"}, "spec": {"x": 1}});
    keep_system_fields(&mut new, &object);
    bump_generation(&mut new, &object);
    assert_eq!(new["metadata"]["generation"], 2);
    assert_eq!(new["metadata"]["uid"], "uid-1");
    assert_eq!(new["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    let mut same = json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "status": {"y": 1}});
    keep_system_fields(&mut same, &object);
    bump_generation(&mut same, &object);
    assert_eq!(same["metadata"]["generation"], 1);
    mark_deleted(&mut same, "2026-01-01T00:00:30Z", 30);
    assert_eq!(same["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(same["metadata"]["generation"], 2);
}

#[test]
fn updates_cannot_change_identity() {
    let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "t", "finalizers": ["x/y"]}});
    let mut errors = FieldErrors::new();
    let new = json!({"metadata": {"name": "a", "uid": "2", "deletionTimestamp": "t", "finalizers": ["x/y", "n/w"]}});
    validate_update(&new, &old, false, &Path::new("metadata"), &mut errors);
    let texts: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "metadata.uid: Invalid value: \"2\": field is immutable",
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"n/w\"}"
        ]
    );
}

/// Each is told with the whole list.
#[test]
fn of_many_controllers_two_are_told() {
    let owner =
        |n| json!({"apiVersion": "apps/v1", "kind": "K", "name": format!("o{n}"), "uid": "u", "controller": true});
    let told = |count: usize| {
        let owners: Vec<Value> = (0..count).map(owner).collect();
        let mut errors = FieldErrors::new();
        let object = json!({"metadata": {"name": "x", "ownerReferences": owners}});
        validate(&object, false, NameRule::Dns1123Subdomain, &Path::new("metadata"), &mut errors);
        errors.0
    };
    assert!(told(1).is_empty());
    let few = told(3);
    assert_eq!((few.len(), &*few[0].path), (1, "metadata.ownerReferences"));
    assert_eq!(
        few[0].detail,
        "Only one reference can have Controller set to true. Found \"true\" in references for K/o0 and K/o1"
    );
    let many = told(40_000);
    assert!(many.len() == 1 && many[0].to_string().len() < 3 * crate::field::MAX_BYTES, "{}", many.len());
}

proptest! {
    #[test]
    fn generated_names_fit(base in "[a-z][a-z0-9-]{0,80}", random in any::<[u8; SUFFIX_LEN]>()) {
        let name = generate_name(&base, random);
        prop_assert!(name.len() <= LABEL_MAX);
        prop_assert!(name.bytes().rev().take(SUFFIX_LEN).all(|b| ALPHABET.contains(&b)));
        prop_assert!(NameRule::Dns1123Label.check(&name, false).is_empty());
    }

    #[test]
    fn any_text_is_checked(text in "\\PC{0,300}", random in any::<[u8; SUFFIX_LEN]>()) {
        for rule in [NameRule::Dns1123Subdomain, NameRule::Dns1035Label, NameRule::PathSegment] {
            let _ = (rule.check(&text, false), rule.check(&text, true));
        }
        let _ = (qualified_name(&text), label_value(&text), generate_name(&text, random));
    }
}
