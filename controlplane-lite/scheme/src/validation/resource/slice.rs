//! ResourceSlices: the devices that a driver offers.

use quantity::Quantity;
use serde_json::Value;

use super::*;
use crate::access::{bool_at, int_at};
use crate::validation::immutable;
use crate::validation::placement::node_selector;

const MOST_DEVICES: usize = 128;
/// Of devices that have taints, counters or lists of attributes.
const MOST_ADVANCED_DEVICES: usize = 64;
const MOST_COUNTER_SETS: usize = 8;
const MOST_COUNTERS: usize = 32;
const MOST_CONSUMPTIONS: usize = 2;
const MOST_TAINTS: usize = 16;
const MOST_PROPERTIES: usize = 32;
const MOST_VALUES: usize = 48;
const LONGEST_VALUE: usize = 64;
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

/// A ResourceSlice.
pub(crate) fn slice(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    driver(str_at(spec, &["driver"]), &SPEC.child("driver"), errors);
    pool(at(spec, &["pool"]), &SPEC.child("pool"), errors);
    nodes(spec, errors);
    let (devices, counters) = (list_at(spec, &["devices"]), list_at(spec, &["sharedCounters"]));
    if !at(spec, &["sharedCounters"]).is_null() && !at(spec, &["devices"]).is_null() {
        errors.invalid(&SPEC, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let most = if devices.iter().any(is_advanced) { MOST_ADVANCED_DEVICES } else { MOST_DEVICES };
    let name = |of: &Value| str_at(of, &["name"]).to_owned();
    let per_device = bool_at(spec, &["perDeviceNodeSelection"]);
    set(devices, most, name, &SPEC.child("devices"), errors, &mut |each, path, errors| {
        device(each, per_device, path, errors);
    });
    set(counters, MOST_COUNTER_SETS, name, &SPEC.child("sharedCounters"), errors, &mut |each, path, errors| {
        counter_set(each, "name", path, errors);
    });
}

/// What may not change.
pub(crate) fn slice_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let mut stays =
        |field: &[&str], path: &Path<'_>| immutable(at(&new["spec"], field), at(&old["spec"], field), path, errors);
    let pool = SPEC.child("pool");
    stays(&["pool", "name"], &pool.child("name"));
    stays(&["driver"], &SPEC.child("driver"));
    stays(&["nodeName"], &SPEC.child("nodeName"));
}

fn is_advanced(device: &Value) -> bool {
    let lists = |attribute: &Value| LISTS.iter().any(|list| !at(attribute, &[list]).is_null());
    !is_empty(at(device, &["taints"]))
        || !is_empty(at(device, &["consumesCounters"]))
        || entries_at(device, &["attributes"]).any(|(_, attribute)| lists(attribute))
}

fn pool(pool: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    pool_name(str_at(pool, &["name"]), &path.child("name"), errors);
    let number = |field: &str| int_at(pool, &[field]).unwrap_or(0);
    if number("resourceSliceCount") <= 0 {
        let path = path.child("resourceSliceCount");
        errors.invalid(&path, number("resourceSliceCount"), "must be greater than zero");
    }
    if number("generation") < 0 {
        errors.invalid(&path.child("generation"), number("generation"), "must be greater than or equal to zero");
    }
}

fn flag(of: &Value, field: &str, path: &Path<'_>, errors: &mut FieldErrors) -> bool {
    match at(of, &[field]) {
        Value::Null => false,
        Value::Bool(true) => true,
        other => {
            errors.invalid(&path.child(field), other, "must be either unset or set to true");
            false
        }
    }
}

fn node_name(of: &Value, empty: &str, path: &Path<'_>, errors: &mut FieldErrors) -> bool {
    let path = path.child("nodeName");
    match at(of, &["nodeName"]).as_str() {
        None => false,
        Some("") => {
            errors.invalid(&path, "", empty);
            false
        }
        Some(name) => {
            dns_subdomain(name, &path, errors);
            true
        }
    }
}

/// For which nodes it is, in one way.
fn nodes(spec: &Value, errors: &mut FieldErrors) {
    let mut given = Vec::new();
    if node_name(spec, "must be either unset or set to a non-empty string", &SPEC, errors) {
        given.push("`nodeName`");
    }
    let selector = at(spec, &["nodeSelector"]);
    if !selector.is_null() {
        given.push("`nodeSelector`");
        let path = SPEC.child("nodeSelector");
        node_selector(selector, &path, errors);
        let terms = list_at(selector, &["nodeSelectorTerms"]);
        if terms.len() != 1 {
            errors.invalid(&path.child("nodeSelectorTerms"), terms, "must have exactly one node selector term");
        }
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        if flag(spec, field, &SPEC, errors) {
            given.push(shown);
        }
    }
    const WAYS: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.len() {
        0 => errors.required(&SPEC, WAYS),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", given.join(", "));
            errors.invalid(&SPEC, shown, format!("{WAYS}, but multiple fields are set"));
        }
    }
}

