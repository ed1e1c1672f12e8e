//! Tests of `scheme::Scheme`: what is found, what conflicts, and that a change shares what it does not change.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::kind::{Conversion, Names, Schema, Shared};
use crate::strategy::Plain;
use crate::{Text, builtin};

fn kind(group: &str, version: &str, name: &str, plural: &str) -> Kind {
    let own = |text: &str| Text::Owned(text.to_owned());
    let names = Names {
        group: own(group),
        version: own(version),
        kind: own(name),
        plural: own(plural),
        singular: own(&name.to_lowercase()),
        ..Names::default()
    };
    Kind::new(names, Arc::new(Plain), Schema::own(format!("com.example.{version}.{name}"), &json!({"type": "object"})))
}

fn widget(version: &str) -> Kind {
    kind("example.com", version, "Widget", "widgets")
}

fn converted(version: &str, stored: &str) -> Kind {
    let form = Conversion {
        group: "example.com".into(),
        version: stored.to_owned().into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
        to_storage: Shared::Static(&std::convert::identity),
        from_storage: Shared::Static(&std::convert::identity),
        stored_field: str::to_owned,
    };
    let mut kind = widget(version);
    kind.conversion = Some(form);
    kind
}

/// The index finds what a look at every kind finds.
#[test]
fn lookups_agree_with_a_walk() {
    let scheme = builtin().with(widget("v1")).unwrap();
    let all: Vec<&Arc<Kind>> = scheme.kinds().collect();
    let texts = |of: fn(&Kind) -> &Text| {
        let mut texts: Vec<&str> = all.iter().map(|kind| &**of(kind)).collect();
        texts.extend(["", "~", "nope"]);
        texts.sort_unstable();
        texts.dedup();
        texts
    };
    let groups = texts(|k| &k.group);
    for (group, version) in groups.iter().flat_map(|g| texts(|k| &k.version).into_iter().map(move |v| (*g, v))) {
        for plural in texts(|k| &k.plural) {
            let walked = all.iter().find(|k| !plural.is_empty() && path(k) == (group, version, plural));
            let found = scheme.by_gvr(group, version, plural);
            assert_eq!(found.map(Arc::as_ptr), walked.map(|k| Arc::as_ptr(k)), "{group}/{version}/{plural}");
        }
        for word in texts(|k| &k.kind) {
            let walked = all.iter().find(|k| name(k) == (group, version, word));
            let found = scheme.by_gvk(group, version, word);
            assert_eq!(found.map(Arc::as_ptr), walked.map(|k| Arc::as_ptr(k)), "{group}/{version} {word}");
        }
        let mut walked: Vec<&str> = all
            .iter()
            .filter(|k| !k.plural.is_empty() && k.group == group && k.version == version)
            .map(|k| &*k.plural)
            .collect();
        walked.sort_unstable();
        let found: Vec<&str> = scheme.in_group_version(group, version).map(|k| &*k.plural).collect();
        assert_eq!(found, walked, "{group}/{version}");
        assert_eq!(scheme.has_group_version(group, version), !walked.is_empty());
    }
}

#[test]
fn what_is_taken_conflicts() {
    let scheme = builtin().with(widget("v1")).unwrap();
    let conflict = |kind: Kind| scheme.with(kind).unwrap_err().to_string();
    assert_eq!(conflict(widget("v1")), "widgets.example.com is already served in version v1");
    assert_eq!(
        conflict(kind("example.com", "v1", "Widget", "gadgets")),
        "the kind Widget is already served in example.com/v1"
    );
    assert_eq!(conflict(kind("", "v1", "Port", "pods")), "pods is already served in version v1");
    assert_eq!(conflict(widget("v2")), "widgets.example.com is already stored in version v1");
    assert!(scheme.with(converted("v2", "v1")).is_ok());
    // Two that store, however they read what is stored.
    assert_eq!(conflict(converted("v2", "v2")), "widgets.example.com is already stored in version v1");
    assert!(builtin().with(converted("v2", "v2")).unwrap().with(converted("v1", "v2")).is_ok());
    assert_eq!(
        builtin().with(converted("v2", "v1")).unwrap_err(),
        Conflict::NoStorage { resource: "widgets.example.com".into() }
    );
}

#[test]
fn a_change_shares_what_stays() {
    let with = builtin().with(widget("v1")).unwrap().with(kind("example.com", "v1", "Gadget", "gadgets")).unwrap();
    let both = with.with(converted("v2", "v1")).unwrap();
    let without = both.without("example.com", "widgets");
    assert!(without.by_gvr("example.com", "v1", "widgets").is_none());
    assert!(without.by_gvr("example.com", "v2", "widgets").is_none());
    assert!(both.by_gvr("example.com", "v2", "widgets").is_some());
    let gadgets = |scheme: &Scheme| Arc::as_ptr(scheme.by_gvr("example.com", "v1", "gadgets").unwrap());
    assert_eq!(gadgets(&with), gadgets(&without));
    let pods = |scheme: &Scheme| Arc::as_ptr(scheme.by_gvr("", "v1", "pods").unwrap());
    assert_eq!(pods(builtin()), pods(&without));
    let again = without.without("example.com", "gadgets").without("", "pods").without("nobody", "knows");
    assert!(again.kinds().map(Arc::as_ptr).eq(builtin().kinds().map(Arc::as_ptr)));
}

/// The order of k8s.io/apimachinery/pkg/version/helpers_test.go.
#[test]
fn versions_are_ordered_as_upstream() {
    let descending =
        ["v10", "v2", "v1", "v10beta2", "v1beta3", "v1beta1", "v12alpha1", "v1alpha2", "foo", "foo1", "v1gamma1"];
    let priorities: Vec<Priority<'_>> = descending.iter().map(|text| Priority::of(text)).collect();
    for pair in priorities.windows(2) {
        assert!(pair[0] > pair[1], "{pair:?}");
    }
}

/// Whatever comes first, discovery shows groups by name after the built-in ones, and the preferred version first.
#[test]
fn discovery_does_not_depend_on_who_came_first() {
    let kinds: [fn() -> Kind; 4] = [
        || widget("v1beta1"),
        || kind("example.com", "v1", "Gadget", "gadgets"),
        || kind("an.example.org", "v1alpha1", "Thing", "things"),
        || kind("example.com", "v2", "Other", "others"),
    ];
    for turn in 0..kinds.len() {
        let mut scheme = Scheme::clone(builtin());
        for place in 0..kinds.len() {
            scheme = scheme.with(kinds[(place + turn) % kinds.len()]()).unwrap();
        }
        let groups = scheme.groups();
        let known = builtin().groups();
        assert_eq!(groups[..known.len()], known);
        assert_eq!(
            groups[known.len()..],
            [
                Group { name: "an.example.org", versions: vec!["v1alpha1"] },
                Group { name: "example.com", versions: vec!["v2", "v1", "v1beta1"] },
            ]
        );
    }
}
