//! Another server's part of the version 2 document: the paths of one group version, and the definitions that they need
//! (k8s.io/kube-openapi/pkg/aggregator).

use std::collections::HashMap;

use serde_json::{Map, Value};

const PREFIX: &str = "#/definitions/";

/// Paths, and definitions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Part {
    paths: Map<String, Value>,
    definitions: Map<String, Value>,
}

impl Part {
    /// What of a version 2 document is below a path such as `/apis/GROUP/VERSION`; nothing of what is none, or when
    /// nothing is.
    #[must_use]
    pub fn of(mut document: Value, path: &str) -> Option<Self> {
        let Value::Object(document) = &mut document else { return None };
        let Some(Value::Object(mut paths)) = document.remove("paths") else { return None };
        let below = |of: &String| of.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        paths.retain(|of, item| below(of) && item.is_object());
        if paths.is_empty() {
            return None;
        }
        let Some(Value::Object(mut all)) = document.remove("definitions") else {
            return Some(Self { paths, definitions: Map::new() });
        };
        let mut wanted = Vec::new();
        paths.values().for_each(|item| names(item, &mut wanted));
        let mut definitions = Map::new();
        while let Some(name) = wanted.pop() {
            if let Some(definition) = all.remove(&name) {
                names(&definition, &mut wanted);
                definitions.insert(name, definition);
            }
        }
        Some(Self { paths, definitions })
    }

    /// Adds it to a document. A definition whose name is taken by another gets one of its own; a path that is there
    /// stays.
    pub fn add_to(&self, document: &mut Value) {
        let mut renamed = HashMap::new();
        let Some(known) = document.get("definitions").and_then(Value::as_object) else { return };
        for (name, definition) in &self.definitions {
            if known.get(name).is_some_and(|other| other != definition) {
                let free = |name: &String| !known.contains_key(name) && !self.definitions.contains_key(name);
                let other = (2_u32..).map(|n| format!("{name}_v{n}")).find(free);
                renamed.insert(name.as_str(), other.unwrap_or_default());
            }
        }
        let moved = |value: &Value| {
            let mut value = value.clone();
            rename(&mut value, &renamed);
            value
        };
        if let Some(known) = document["definitions"].as_object_mut() {
            for (name, definition) in &self.definitions {
                let name = renamed.get(name.as_str()).unwrap_or(name).clone();
                known.entry(name).or_insert_with(|| moved(definition));
            }
        }
        if let Some(paths) = document["paths"].as_object_mut() {
            for (path, item) in &self.paths {
                paths.entry(path.clone()).or_insert_with(|| moved(item));
            }
        }
    }
}

/// Adds the names of all definitions that `value` refers to.
fn names(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let target = map.get("$ref").and_then(Value::as_str);
            found.extend(target.and_then(|target| target.strip_prefix(PREFIX)).map(str::to_owned));
            map.values().for_each(|value| names(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

/// Leads references to the new names.
fn rename(value: &mut Value, renamed: &HashMap<&str, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                let target = value.as_str().and_then(|target| target.strip_prefix(PREFIX));
                match target.filter(|_| key == "$ref").and_then(|name| renamed.get(name)) {
                    Some(name) => *value = format!("{PREFIX}{name}").into(),
                    None => rename(value, renamed),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rename(value, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn reference(name: &str) -> Value {
        json!({"$ref": format!("{PREFIX}{name}")})
    }

    #[test]
    fn only_what_is_theirs_and_needed_is_taken() {
        let document = json!({
            "paths": {"/apis/g/v1/a": {"get": reference("A")}, "/apis/g/v10/b": {}, "/api/v1/pods": {}, "/apis/g/v1/x": 7},
            "definitions": {"A": {"properties": {"b": reference("B"), "c": reference("Missing")}}, "B": reference("A"), "C": {}},
        });
        let part = Part::of(document, "/apis/g/v1").unwrap();
        assert_eq!(part.paths.keys().collect::<Vec<_>>(), ["/apis/g/v1/a"]);
        assert_eq!(part.definitions.keys().collect::<Vec<_>>(), ["A", "B"]);
        for garbage in [json!(null), json!([]), json!({"paths": 1}), json!({"paths": {"/apis/h/v1": {}}})] {
            assert_eq!(Part::of(garbage, "/apis/g/v1"), None);
        }
    }

    #[test]
    fn names_that_are_taken_are_not_shared() {
        let theirs = json!({
            "paths": {"/apis/g/v1/a": {"get": reference("Meta"), "put": reference("Same")}, "/taken": {}},
            "definitions": {"Meta": {"type": "object", "properties": {"a": reference("Meta")}}, "Same": {"type": "string"}},
        });
        let part = Part::of(theirs, "/apis/g/v1").unwrap();
        let mut document = json!({
            "paths": {"/api": {}},
            "definitions": {"Meta": {"type": "string"}, "Meta_v2": {}, "Same": {"type": "string"}},
        });
        part.add_to(&mut document);
        assert_eq!(document["definitions"]["Meta"], json!({"type": "string"}));
        assert_eq!(document["definitions"]["Meta_v3"]["properties"]["a"], reference("Meta_v3"));
        assert_eq!(document["paths"]["/apis/g/v1/a"], json!({"get": reference("Meta_v3"), "put": reference("Same")}));
        assert_eq!(document["definitions"].as_object().unwrap().len(), 4);
        // Once more adds nothing but what still has another content.
        let before = document.clone();
        Part::default().add_to(&mut document);
        assert_eq!(document, before);
    }
}
