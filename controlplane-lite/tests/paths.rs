//! A mistyped path (`str_at(pod, &["spec", "nodName"])`) reads as an empty text and writes a field that nobody has.
//! Here every path that the sources spell out is followed through the types of the API: it has to start at some object
//! type, since values may be parts, and go on from field to field.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use scheme::schema::{ObjectType, Type};

/// The crates that read objects as values.
const CRATES: [&str; 7] = ["apiserver", "auth", "client", "controllers", "scheduler", "scheme", "../agent"];
/// The functions of `scheme::access` with a path, and in which argument.
const WITH_PATH: [(&str, usize); 11] = [
    ("at", 1),
    ("at_mut", 1),
    ("bool_at", 1),
    ("ensure_map", 1),
    ("entries_at", 1),
    ("int_at", 1),
    ("list_at", 1),
    ("list_at_mut", 1),
    ("map_at", 1),
    ("map_at_mut", 1),
    ("str_at", 1),
];
/// Those with the name of one field.
const WITH_FIELD: [(&str, usize); 3] = [("copy_field", 2), ("set_default", 1), ("set_default_str", 1)];

/// Files that write documents which are no objects of the API.
const FOREIGN: [(&str, &str); 12] = [
    ("agent/src/bootstrap/discovery.rs", "kubeconfig"),
    ("agent/src/bootstrap/token.rs", "headers of signatures"),
    ("apiserver/src/definitions/review.rs", "answers of conversion webhooks"),
    ("auth/src/authn/service_account.rs", "claims of tokens"),
    ("auth/src/authn/service_account/legacy.rs", "claims of tokens"),
    ("scheduler/src/config.rs", "an `at` of its own, over the names of plugins"),
    ("scheme/src/crd/openapi.rs", "OpenAPI definitions"),
    ("scheme/src/discovery.rs", "discovery documents"),
    ("scheme/src/discovery/foreign.rs", "discovery documents"),
    ("scheme/src/discovery/upstream.rs", "discovery documents"),
    ("scheme/src/openapi/paths.rs", "OpenAPI documents"),
    ("scheme/src/schema/own.rs", "OpenAPI definitions"),
];
/// Paths in other files that are none of fields.
const OTHERS: [(&str, &str, &str); 7] = [
    ("apiserver/src/aggregation/remote.rs", "serverRelativeURL", "the root of OpenAPI documents"),
    ("apiserver/src/expressions/input.rs", "resource.group", "a request for admission"),
    ("apiserver/src/expressions/input.rs", "resource.resource", "a request for admission"),
    ("apiserver/src/expressions/input.rs", "subResource", "a request for admission"),
    ("apiserver/src/fuzzing.rs", "cells", "a Table, which is answered and never read"),
    ("apiserver/src/respond/made.rs", "rows", "a Table, which is answered and never read"),
    ("scheme/src/defaults/workloads.rs", "autoscaling.alpha.kubernetes.io/metrics", "an annotation"),
];

/// A step of a path: a name, or whatever a variable holds.
type Step<'t> = Option<&'t str>;

/// A path as a source spells it out.
#[derive(Debug, PartialEq, Eq)]
struct Spelled<'t> {
    line: usize,
    steps: Vec<Step<'t>>,
}

/// All paths of a source.
fn paths(text: &str) -> Vec<Spelled<'_>> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('(') {
        let before = &text[..at];
        let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |end| end + 1);
        let (name, head) = (&before[start..], before[..start].trim_end());
        if head.ends_with("fn") || head.ends_with('.') {
            continue;
        }
        let argument = |place: usize| arguments(&text[at + 1..]).into_iter().nth(place);
        let of = |list: &[(&str, usize)]| list.iter().find(|(known, _)| *known == name).map(|(_, place)| *place);
        let steps = match (of(&WITH_PATH), of(&WITH_FIELD)) {
            (Some(place), _) => argument(place).and_then(|text| text.strip_prefix("&[")?.strip_suffix(']')).map(list),
            (_, Some(place)) => argument(place).and_then(literal).map(|field| vec![Some(field)]),
            _ => None,
        };
        found.extend(steps.map(|steps| Spelled { line: line(text, at), steps }));
    }
    found.extend(indexes(text));
    found
}

/// `value["a"]["b"]`.
fn indexes(text: &str) -> Vec<Spelled<'_>> {
    let mut found = Vec::new();
    let mut upto = 0;
    for (at, _) in text.match_indices("[\"") {
        let indexed = text[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ')' | ']' | '?'));
        if at < upto || !indexed {
            continue;
        }
        let (mut steps, mut rest) = (Vec::new(), &text[at..]);
        while let Some((step, more)) = rest.strip_prefix("[\"").and_then(|inner| inner.split_once("\"]")) {
            steps.push(Some(step));
            rest = more;
        }
        upto = text.len() - rest.len();
        if !steps.is_empty() {
            found.push(Spelled { line: line(text, at), steps });
        }
    }
    found
}

fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The arguments of a call, of which `text` is what follows the parenthesis.
fn arguments(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0, false);
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' if quoted => drop(characters.next()),
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => {
                found.push(text[start..at].trim());
                return found;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

fn literal(text: &str) -> Step<'_> {
    text.strip_prefix('"')?.strip_suffix('"')
}

