//! ServiceCIDR: `ValidateServiceCIDR` and what is around it (pkg/apis/networking/validation/validation.go).

use serde_json::Value;

use super::super::immutable;
use super::{CIDR_WORDS, SPEC, is_cidr};
use crate::access::{at, list_at};
use crate::field::FieldErrors;

/// One range, or one of each family.
pub fn service_cidr(object: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("cidrs");
    let spec = at(object, &["spec"]);
    let all = list_at(spec, &["cidrs"]);
    match all {
        [] => return errors.required(&path, "at least one CIDR required"),
        [_] => {}
        [one, other] => {
            let is_six = |range: &Value| range.as_str().is_some_and(|text| text.contains(':'));
            if is_six(one) == is_six(other) {
                let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
                return errors.invalid(&path, spec, why);
            }
        }
        _ => return errors.invalid(&path, spec, "may only hold up to 2 values"),
    }
    for (i, range) in all.iter().enumerate() {
        if !range.as_str().is_some_and(is_cidr) {
            errors.invalid(&path.index(i), range, CIDR_WORDS);
        }
    }
}

/// A range stays; one of the other family may come.
pub fn service_cidr_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (after, before) = (list_at(new, &["spec", "cidrs"]), list_at(old, &["spec", "cidrs"]));
    if let ([first, _], [only]) = (after, before)
        && first == only
    {
        return;
    }
    immutable(at(new, &["spec", "cidrs"]), at(old, &["spec", "cidrs"]), &SPEC.child("cidrs"), errors);
}
