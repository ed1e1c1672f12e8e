//! PriorityLevelConfigurations.

use serde_json::Value;

use super::{EXEMPT, SPEC, mandatory_level};
use crate::access::{at, int_at, str_at};
use crate::field::{FieldErrors, Path};

/// An annotation by which an older version tells zero from nothing; no object of this one has it.
const KEEPS_ZERO: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";
const MOST_QUEUES: i64 = 10_000_000;
/// Bits of a hash that dealing out queues may use (k8s.io/apiserver/pkg/util/shufflesharding).
const HASH_BITS: i64 = 60;

/// A PriorityLevelConfiguration.
pub(crate) fn priority_level(object: &Value, errors: &mut FieldErrors) {
    let (name, spec) = (str_at(object, &["metadata", "name"]), at(object, &["spec"]));
    if at(object, &["metadata", "annotations"]).get(KEEPS_ZERO).is_some() {
        let metadata = Path::new("metadata");
        errors.forbidden(&metadata.child("annotations"), format!("annotation '{KEEPS_ZERO}' is forbidden"));
    }
    let ty = str_at(spec, &["type"]);
    if (name == EXEMPT) != (ty == "Exempt") {
        errors.invalid(&SPEC.child("type"), ty, "type must be 'Exempt' if and only if name is 'exempt'");
    }
    let (limited, exempt) = (at(spec, &["limited"]), at(spec, &["exempt"]));
    match ty {
        "Exempt" => {
            if !limited.is_null() {
                errors.forbidden(&SPEC.child("limited"), "must be nil if the type is not Limited");
            }
            if !exempt.is_null() {
                shares(exempt, &SPEC.child("exempt"), errors);
                lendable(exempt, &SPEC.child("exempt"), errors);
            }
        }
        "Limited" => {
            if !exempt.is_null() {
                errors.forbidden(&SPEC.child("exempt"), "must be nil if the type is Limited");
            }
            if limited.is_null() {
                errors.required(&SPEC.child("limited"), "must not be empty when type is Limited");
            } else {
                limits(limited, &SPEC.child("limited"), errors);
            }
        }
        other => errors.not_supported(&SPEC.child("type"), other, &["Exempt", "Limited"]),
    }
    fixed(name, spec, errors);
}

/// What a mandatory level has to be; of the exempt one, how much it lends is anybody's to say.
fn fixed(name: &str, spec: &Value, errors: &mut FieldErrors) {
    let Some(mut fixed) = mandatory_level(name).map(|mut level| level["spec"].take()) else { return };
    let mut but = "";
    if name == EXEMPT {
        fixed["exempt"] = at(spec, &["exempt"]).clone();
        but = " except the 'spec.exempt' field";
    }
    if !crate::crd::same(&fixed, spec) {
        errors.invalid(&SPEC, spec, format!("spec of '{name}'{but} must equal the fixed value"));
    }
}

fn shares(level: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(shares) = int_at(level, &["nominalConcurrencyShares"]).filter(|shares| *shares < 0) {
        errors.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
}

fn lendable(level: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(percent) = int_at(level, &["lendablePercent"]).filter(|percent| !(0..=100).contains(percent)) {
        errors.invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn limits(limited: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    shares(limited, path, errors);
    response(at(limited, &["limitResponse"]), &path.child("limitResponse"), errors);
    lendable(limited, path, errors);
    if let Some(percent) = int_at(limited, &["borrowingLimitPercent"]).filter(|percent| *percent < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.invalid(&path.child("borrowingLimitPercent"), percent, detail);
    }
}

fn response(response: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let queues = at(response, &["queuing"]);
    match str_at(response, &["type"]) {
        "Reject" if !queues.is_null() => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            errors.forbidden(&path.child("queuing"), detail);
        }
        "Reject" => {}
        "Queue" if queues.is_null() => {
            errors.required(&path.child("queuing"), "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => queuing(queues, &path.child("queuing"), errors),
        other => errors.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}

fn queuing(queuing: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let number = |field: &str| int_at(queuing, &[field]).unwrap_or(0);
    let (length, queues, hand) = (number("queueLengthLimit"), number("queues"), number("handSize"));
    if length <= 0 {
        errors.invalid(&path.child("queueLengthLimit"), length, "must be positive");
    }
    if queues <= 0 {
        errors.invalid(&path.child("queues"), queues, "must be positive");
    } else if queues > MOST_QUEUES {
        errors.invalid(&path.child("queues"), queues, format!("must not be greater than {MOST_QUEUES}"));
    }
    let path = path.child("handSize");
    if hand <= 0 {
        errors.invalid(&path, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&path, hand, format!("should not be greater than queues ({queues})"));
    } else if entropy(queues, hand) > HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        errors.invalid(&path, hand, detail);
    }
}

/// Bits of a hash that a hand out of so many queues needs, counted as upstream does; both are positive 32-bit numbers.
fn entropy(queues: i64, hand: i64) -> i64 {
    let small = |number: i64| f64::from(i32::try_from(number).unwrap_or(i32::MAX));
    let bits = (small(queues).log2() * small(hand)).ceil();
    // A comparison with few bits is all that follows: more than these are as many.
    (0..=HASH_BITS).find(|n| small(*n) >= bits).unwrap_or(HASH_BITS + 1)
}