fn list(text: &str) -> Vec<Step<'_>> {
    text.split(',').map(str::trim).filter(|step| !step.is_empty()).map(literal).collect()
}

/// All object types of the API, by name.
fn types() -> BTreeMap<String, Arc<ObjectType>> {
    fn add(ty: &Arc<ObjectType>, all: &mut BTreeMap<String, Arc<ObjectType>>) {
        if all.insert(ty.name().to_owned(), ty.clone()).is_none() {
            ty.fields().iter().filter_map(|field| field.ty.object()).for_each(|inner| add(inner, all));
        }
    }
    let mut all = BTreeMap::new();
    let unchecked: Arc<scheme::crd::SchemaCheck> =
        Arc::new(|_: scheme::crd::Schema<'_>, _: &scheme::Path<'_>, _: &mut scheme::FieldErrors| {});
    scheme::builtin_with(&unchecked).kinds().for_each(|kind| add(kind.schema(), &mut all));
    all
}

/// Whether the steps follow one another from a value of the type.
fn leads(ty: &Type, steps: &[Step<'_>]) -> bool {
    match (ty, steps) {
        (_, []) | (Type::Any, _) => true,
        (Type::Map(item), [_, rest @ ..]) => leads(item, rest),
        (Type::Object(object), steps) => leads_from(object, steps),
        _ => false,
    }
}

fn leads_from(object: &ObjectType, steps: &[Step<'_>]) -> bool {
    match steps {
        [] => true,
        [Some(name), rest @ ..] => object.field(name).is_some_and(|field| leads(&field.ty, rest)),
        [None, rest @ ..] => object.fields().iter().any(|field| leads(&field.ty, rest)),
    }
}

/// Sources below a directory, without comments and tests, by their path from this crate.
fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code: Vec<&str> =
                code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect();
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_string_lossy().into_owned();
            found.push((name, code.join("\n")));
        }
    }
}

#[test]
fn every_path_leads_from_field_to_field() {
    let types = types();
    let mut all = Vec::new();
    for part in CRATES {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(part).join("src"), &mut all);
    }
    let (mut count, mut astray, mut unused) = (0, Vec::new(), OTHERS.to_vec());
    for (file, text) in all.iter().filter(|(file, _)| !FOREIGN.iter().any(|(foreign, _)| file.ends_with(foreign))) {
        for path in paths(text) {
            count += 1;
            let spelled = path.steps.iter().map(|step| step.unwrap_or("…")).collect::<Vec<_>>().join(".");
            if types.values().any(|ty| leads_from(ty, &path.steps)) {
                continue;
            }
            if OTHERS.iter().any(|(other, known, _)| file.ends_with(other) && *known == spelled) {
                unused.retain(|(other, known, _)| !(file.ends_with(other) && *known == spelled));
            } else {
                astray.push(format!("{file}:{}: {spelled}", path.line));
            }
        }
    }
    // The walk has found what it looks for.
    assert!(count > 1_200 && types.len() > 300, "{count} paths, {} types", types.len());
    assert!(astray.is_empty(), "no object has these fields:\n{}", astray.join("\n"));
    assert!(unused.is_empty(), "exceptions for nothing: {unused:?}");
    for (foreign, _) in FOREIGN {
        assert!(all.iter().any(|(file, _)| file.ends_with(foreign)), "there is no {foreign}");
    }
}

#[test]
fn paths_are_found_as_they_are_spelled() {
    let text = r#"
fn at(value: &Value, path: &[&str]) {}
str_at(f(a, [b]), &["spec", "nodeName"])
list_at(pod, &[
    "spec", name, "x",
]) .at(&["not"]) str_at(a, path)
copy_field(&mut new, old, "labels"); set_default(ensure_map(o, &["spec"]), "type", "a,b(")
pod["status"]["phase"] &["an", "array"] m[0]["name"]
"#;
    let spelled = |line: usize, steps: &[Step<'static>]| Spelled { line, steps: steps.to_vec() };
    assert_eq!(
        paths(text),
        [
            spelled(3, &[Some("spec"), Some("nodeName")]),
            spelled(4, &[Some("spec"), None, Some("x")]),
            spelled(7, &[Some("labels")]),
            spelled(7, &[Some("type")]),
            spelled(7, &[Some("spec")]),
            spelled(8, &[Some("status"), Some("phase")]),
            spelled(8, &[Some("name")]),
        ]
    );
}

#[test]
fn paths_are_followed_through_types() {
    let types = types();
    let pod = &types["io.k8s.api.core.v1.Pod"];
    for (steps, expect) in [
        (&["spec", "nodeName"][..], true),
        (&["spec", "nodName"], false),
        (&["metadata", "labels", "whatever"], true),
        (&["metadata", "labels", "whatever", "more"], false),
        // A list has no fields, and neither has a text.
        (&["spec", "containers", "name"], false),
        (&["spec", "nodeName", "x"], false),
        (&[], true),
    ] {
        let steps: Vec<Step<'_>> = steps.iter().copied().map(Some).collect();
        assert_eq!(leads_from(pod, &steps), expect, "{steps:?}");
    }
    assert!(leads_from(pod, &[Some("spec"), None, Some("runAsUser")]));
    assert!(!leads_from(pod, &[Some("spec"), None, Some("runAsUsr"), None]));
}
