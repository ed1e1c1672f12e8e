//! Whether defaults fit: they are of their own schema and have no unknown fields
//! (`pkg/apiserver/schema/defaulting/validation.go` upstream).

use scheme::{FieldErrors, Path};
use serde_json::{Map, Value, json};

use crate::node::Node;
use crate::objectmeta;
use crate::problem::to_field_errors;
use crate::prune::{is_meta, knows};
use crate::walk::Walk;

/// A step from an embedded resource down to a default.
#[derive(Clone, Copy)]
enum Step<'a> {
    Resource(&'a Node),
    Child(&'a Step<'a>, &'a str),
    Item(&'a Step<'a>),
}

/// Checks the defaults of a schema. Those of `additionalProperties` are not looked at: values there that no default is
/// for are none.
pub(super) fn validate(root: &Node, path: &Path<'_>, errors: &mut FieldErrors) {
    Checker { walk: Walk::default() }.node(root, true, Step::Resource(root), false, path, errors);
}

struct Checker {
    /// All defaults together take the steps of one object.
    walk: Walk,
}

impl Checker {
    fn node(
        &mut self,
        node: &Node,
        resource: bool,
        step: Step<'_>,
        inside_meta: bool,
        path: &Path<'_>,
        errors: &mut FieldErrors,
    ) {
        let (step, inside_meta) = if resource { (Step::Resource(node), false) } else { (step, inside_meta) };
        if let Some(default) = &node.default {
            let path = path.child("default");
            if inside_meta {
                self.of_metadata(node, default, step, &path, errors);
            } else {
                self.default(node, default, resource, &path, errors);
            }
        }
        if let Some(items) = &node.items {
            self.node(items, items.embedded, Step::Item(&step), inside_meta, &path.child("items"), errors);
        }
        for (name, inner) in node.properties() {
            let inside_meta = inside_meta || resource && is_meta(name);
            let path = path.child("properties");
            self.node(inner, inner.embedded, Step::Child(&step, name), inside_meta, &path.key(name), errors);
        }
    }

    fn default(&mut self, node: &Node, default: &Value, resource: bool, path: &Path<'_>, errors: &mut FieldErrors) {
        if !knows(default, node, resource) {
            errors.invalid(path, default, "must not have unknown fields");
        }
        let mut found = FieldErrors::new();
        objectmeta::validate_as(default, node, resource, path, &mut found);
        if found.is_empty() {
            self.values(node, default, path, errors);
        } else {
            errors.extend(found);
        }
    }

    /// A default inside `metadata` has to give a resource whose metadata is valid.
    fn of_metadata(&mut self, node: &Node, default: &Value, step: Step<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
        let (root, object) = surround(step, default.clone());
        let mut found = FieldErrors::new();
        objectmeta::validate_as(&object, root, true, &Path::ROOT, &mut found);
        if found.is_empty() {
            return self.values(node, default, path, errors);
        }
        let texts: Vec<String> = found.0.iter().map(ToString::to_string).collect();
        let text = if let [one] = &*texts { one.clone() } else { format!("[{}]", texts.join(", ")) };
        errors.invalid(path, default, format!("must result in valid metadata: {text}"));
    }

    fn values(&mut self, node: &Node, default: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
        to_field_errors(self.walk.validate(node, default, None), Some(path), errors);
    }
}

/// The resource that has nothing but a value at the steps, and its schema.
fn surround(mut step: Step<'_>, mut value: Value) -> (&Node, Value) {
    loop {
        match step {
            Step::Child(parent, name) => {
                value = Value::Object(Map::from_iter([(name.to_owned(), value)]));
                step = *parent;
            }
            Step::Item(parent) => {
                value = json!([value]);
                step = *parent;
            }
            Step::Resource(node) => {
                if let Value::Object(map) = &mut value {
                    map.entry("apiVersion").or_insert_with(|| "validation/v1".into());
                    map.entry("kind").or_insert_with(|| "Validation".into());
                }
                return (node, value);
            }
        }
    }
}
