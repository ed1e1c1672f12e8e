//! What upstream's server of this version has by default (`api/discovery` of kubernetes/kubernetes, what is stable),
//! and what differs here.
//!
//! `upstream.txt`: group versions in the order of discovery (`GROUP/VERSION`, the core's group is empty), below each
//! its resources (`NAME KIND SCOPE VERBS SHORTNAMES CATEGORIES`), lists with commas, none of them as `-`. A kind of
//! another group version has that before its name.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use serde_json::Value;

use super::*;
use crate::builtin;

const UPSTREAM: &str = include_str!("upstream.txt");

/// What is different, each with its reason: `-` is missing here, `+` is only here, `~` is said otherwise. There is
/// nothing.
const DEVIATIONS: &[(&str, &str)] = &[];

fn listed_here() -> String {
    let mut text = String::new();
    let groups = api_group_list(builtin(), &[]);
    let of_groups = groups["groups"].as_array().unwrap().iter().flat_map(|group| {
        let versions = group["versions"].as_array().unwrap().iter();
        versions.map(|version| (str_at(group, &["name"]).to_owned(), str_at(version, &["version"]).to_owned()))
    });
    for (group, version) in std::iter::once((String::new(), "v1".to_owned())).chain(of_groups) {
        writeln!(text, "{group}/{version}").unwrap();
        let list = api_resource_list(builtin(), &group, &version).unwrap();
        for resource in list["resources"].as_array().unwrap() {
            writeln!(text, "  {}", line(resource)).unwrap();
        }
    }
    text
}

fn line(resource: &Value) -> String {
    let field = |name: &str| str_at(resource, &[name]);
    let list = |name: &str| match resource[name].as_array().map(Vec::as_slice) {
        None | Some([]) => "-".to_owned(),
        Some(items) => items.iter().map(|item| item.as_str().unwrap()).collect::<Vec<_>>().join(","),
    };
    let scope = if resource["namespaced"] == true { "namespaced" } else { "cluster" };
    let of =
        if field("group").is_empty() { String::new() } else { format!("{}/{}/", field("group"), field("version")) };
    let (verbs, short, categories) = (list("verbs"), list("shortNames"), list("categories"));
    format!("{} {of}{} {scope} {verbs} {short} {categories}", field("name"), field("kind"))
}

/// Each line with its group version, so that one says all.
fn lines(text: &str) -> Vec<(String, String)> {
    let mut of = "";
    let mut all = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("  ") {
            None => {
                of = line;
                all.push((of.to_owned(), String::new()));
            }
            Some(resource) => {
                let (name, rest) = resource.split_once(' ').unwrap();
                all.push((format!("{of} {name}"), rest.to_owned()));
            }
        }
    }
    all
}

#[test]
fn discovery_is_upstreams() {
    let (theirs, ours) = (lines(UPSTREAM), lines(&listed_here()));
    let mut found = Vec::new();
    for (name, rest) in &theirs {
        match ours.iter().find(|(own, _)| own == name) {
            None => found.push(("-", name.clone())),
            Some((_, own)) if own != rest => found.push(("~", format!("{name}: {own} for {rest}"))),
            Some(_) => {}
        }
    }
    found
        .extend(ours.iter().filter(|(own, _)| theirs.iter().all(|(n, _)| n != own)).map(|(own, _)| ("+", own.clone())));
    let expect: Vec<_> = DEVIATIONS.iter().map(|(how, what)| (*how, (*what).to_owned())).collect();
    assert_eq!(found, expect);
    let names = |all: &[(String, String)], of: &[(String, String)]| -> Vec<String> {
        all.iter().filter(|(name, _)| of.iter().any(|(other, _)| other == name)).map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&ours, &theirs), names(&theirs, &ours), "the order");
    assert_eq!(theirs.iter().filter(|(name, rest)| !rest.is_empty() && name.matches('/').count() == 1).count(), 68);
}
