//! The definitions behind the documents, with their descriptions, as the build script packed them: lines `NAME JSON`,
//! sorted by name. Unpacked while a document is made; nothing of them stays in memory.

use std::io::Read as _;

use serde_json::{Map, Value};

use crate::schema::find;

/// Before the name of a definition in the references of packed definitions, and of version 3 documents.
pub(super) const PREFIX: &str = "#/components/schemas/";

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/definitions.deflate"));

/// These definitions and all that they refer to. A name that nothing defines is left out.
pub(super) fn needed<'r>(roots: impl IntoIterator<Item = &'r str>) -> Map<String, Value> {
    closure(&unpack(PACKED).expect("the build script packed it"), roots)
}

/// The definition name in a `$ref`.
pub(super) fn name(reference: &str) -> &str {
    reference.strip_prefix(PREFIX).unwrap_or(reference)
}

fn unpack(packed: &[u8]) -> std::io::Result<String> {
    let mut text = String::new();
    flate2::read::DeflateDecoder::new(packed).read_to_string(&mut text)?;
    Ok(text)
}

fn closure<'r>(text: &str, roots: impl IntoIterator<Item = &'r str>) -> Map<String, Value> {
    let mut found = Map::new();
    let mut wanted: Vec<String> = roots.into_iter().map(str::to_owned).collect();
    while let Some(name) = wanted.pop() {
        if found.contains_key(&name) {
            continue;
        }
        if let Some(definition) = find(text, &name).and_then(|json| serde_json::from_str(json).ok()) {
            references(&definition, &mut wanted);
            found.insert(name, definition);
        }
    }
    found
}

/// Adds the names of all definitions that `value` refers to.
pub(super) fn references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            names.extend(map.get("$ref").and_then(Value::as_str).map(|target| name(target).to_owned()));
            map.values().for_each(|v| references(v, names));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_needed_is_found_through_references() {
        let text = r##"a {"items":{"$ref":"#/components/schemas/b"}}
b {"properties":{"x":{"$ref":"#/components/schemas/a"},"y":[{"$ref":"#/components/schemas/c"}],"z":{"$ref":"#/components/schemas/none"}}}
bad {"a":
c 1
"##;
        let cases: [(&[&str], &[&str]); 6] = [
            (&[], &[]),
            (&["a"], &["a", "b", "c"]),
            (&["b", "b"], &["a", "b", "c"]),
            (&["c"], &["c"]),
            (&["bad"], &[]),
            (&["z"], &[]),
        ];
        for (roots, expect) in cases {
            let found = closure(text, roots.iter().copied());
            assert_eq!(found.keys().collect::<Vec<_>>(), expect, "{roots:?}");
        }
        assert!(closure("", ["a"]).is_empty() && closure("\n a\n", ["a"]).is_empty());
    }

    #[test]
    fn garbage_is_an_error() {
        let whole = unpack(PACKED).unwrap();
        assert!(whole.ends_with("}\n"));
        assert!(unpack(&PACKED[..PACKED.len() / 2]).is_err());
        assert!(unpack(&[0xff; 64]).is_err());
        assert!(unpack(&[]).is_err());
    }

    #[test]
    fn the_build_script_packs_what_is_needed_and_no_more() {
        let text = unpack(PACKED).unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(' ')?.0)).collect();
        assert!(names.is_sorted());
        let scheme = crate::tests::with_definitions();
        let roots: Vec<&str> = scheme.kinds().map(|k| k.definition()).chain(super::super::schemas::ALWAYS).collect();
        let found = needed(roots.iter().copied());
        let missing: Vec<_> = roots.iter().filter(|root| !found.contains_key(**root)).collect();
        assert!(missing.is_empty(), "not among the roots of build.rs: {missing:?}");
        assert_eq!(found.keys().collect::<Vec<_>>(), names);
    }
}