fn device(device: &Value, per_device: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    dns_label(str_at(device, &["name"]), &path.child("name"), errors);
    let properties = ["attributes", "capacity"].map(|field| entries_at(device, &[field]).count());
    if properties[0] + properties[1] > MOST_PROPERTIES {
        let detail = format!("the total number of attributes and capacities must not exceed {MOST_PROPERTIES}");
        errors.invalid(path, properties[0] + properties[1], detail);
    }
    let of = |attribute: &Value| LISTS.iter().map(|list| list_at(attribute, &[list]).len()).sum::<usize>().max(1);
    let values: usize = entries_at(device, &["attributes"]).map(|(_, attribute)| of(attribute)).sum();
    if values > MOST_VALUES {
        errors.invalid(path, values, format!("the total number of attribute values must not exceed {MOST_VALUES}"));
    }
    by_name(at(device, &["attributes"]), &path.child("attributes"), errors, &mut attribute);
    let shared = bool_at(device, &["allowMultipleAllocations"]);
    by_name(at(device, &["capacity"]), &path.child("capacity"), errors, &mut |capacity, path, errors| {
        let policy = at(capacity, &["requestPolicy"]);
        if !policy.is_null() && !shared {
            errors.forbidden(&path.child("requestPolicy"), "allowMultipleAllocations must be true");
        } else if !policy.is_null() {
            request_policy(policy, at(capacity, &["value"]), &path.child("requestPolicy"), errors);
        }
    });
    items(list_at(device, &["taints"]), MOST_TAINTS, &path.child("taints"), errors, &mut taint);
    let key = |of: &Value| str_at(of, &["counterSet"]).to_owned();
    let consumes = list_at(device, &["consumesCounters"]);
    set(consumes, MOST_CONSUMPTIONS, key, &path.child("consumesCounters"), errors, &mut |each, path, errors| {
        counter_set(each, "counterSet", path, errors);
    });
    nodes_of_device(device, per_device, path, errors);
    binding_conditions(device, path, errors);
}

