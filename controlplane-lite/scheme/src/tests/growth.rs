//! What the rules cost, in looks at fields: for every kind and every object in it, all lists and maps of that object
//! are made eight times as long, and the rules may not look more than some ten times as often. Comparing each item of a
//! list with each of another would be sixty times.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::context;
use crate::schema::{ObjectType, Type};
use crate::table::{IncludeObject, table};
use crate::{Kind, access, builtin};

const FEW: usize = 10;
const MANY: usize = 8 * FEW;

/// A value of a type, the `i`-th of its list; what it holds beside scalars is left out below some depth.
fn item(ty: &Type, i: usize, depth: usize) -> Option<Value> {
    Some(match ty {
        Type::String | Type::IntOrString => format!("v{i}").into(),
        Type::Int32 | Type::Int64 => (i + 1).into(),
        Type::Float => 1.into(),
        Type::Bool => true.into(),
        Type::Quantity => format!("{}", i + 1).into(),
        Type::Time | Type::MicroTime => "2026-01-01T00:00:00Z".into(),
        Type::Bytes => "eA==".into(),
        Type::Any => json!({}),
        Type::List(of) => json!([item(of, i, depth.checked_sub(1)?)?]),
        Type::Map(of) => json!({"a": item(of, i, depth.checked_sub(1)?)?}),
        Type::Object(object) => {
            let below = depth.checked_sub(1)?;
            let fields = object.fields().iter().filter_map(|f| Some((f.name.to_string(), item(&f.ty, i, below)?)));
            Value::Object(fields.collect())
        }
    })
}

/// An object of a type in which all lists and maps of the objects of type `target` have `count` items.
fn long(ty: &ObjectType, target: &str, count: usize, shift: usize, depth: usize) -> Option<Value> {
    let mut object = Map::new();
    let mut found = ty.name() == target;
    for field in ty.fields() {
        let many = ty.name() == target;
        let value = match &field.ty {
            Type::List(of) if many => (0..count).map(|i| item(of, i + shift, 2)).collect::<Option<Value>>(),
            Type::Map(of) if many => {
                let entries = (0..count).map(|i| Some((format!("k{}", i + shift), item(of, i + shift, 2)?)));
                entries.collect::<Option<Map<_, _>>>().map(Value::Object)
            }
            ty => match ty.object().filter(|_| depth > 0) {
                Some(below) => long(below, target, count, shift, depth - 1).map(|value| {
                    found = true;
                    match ty {
                        Type::List(_) => json!([value]),
                        Type::Map(_) => json!({"a": value}),
                        _ => value,
                    }
                }),
                None => item(ty, 0, 1),
            },
        };
        if let Some(value) = value.filter(|v| !v.is_null()) {
            object.insert(field.name.to_string(), value);
        }
    }
    found.then_some(Value::Object(object))
}

/// The types of objects that an object of a type can hold; pods of other kinds are as those of Pod.
fn within(ty: &ObjectType, depth: usize, seen: &mut BTreeSet<String>) {
    if depth == 0 || ty.short_name() == "PodTemplateSpec" || !seen.insert(ty.name().to_owned()) {
        return;
    }
    ty.fields().iter().filter_map(|f| f.ty.object()).for_each(|below| within(below, depth - 1, seen));
}

/// Looks at fields while an object is written, changed and shown.
fn looks(kind: &Kind, target: &str, count: usize) -> Option<usize> {
    let make = |shift| {
        let mut object = long(kind.schema(), target, count, shift, 7)?;
        object["metadata"]["name"] = "x".into();
        Some(object)
    };
    let (mut old, mut new) = (make(0)?, make(1)?);
    let before = access::looks();
    if let Some(conversion) = &kind.conversion {
        old = (*conversion.from_storage)((*conversion.to_storage)(old));
    }
    kind.default(&mut old);
    kind.default(&mut new);
    kind.prepare_create(&mut old, &context());
    let _ = kind.validate_create(&old);
    let _ = kind.strategy.warnings(&new);
    for subresource in std::iter::once("").chain(kind.subresources.iter().map(|s| s.name)) {
        let mut new = new.clone();
        kind.prepare_update(subresource, &mut new, &old, &context());
        let _ = kind.validate_update(subresource, &new, &old);
    }
    let _ = table(kind, Value::Null, [&new], IncludeObject::Metadata, true, jiff::Timestamp::UNIX_EPOCH);
    Some(access::looks() - before)
}

#[test]
fn what_the_rules_cost_grows_with_the_lists() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for kind in builtin().kinds() {
        let mut targets = BTreeSet::new();
        within(kind.schema(), 7, &mut targets);
        for target in &targets {
            let (Some(few), Some(many)) = (looks(kind, target, FEW), looks(kind, target, MANY)) else { continue };
            checked += 1;
            if many > 11 * few + 1000 {
                wrong.push(format!("{kind:?}, lists of {target}: {few} looks become {many}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(checked > 500, "{checked}");
}
