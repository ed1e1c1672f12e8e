//! The API's quantities as numbers and back.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use quantity::{Format, Quantity as Number};

/// Resources by name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// The quantity in billionths, or `None` when it is not one.
pub fn nanos(text: &str) -> Option<i128> {
    text.parse::<Number>().ok().map(|n| n.nanos())
}

fn number(quantity: &Quantity) -> Number {
    quantity.0.parse().unwrap_or(Number::ZERO)
}

/// Whole units, rounded up; 0 for text that is no quantity.
pub fn value(quantity: &Quantity) -> i64 {
    number(quantity).value()
}

/// Thousandths, rounded up; 0 for text that is no quantity.
pub fn milli(quantity: &Quantity) -> i64 {
    number(quantity).milli_value()
}

/// `quantity / divisor`, rounded up, as the downward API prints it. A divisor
/// of zero or nonsense counts as 1.
pub fn divided(quantity: &Quantity, divisor: Option<&Quantity>) -> i64 {
    number(quantity).divided(&divisor.map_or(Number::ZERO, number))
}

/// A quantity of `value` billionths in canonical form.
pub fn from_nanos(value: i128) -> Quantity {
    Quantity(Number::from_nanos(value, Format::DecimalSi).to_string())
}

/// A quantity of whole units.
pub fn units(value: u64) -> Quantity {
    Quantity(value.to_string())
}

/// A quantity of bytes in `Ki`, as the kubelet reports memory.
pub fn kibibytes(bytes: u64) -> Quantity {
    Quantity(format!("{}Ki", bytes / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_api() {
        let q = |s: &str| Quantity(s.to_owned());
        assert_eq!((value(&q("1.5Gi")), milli(&q("1.5")), value(&q("nonsense"))), (1_610_612_736, 1500, 0));
        assert_eq!(
            (nanos("5n"), nanos("1e99"), nanos("1x")),
            (Some(5), Some(i128::from(i64::MAX) * 1_000_000_000), None)
        );
        assert_eq!([500_000_000, 2_000_000_000, 7].map(|n| from_nanos(n).0), ["500m", "2", "7n"]);
    }

    #[test]
    fn divisors() {
        let q = |s: &str| Quantity(s.to_owned());
        assert_eq!(divided(&q("250m"), Some(&q("1m"))), 250);
        assert_eq!(divided(&q("250m"), None), 1);
        assert_eq!(divided(&q("64Mi"), Some(&q("0"))), 64 << 20);
    }
}
