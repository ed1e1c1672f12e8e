//! Lists of resources with quantities (`k8s.io/apiserver/pkg/quota/v1/resources.go`).

use std::collections::BTreeMap;

use quantity::{Format, Quantity};
use serde_json::{Map, Value};

/// Quantities by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// A resource list of an object; what is no quantity is left out.
#[must_use]
pub fn read(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), quantity(value)?))).collect()
}

/// A quantity as JSON has it: text, or a number that a client wrote bare.
pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// The same as an object has it.
#[must_use]
pub fn to_value(amounts: &Amounts) -> Value {
    amounts.iter().map(|(name, quantity)| (name.clone(), quantity.to_string().into())).collect::<Map<_, _>>().into()
}

/// Adds `more` to `to`.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, quantity) in more {
        let sum = to.get(name).map_or(*quantity, |have| *have + *quantity);
        to.insert(name.clone(), sum);
    }
}

/// Raises `to` to what `other` has more of.
pub fn at_least(to: &mut Amounts, other: &Amounts) {
    for (name, quantity) in other {
        if to.get(name).is_none_or(|have| quantity > have) {
            to.insert(name.clone(), *quantity);
        }
    }
}

/// What `now` has more than `before`, nothing below zero.
pub(crate) fn grown(now: &Amounts, before: &Amounts) -> Amounts {
    let grown = now.iter().map(|(name, quantity)| {
        let more = before.get(name).map_or(*quantity, |before| *quantity - *before);
        (name.clone(), if more.is_negative() { Quantity::ZERO } else { more })
    });
    grown.collect()
}

/// `cpu=1,memory=2Gi`, as refusals tell amounts.
#[must_use]
pub fn print(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, quantity)| format!("{name}={quantity}")).collect::<Vec<_>>().join(",")
}

/// `cpu,memory`: the names, in order.
#[must_use]
pub fn names<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.join(",")
}

/// A whole number of things.
pub(crate) fn count(number: usize) -> Quantity {
    Quantity::new(i64::try_from(number).unwrap_or(i64::MAX), Format::DecimalSi)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_read_and_written() {
        let amounts = read(&json!({"cpu": "1500m", "memory": "1024Mi", "pods": 3, "bad": "x", "none": null}));
        assert_eq!(print(&amounts), "cpu=1500m,memory=1Gi,pods=3");
        assert_eq!(to_value(&amounts), json!({"cpu": "1500m", "memory": "1Gi", "pods": "3"}));
        assert_eq!(read(&json!(null)), Amounts::new());
    }

    #[test]
    fn sums_and_differences() {
        let a = read(&json!({"cpu": "1", "memory": "1Gi"}));
        let b = read(&json!({"cpu": "500m", "pods": "2"}));
        let mut sum = a.clone();
        add(&mut sum, &b);
        assert_eq!(print(&sum), "cpu=1500m,memory=1Gi,pods=2");
        let mut most = b.clone();
        at_least(&mut most, &a);
        assert_eq!(print(&most), "cpu=1,memory=1Gi,pods=2");
        assert_eq!(print(&grown(&a, &b)), "cpu=500m,memory=1Gi");
        assert_eq!(print(&grown(&b, &a)), "cpu=0,pods=2");
    }
}