fn nodes_of_device(device: &Value, per_device: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    let selector = at(device, &["nodeSelector"]);
    if !per_device {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| !at(device, &[field]).is_null()) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set \
                          to true in the ResourceSlice spec";
            errors.invalid(path, &Value::Null, detail);
        }
        return;
    }
    let mut given = Vec::new();
    if node_name(device, "must not be empty", path, errors) {
        given.push("`nodeName`");
    }
    if !selector.is_null() {
        given.push("`nodeSelector`");
        node_selector(selector, &path.child("nodeSelector"), errors);
    }
    if flag(device, "allNodes", path, errors) {
        given.push("`allNodes`");
    }
    const WAYS: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                        `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match given.len() {
        0 => errors.required(path, WAYS),
        1 => {}
        _ => errors.invalid(path, format!("{{{}}}", given.join(", ")), WAYS),
    }
}

/// Counters by name, of a set of their own or out of one.
fn counter_set(set: &Value, name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    match str_at(set, &[name]) {
        "" => errors.required(&path.child(name), ""),
        of => dns_label(of, &path.child(name), errors),
    }
    let (counters, path) = (at(set, &["counters"]), path.child("counters"));
    let count = entries_at(counters, &[]).count();
    match count {
        0 => errors.required(&path, ""),
        _ if count > MOST_COUNTERS => errors.too_many(&path, count, MOST_COUNTERS),
        _ => entries_at(counters, &[]).for_each(|(name, _)| dns_label(name, &path, errors)),
    }
}

fn taint(taint: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    label_name(str_at(taint, &["key"]), &path.child("key"), errors);
    label_value(str_at(taint, &["value"]), &path.child("value"), errors);
    match str_at(taint, &["effect"]) {
        "" => errors.required(&path.child("effect"), ""),
        effect if LABELS.contains(&effect) => {}
        other => errors.not_supported(&path.child("effect"), other, LABELS),
    }
}

fn attribute(attribute: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut given = 0;
    for field in ["bool", "int", "string", "version"].into_iter().chain(LISTS) {
        let (value, path) = (at(attribute, &[field]), path.child(field));
        match value {
            Value::Null => continue,
            Value::Array(list) if list.is_empty() => {
                errors.invalid(&path, value, "must not be empty if specified");
            }
            Value::Array(list) => {
                for (place, item) in list.iter().enumerate() {
                    attribute_text(field.trim_end_matches('s'), item, &path.index(place), errors);
                }
            }
            single => attribute_text(field, single, &path, errors),
        }
        given += 1;
    }
    match given {
        0 => errors.invalid(path, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(path, attribute, "exactly one value must be specified"),
    }
}

fn attribute_text(field: &str, value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(text) = value.as_str() else { return };
    if field == "version" && !is_semantic_version(text) {
        errors.invalid(path, text, "must be a string compatible with semver.org spec 2.0.0");
    }
    if text.len() > LONGEST_VALUE {
        errors.too_long(path, LONGEST_VALUE);
    }
}

/// `1.2.3-pre.1+build`, as semver.org has it.
fn is_semantic_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| number(part) || word(part) && !digits(part)))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// Which amounts of a capacity may be asked for: some values, or a range, and what nobody has to ask for.
fn request_policy(policy: &Value, capacity: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let quantity = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    let (values, range) = (list_at(policy, &["validValues"]), at(policy, &["validRange"]));
    if !values.is_empty() && !range.is_null() {
        let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the \
                      same time";
        errors.forbidden(path, detail);
        return;
    }
    let field = if values.is_empty() { "validRange" } else { "validValues" };
    if values.is_empty() && range.is_null() {
        return;
    }
    let Some(capacity) = quantity(capacity) else { return };
    let Some(default) = quantity(at(policy, &["default"])) else {
        errors.required(&path.child("default"), format!("required when {field} is defined"));
        return;
    };
    if field == "validValues" {
        let values: Vec<Quantity> = values.iter().filter_map(quantity).collect();
        valid_values(&values, (default, capacity), &path.child(field), errors);
    } else {
        let bound = |name: &str| quantity(at(range, &[name]));
        valid_range([bound("min"), bound("max"), bound("step")], (default, capacity), &path.child(field), errors);
    }
}

fn valid_values(values: &[Quantity], bounds: (Quantity, Quantity), path: &Path<'_>, errors: &mut FieldErrors) {
    const MOST: usize = 10;
    let (default, capacity) = bounds;
    for (place, pair) in values.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        let detail = "values must be sorted in ascending order";
        errors.invalid(&path.index(place + 1), pair[1].to_string(), detail);
    }
    if values.len() > MOST {
        errors.too_many(path, values.len(), MOST);
    }
    for (place, value) in values.iter().enumerate().take(MOST) {
        if *value > capacity {
            let detail = format!("option is larger than capacity value: {capacity}");
            errors.invalid(&path.index(place), value.to_string(), detail);
        }
        if values[..place].contains(value) {
            errors.duplicate(&path.index(place), value.to_string());
        }
    }
    if !values.contains(&default) {
        errors.invalid(path, default.to_string(), "default value is not valid according to the requestPolicy");
    }
}

fn valid_range(
    [min, max, step]: [Option<Quantity>; 3],
    (default, capacity): (Quantity, Quantity),
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    let Some(min) = min else {
        errors.required(&path.child("min"), "required when validRange is defined");
        return;
    };
    if min > capacity {
        let detail = format!("min is larger than capacity value: {capacity}");
        errors.invalid(&path.child("min"), min.to_string(), detail);
    }
    if default < min {
        errors.invalid(&path.child("default"), default.to_string(), format!("default is less than min: {min}"));
    }
    if let Some(max) = max {
        if min > max {
            errors.invalid(&path.child("max"), min.to_string(), format!("min is larger than max: {max}"));
        }
        if max > capacity {
            let detail = format!("max is larger than capacity value: {capacity}");
            errors.invalid(&path.child("max"), max.to_string(), detail);
        }
        if default > max {
            errors.invalid(&path.child("default"), default.to_string(), format!("default is more than max: {max}"));
        }
    }
    if step.is_some_and(|step| step <= Quantity::ZERO) {
        let told = step.map(|step| step.to_string()).unwrap_or_default();
        errors.invalid(&path.child("step"), told, "must be greater than zero");
    }
}
