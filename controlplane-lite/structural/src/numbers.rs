//! Numbers as Go has them after decoding: an `int64`, or else a `float64`; and what a schema asks of them
//! (`k8s.io/kube-openapi/pkg/validation/validate/{validator,values}.go`).

use scheme::field::go_float;
use serde_json::Number;

use crate::formats::{Format, FormatKind};
use crate::node::{Kind, Values};

/// Integers that a `float64` tells apart: up to 2^53 - 1.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;
/// Relative difference up to which a `float64` counts as an integer.
const EPSILON: f64 = 1e-9;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Num {
    Int(i64),
    Float(f64),
}

impl Num {
    pub(crate) fn new(number: &Number) -> Self {
        number.as_i64().map_or_else(|| Self::Float(number.as_f64().unwrap_or(f64::NAN)), Self::Int)
    }

    #[allow(clippy::cast_precision_loss)] // As Go converts.
    pub(crate) const fn float(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    /// As Go prints it.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Int(number) => number.to_string(),
            Self::Float(number) => go_float(number),
        }
    }

    /// Whether the number fits a type and format.
    fn fits(self, kind: Kind, format: Option<FormatKind>) -> bool {
        match (kind, format) {
            (Kind::Integer, format) => {
                let whole = match self {
                    Self::Int(number) => Some(number),
                    Self::Float(number) if number.fract() == 0.0 && in_i64(number) => Some(truncate(number)),
                    Self::Float(_) => None,
                };
                whole.is_some_and(|number| format != Some(FormatKind::Int32) || i32::try_from(number).is_ok())
            }
            (Kind::Number, Some(FormatKind::Float)) => fits_f32(self.float()),
            _ => true,
        }
    }
}

#[allow(clippy::cast_possible_truncation)]
const fn fits_f32(number: f64) -> bool {
    (number as f32).is_finite()
}

const fn in_i64(number: f64) -> bool {
    number >= -9_223_372_036_854_775_808.0 && number < 9_223_372_036_854_775_808.0
}

/// Towards zero; saturates.
#[allow(clippy::cast_possible_truncation)]
pub(crate) const fn truncate(number: f64) -> i64 {
    number as i64
}

/// Whether a float counts as an integer (`IsFloat64AJSONInteger` of `github.com/go-openapi/swag`).
pub(crate) fn is_integer(number: f64) -> bool {
    if !number.is_finite() || number.abs() > MAX_SAFE {
        return false;
    }
    let whole = number.trunc();
    number == whole || (whole > 0.0 && (number - whole).abs() / (number.abs() + whole.abs()) < EPSILON)
}

/// A complaint about a number.
pub(crate) enum Complaint {
    /// `… in body` and the rest, about the value.
    OfValue(String),
    /// A sentence about the value's path, whose field is not named. The path follows.
    OfPath(String),
    /// A factor that is not positive, which is shown as the value.
    Factor(Num),
}

/// What a schema has against a number: its type, then multiples, minimum and maximum, each after what is wrong with the
/// constraint itself.
pub(crate) fn complaints(number: Num, kind: Kind, values: Option<&Values>) -> Vec<Complaint> {
    let format = values.and_then(|values| values.format.as_ref());
    let mut found = Vec::new();
    let in_range = |number: Num, what: &str, found: &mut Vec<Complaint>| {
        let fits = number.fits(kind, format.map(Format::kind));
        if !fits {
            let format =
                format.map_or("(default format)".to_owned(), |format| format!("with format {}", format.name()));
            found.push(Complaint::OfPath(format!("{what} value must be of type {} {format} in ", kind.name())));
        }
        fits
    };
    in_range(number, "Checked", &mut found);
    let Some(values) = values else { return found };
    if let Some(factor) = values.multiple_of {
        let whole = in_range(Num::Float(factor), "MultipleOf", &mut found);
        found.extend(multiple_of(number, factor, whole));
    }
    let bounds = [
        (values.minimum, values.exclusive_minimum, "Minimum boundary", "greater"),
        (values.maximum, values.exclusive_maximum, "Maximum boundary", "less"),
    ];
    for (bound, exclusive, what, word) in bounds {
        let Some(bound) = bound else { continue };
        let whole = in_range(Num::Float(bound), what, &mut found);
        found.extend(beyond(number, bound, whole, exclusive, word));
    }
    found
}

/// A bound that the number is past; integers are compared as such where the bound fits the type.
fn beyond(number: Num, bound: f64, whole: bool, exclusive: bool, word: &str) -> Option<Complaint> {
    let (order, shown) = match number {
        Num::Int(number) if whole => (number.partial_cmp(&truncate(bound)), truncate(bound).to_string()),
        _ => (number.float().partial_cmp(&bound), go_float(bound)),
    };
    let order = order?;
    let past = if word == "less" { order.is_gt() } else { order.is_lt() };
    let or_equal = if exclusive { "" } else { " or equal to" };
    (past || exclusive && order.is_eq()).then(|| Complaint::OfValue(format!("should be {word} than{or_equal} {shown}")))
}

fn multiple_of(number: Num, factor: f64, whole: bool) -> Option<Complaint> {
    if let Num::Int(number) = number
        && whole
    {
        let factor = truncate(factor);
        if factor <= 0 {
            return Some(Complaint::Factor(Num::Int(factor)));
        }
        return (number % factor != 0).then(|| Complaint::OfValue(format!("should be a multiple of {factor}")));
    }
    if factor <= 0.0 {
        return Some(Complaint::Factor(Num::Float(factor)));
    }
    let number = number.float();
    let times = if factor < 1.0 { 1.0 / factor * number } else { number / factor };
    (!is_integer(times)).then(|| Complaint::OfValue(format!("should be a multiple of {}", go_float(factor))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_gos() {
        let cases = [(1.0, "1"), (0.1, "0.1"), (123_456.0, "123456"), (1e6, "1e+06"), (1.5e-7, "1.5e-07")];
        for (number, text) in cases {
            assert_eq!(go_float(number), text);
        }
    }

    #[test]
    fn what_is_just_above_an_integer_is_one() {
        assert!(is_integer(3.0) && is_integer(-3.0) && is_integer(3.000_000_000_1) && is_integer(0.0));
        assert!(!is_integer(0.5) && !is_integer(2.999_999_999_9) && !is_integer(f64::NAN) && !is_integer(1e300));
    }
}
