//! Values as field paths compare and print them (`sigs.k8s.io/structured-merge-diff/value`).

use std::cmp::Ordering;
use std::fmt::{self, Display};

use scheme::field::go_quote;
use serde_json::{Number, Value};

/// A total order of values of all types: numbers, texts, booleans, lists, maps, null.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            first_difference(a.iter().zip(b).map(|(a, b)| compare(a, b))).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let pairs = a.iter().zip(b);
            first_difference(pairs.map(|((ka, va), (kb, vb))| ka.cmp(kb).then_with(|| compare(va, vb))))
                .unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Whether two values are the same; an integer equals a floating point number of the same size.
pub fn same(a: &Value, b: &Value) -> bool {
    compare(a, b).is_eq()
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Option<Ordering> {
    orders.find(|order| order.is_ne())
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    let integer = |n: &Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().unwrap_or(f64::NAN).total_cmp(&b.as_f64().unwrap_or(f64::NAN)),
    }
}

/// A value as Go's `value.ToString` prints it.
pub struct Printed<'v>(pub &'v Value);

impl Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("null"),
            Value::Bool(set) => write!(f, "{set}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::String(text) => f.write_str(&go_quote(text)),
            Value::Array(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "," })?;
                    Self(item).fmt(f)?;
                }
                f.write_str("]")
            }
            Value::Object(fields) => fields.iter().try_for_each(|(name, value)| write!(f, "{name}={}", Printed(value))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The order of `value.Compare`.
    #[test]
    fn values_have_an_order() {
        let sorted = [
            json!(-1),
            json!(0.5),
            json!(1),
            json!(443),
            json!(u64::MAX),
            json!(""),
            json!("a"),
            json!("b"),
            json!(false),
            json!(true),
            json!([]),
            json!([1]),
            json!([1, 2]),
            json!({}),
            json!({"a": 1}),
            json!({"a": 1, "b": 0}),
            json!({"a": 2}),
            json!(null),
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        assert!(same(&json!(1), &json!(1.0)) && same(&json!({"a": [1.0]}), &json!({"a": [1]})));
    }

    #[test]
    fn values_are_printed_as_go_does() {
        for (value, expect) in [
            (json!("a\"b"), r#""a\"b""#),
            (json!(80), "80"),
            (json!(1.5), "1.5"),
            (json!(true), "true"),
            (json!(null), "null"),
            (json!(["a", 1]), r#"["a",1]"#),
            (json!({"a": 1}), "a=1"),
        ] {
            assert_eq!(Printed(&value).to_string(), expect);
        }
    }
}
