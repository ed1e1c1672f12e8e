//! What a mutation makes of an object (`policy/mutating/patch`): operations of JSON Patch, or fields that are applied.

use cel::{List, Map, Value as Val};
use managedfields::Place;
use scheme::Kind;
use scheme::patch::json;
use serde_json::{Map as Object, Value};

/// What a value is called in errors.
fn type_name(value: &Val<'_>) -> String {
    value.type_of().runtime_name().to_owned()
}

/// The object with a list of operations done. A test that fails leaves it as it was.
///
/// # Errors
/// If the value is no such list, or cannot be done.
pub(super) fn operate(object: &Value, value: &Val<'_>) -> Result<Value, String> {
    let Val::List(list) = value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    let mut operations = Vec::with_capacity(list.len());
    for operation in list.iter() {
        operations.push(self::operation(&operation.map_err(|why| why.to_string())?)?);
    }
    match json::apply(object, &Value::Array(operations)) {
        Ok(changed) => Ok(changed),
        Err(why) if why.to_string().contains("test failed") => Ok(object.clone()),
        Err(why) => Err(format!("JSON Patch: {why}")),
    }
}

fn operation(value: &Val<'_>) -> Result<Value, String> {
    let Val::Struct(made) = value else {
        let found = type_name(value);
        return Err(format!(
            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got {found}"
        ));
    };
    let text = |field: &str| made.fields.get(field).and_then(Val::as_str).unwrap_or_default();
    let mut operation = Object::new();
    operation.insert("op".to_owned(), text("op").into());
    operation.insert("path".to_owned(), text("path").into());
    if !text("from").is_empty() {
        operation.insert("from".to_owned(), text("from").into());
    }
    if let Some(value) = made.fields.get("value") {
        if let Val::Struct(root) = value {
            check_names(value, &mut root.name.to_string()).map_err(|why| format!("type mismatch: {why}"))?;
        }
        let json = value.to_json().ok_or_else(|| {
            let found = type_name(value);
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {found}")
        })?;
        operation.insert("value".to_owned(), json);
    }
    Ok(Value::Object(operation))
}

/// The object with fields laid over it.
///
/// # Errors
/// If the value is no object of the right type, or cannot be applied.
pub(super) fn apply(object: &Value, value: &Val<'_>, kind: &Kind) -> Result<Value, String> {
    let Val::Struct(_) = value else {
        let found = type_name(value);
        return Err(format!("unsupported return type from ApplyConfiguration expression: {found}"));
    };
    check_names(value, &mut "Object".to_owned()).map_err(|why| format!("type mismatch: {why}"))?;
    let mut fields = value.to_json().ok_or("invalid return type: it has no form in JSON")?;
    for field in ["apiVersion", "kind"] {
        fields[field] = object[field].clone();
    }
    managedfields::merge(object, &fields, Place::root(kind.schema()))
        .map_err(|why| format!("error applying patch: {why}"))
}

/// Whether objects are made with the types of the fields that they stand in (`CheckTypeNamesMatchFieldPathNames`).
fn check_names(value: &Val<'_>, path: &mut String) -> Result<(), String> {
    match value {
        Val::Struct(made) => {
            if *made.name != **path {
                return Err(format!(
                    "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
                    &*made.name
                ));
            }
            let length = path.len();
            for (name, value) in &made.fields {
                path.push('.');
                path.push_str(name);
                check_names(value, path)?;
                path.truncate(length);
            }
            Ok(())
        }
        Val::List(List::Owned(items)) => items.iter().try_for_each(|item| check_names(item, path)),
        Val::Map(Map::Owned(entries)) => entries.values().try_for_each(|value| check_names(value, path)),
        _ => Ok(()),
    }
}
