//! ResourceQuota and LimitRange, and the names of resources (`pkg/apis/core/validation/validation.go`).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use quantity::{Format, Quantity};
use quota::{is_extended, is_native, is_overcommit_allowed};
use serde_json::Value;

use crate::access::{at, entries_at, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::meta;

/// What quotas may be for, beside huge pages and fully qualified names.
const QUOTA: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Those that are counted in whole numbers.
const WHOLE: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
/// What quotas with a scope for pods may be for, of the standard ones.
const COMPUTE: [&str; 6] = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
const CONFLICTS: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

fn is_quota_name(name: &str) -> bool {
    QUOTA.contains(&name) || name.strip_prefix("requests.").unwrap_or(name).starts_with("hugepages-")
}

/// A name that any resource may have.
fn resource_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) -> bool {
    let problems = meta::qualified_name(name);
    let fine = problems.is_empty();
    for problem in problems {
        errors.invalid(path, name, problem);
    }
    if fine && !name.contains('/') && !is_quota_name(name) && name != "storage" {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
        return false;
    }
    fine
}

/// A name of what containers ask for.
pub(super) fn container_resource_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    resource_name(name, path, errors);
    if !name.contains('/') {
        let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if !standard {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// A map of quantities by resources that quotas may be for.
fn quota_list(object: &Value, place: [&str; 2], errors: &mut FieldErrors) {
    let parent = Path::new(place[0]);
    let path = parent.child(place[1]);
    for (name, value) in entries_at(object, &place) {
        let path = path.key(name);
        resource_name(name, &path, errors);
        if !name.contains('/') && !is_quota_name(name) {
            errors.invalid(&path, name, "must be a standard resource for quota");
        }
        let Some(quantity) = parse(value) else { continue };
        if quantity.is_negative() {
            errors.invalid(&path, quantity.to_string(), "must be greater than or equal to 0");
        }
        if !quantity.is_whole() && (WHOLE.contains(&name.as_str()) || is_extended(name)) {
            errors.invalid(&path, quantity.to_string(), "must be an integer");
        }
    }
}

/// ResourceQuota.
pub fn resource_quota(object: &Value, errors: &mut FieldErrors) {
    quota_list(object, ["spec", "hard"], errors);
    let spec = Path::new("spec");
    scopes(object, &spec.child("scopes"), errors);
    let selector = spec.child("scopeSelector");
    scope_selector(object, &selector.child("matchExpressions"), errors);
}

/// Its status.
pub fn resource_quota_status(object: &Value, errors: &mut FieldErrors) {
    quota_list(object, ["status", "hard"], errors);
    quota_list(object, ["status", "used"], errors);
}

/// Its scopes stay.
pub fn resource_quota_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    fn scopes(object: &Value) -> BTreeSet<&str> {
        list_at(object, &["spec", "scopes"]).iter().filter_map(Value::as_str).collect()
    }
    if scopes(new) != scopes(old) {
        let spec = Path::new("spec");
        errors.invalid(&spec.child("scopes"), at(new, &["spec", "scopes"]), "field is immutable");
    }
}

/// Whether a standard resource may be counted in a scope.
fn fits(scope: &str, name: &str) -> bool {
    match scope {
        "BestEffort" => name == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            name == "pods" || COMPUTE.contains(&name)
        }
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

/// How many of the standard resources of a quota do not fit.
fn misfits(object: &Value, scope: &str) -> usize {
    entries_at(object, &["spec", "hard"]).filter(|(name, _)| is_quota_name(name) && !fits(scope, name)).count()
}

fn conflicts(seen: &BTreeSet<&str>) -> usize {
    CONFLICTS.iter().filter(|pair| pair.iter().all(|scope| seen.contains(scope))).count()
}

fn scopes(object: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let all = list_at(object, &["spec", "scopes"]);
    let mut seen = BTreeSet::new();
    for scope in all.iter().filter_map(Value::as_str) {
        if !SCOPES.contains(&scope) {
            errors.invalid(path, all, "unsupported scope");
        }
        for _ in 0..misfits(object, scope) {
            errors.invalid(path, all, "unsupported scope applied to resource");
        }
        seen.insert(scope);
    }
    for _ in 0..conflicts(&seen) {
        errors.invalid(path, all, "conflicting scopes");
    }
}

fn scope_selector(object: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let selector = at(object, &["spec", "scopeSelector"]);
    let mut seen = BTreeSet::new();
    for one in list_at(selector, &["matchExpressions"]) {
        let (scope, operator) = (str_at(one, &["scopeName"]), str_at(one, &["operator"]));
        let values = list_at(one, &["values"]);
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        for _ in 0..misfits(object, scope) {
            errors.invalid(path, selector, "unsupported scope applied to resource");
        }
        let plain = !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && SCOPES.contains(&scope);
        if plain && operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                 ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.required(
                &path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                &path.child("values"),
                values,
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
        seen.insert(scope);
    }
    for _ in 0..conflicts(&seen) {
        errors.invalid(path, at(object, &["spec", "scopes"]), "conflicting scopes");
    }
}

/// LimitRange.
pub fn limit_range(object: &Value, errors: &mut FieldErrors) {
    let spec = Path::new("spec");
    let limits = spec.child("limits");
    let mut seen = HashSet::new();
    for (index, item) in list_at(object, &["spec", "limits"]).iter().enumerate() {
        let path = limits.index(index);
        let kind = str_at(item, &["type"]);
        limit_type(kind, &path.child("type"), errors);
        if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        limit_item(item, kind, &path, errors);
    }
}

fn limit_type(kind: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let problems = meta::qualified_name(kind);
    if problems.is_empty() && !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
        errors.invalid(path, kind, "must be a standard limit type or fully qualified");
    }
    for problem in problems {
        errors.invalid(path, kind, problem);
    }
}

/// What a limit has for one resource.
#[derive(Debug, Default, Clone, Copy)]
struct Bounds {
    min: Option<Quantity>,
    max: Option<Quantity>,
    default: Option<Quantity>,
    request: Option<Quantity>,
    ratio: Option<Quantity>,
}

fn limit_item(item: &Value, kind: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut all: BTreeMap<&str, Bounds> = BTreeMap::new();
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let path = path.child(list);
        if kind == "Pod" && list.starts_with("default") {
            if entries_at(item, &[list]).next().is_some() {
                errors.forbidden(&path, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, value) in entries_at(item, &[list]) {
            match kind {
                "Pod" | "Container" => container_resource_name(name, &path.key(name), errors),
                _ => drop(resource_name(name, &path.key(name), errors)),
            }
            let bounds = all.entry(name).or_default();
            let place = match list {
                "max" => &mut bounds.max,
                "min" => &mut bounds.min,
                "default" => &mut bounds.default,
                "defaultRequest" => &mut bounds.request,
                _ => &mut bounds.ratio,
            };
            *place = parse(value);
        }
    }
    let storage = |list: &str| !at(item, &[list, "storage"]).is_null();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&path.child("limits"), why);
    }
    for (name, bounds) in &all {
        bounds.check(name, path, errors);
    }
}

impl Bounds {
    fn check(&self, name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
        let Self { min, max, default, request, .. } = *self;
        let mut ordered =
            |list: &str, told: Option<Quantity>, low: Option<Quantity>, high: Option<Quantity>, words: [&str; 2]| {
                if let (Some(told), Some(low), Some(high)) = (told, low, high)
                    && low > high
                {
                    let [low_is, high_is] = words;
                    let why = format!("{low_is} value {low} is greater than {high_is} value {high}");
                    errors.invalid(&path.child(list).key(name), told.to_string(), why);
                }
            };
        ordered("min", min, min, max, ["min", "max"]);
        ordered("defaultRequest", request, min, request, ["min", "default request"]);
        ordered("defaultRequest", request, request, max, ["default request", "max"]);
        ordered("defaultRequest", request, request, default, ["default request", "default limit"]);
        ordered("default", min, min, default, ["min", "default"]);
        ordered("default", max, default, max, ["default", "max"]);
        self.check_ratio(name, path, errors);
        if let (Some(default), Some(request)) = (default, request)
            && default != request
            && !is_overcommit_allowed(name)
        {
            let why = format!("default value {default} must equal to defaultRequest value {request} in {name}");
            errors.invalid(&path.child("defaultRequest").key(name), request.to_string(), why);
        }
    }

    fn check_ratio(&self, name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
        let Some(ratio) = self.ratio else { return };
        let list = path.child("maxLimitRequestRatio");
        if ratio < Quantity::new(1, Format::DecimalSi) {
            errors.invalid(&list.key(name), ratio.to_string(), format!("ratio {ratio} is less than 1"));
        }
        let (Some(min), Some(max)) = (self.min, self.max) else { return };
        // In thousandths, as upstream.
        let (ratio_of, most) =
            (ratio.milli_value() as f64 / 1000.0, max.milli_value() as f64 / min.milli_value() as f64);
        if ratio_of > most {
            let why = format!("ratio {ratio} is greater than max/min = {most:.6}");
            errors.invalid(&list.key(name), ratio.to_string(), why);
        }
    }
}

fn parse(value: &Value) -> Option<Quantity> {
    value.as_str().and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(check: impl Fn(&mut FieldErrors)) -> Vec<String> {
        let mut errors = FieldErrors::default();
        check(&mut errors);
        errors.0.iter().map(|error| format!("{}: {}", error.path, error.body())).collect()
    }

    fn quota(spec: Value) -> Vec<String> {
        told(|errors| resource_quota(&json!({"spec": spec}), errors))
    }

    fn limits(items: Value) -> Vec<String> {
        told(|errors| limit_range(&json!({"spec": {"limits": items}}), errors))
    }

    #[test]
    fn quotas_name_what_can_be_counted() {
        let fine = json!({"pods": "1", "cpu": "100m", "requests.storage": "1Gi", "count/jobs.batch": "0",
            "requests.hugepages-2Mi": "1Gi", "requests.example.com/gpu": "2",
            "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"});
        assert_eq!(quota(json!({"hard": fine})), [""; 0]);
        for (hard, expect) in [
            (json!({"pods": "-1"}), "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"),
            (json!({"pods": "500m"}), "spec.hard[pods]: Invalid value: \"500m\": must be an integer"),
            (
                json!({"storage": "1"}),
                "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
            ),
        ] {
            assert_eq!(quota(json!({"hard": hard})), [expect]);
        }
        let unknown = quota(json!({"hard": {"fast-cpu": "1"}}));
        assert!(unknown[0].ends_with("must be a standard resource type or fully qualified"), "{unknown:?}");
        assert!(unknown[1].ends_with("must be a standard resource for quota"), "{unknown:?}");
        let status = json!({"status": {"hard": {"pods": "-1"}, "used": {"nonsense": "1"}}});
        assert_eq!(told(|errors| resource_quota_status(&status, errors)).len(), 3);
    }

    #[test]
    fn scopes_fit_what_is_counted_and_each_other() {
        let scoped = |scopes: Value, hard: &str| quota(json!({"hard": {hard: "1"}, "scopes": scopes}));
        assert_eq!(scoped(json!(["BestEffort"]), "pods"), [""; 0]);
        assert_eq!(scoped(json!(["NotBestEffort"]), "cpu"), [""; 0]);
        assert_eq!(scoped(json!(["VolumeAttributesClass"]), "requests.storage"), [""; 0]);
        let refused = "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource";
        assert_eq!(scoped(json!(["BestEffort"]), "cpu"), [refused]);
        let refused = "spec.scopes: Invalid value: [\"Other\"]: unsupported scope";
        assert_eq!(scoped(json!(["Other"]), "pods"), [refused]);
        let both = json!(["Terminating", "NotTerminating"]);
        let refused = "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes";
        assert_eq!(scoped(both, "pods"), [refused]);
        let (with, without) = (json!({"spec": {"scopes": ["BestEffort"]}}), json!({"spec": {}}));
        let changed = told(|errors| resource_quota_update(&without, &with, errors));
        assert_eq!(changed, ["spec.scopes: Invalid value: null: field is immutable"]);
        assert_eq!(told(|errors| resource_quota_update(&with, &with, errors)), [""; 0]);
    }

    #[test]
    fn selectors_of_scopes_are_whole() {
        let selected = |one: Value| quota(json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [one]}}));
        let at = "spec.scopeSelector.matchExpressions";
        assert_eq!(selected(json!({"scopeName": "PriorityClass", "operator": "In", "values": ["a"]})), [""; 0]);
        assert_eq!(selected(json!({"scopeName": "BestEffort", "operator": "Exists"})), [""; 0]);
        for (one, expect) in [
            (
                json!({"scopeName": "PriorityClass", "operator": "In"}),
                format!(
                    "{at}.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope \
                 selector"
                ),
            ),
            (
                json!({"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]}),
                format!(
                    "{at}.values: Invalid value: [\"a\"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for \
                 scope selector"
                ),
            ),
            (
                json!({"scopeName": "PriorityClass", "operator": "x"}),
                format!("{at}.operator: Invalid value: \"x\": not a valid selector operator"),
            ),
        ] {
            assert_eq!(selected(one), [expect]);
        }
        let refused = selected(json!({"scopeName": "BestEffort", "operator": "In", "values": ["a"]}));
        assert!(refused[0].contains("must be 'Exists' when scope is any of"), "{refused:?}");
    }

    #[test]
    fn limits_agree_with_each_other() {
        let fine = json!([
            {"type": "Pod", "max": {"cpu": "100m", "memory": "10000Mi"}, "min": {"cpu": "5m"},
                "maxLimitRequestRatio": {"cpu": "10"}},
            {"type": "Container", "max": {"cpu": "100m"}, "min": {"cpu": "50m"}, "default": {"cpu": "75m"},
                "defaultRequest": {"cpu": "50m"}, "maxLimitRequestRatio": {"cpu": "2"}},
            {"type": "PersistentVolumeClaim", "max": {"storage": "10Gi"}},
            {"type": "thirdparty.com/foo", "max": {"thirdparty.com/a": "1"}},
        ]);
        assert_eq!(limits(fine), [""; 0]);
        for (item, expect) in [
            (
                json!({"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ),
            (
                json!({"type": "Pod", "default": {"cpu": "2"}}),
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            ),
            (
                json!({"type": "Container", "min": {"cpu": "2"}, "defaultRequest": {"cpu": "1"}}),
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request \
                 value 1",
            ),
            (
                json!({"type": "Container", "defaultRequest": {"cpu": "2"}, "default": {"cpu": "1"}}),
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than \
                 default limit value 1",
            ),
            (
                json!({"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "2"}}),
                "spec.limits[0].default[cpu]: Invalid value: \"1\": default value 2 is greater than max value 1",
            ),
            (
                json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "800m"}}),
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"800m\": ratio 800m is less than 1",
            ),
            (
                json!({"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "10"}}),
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"10\": ratio 10 is greater than max/min = \
                 2.000000",
            ),
            (
                json!({"type": "Container", "default": {"example.com/a": "2"}, "defaultRequest": {"example.com/a": "1"}}),
                "spec.limits[0].defaultRequest[example.com/a]: Invalid value: \"1\": default value 2 must equal to \
                 defaultRequest value 1 in example.com/a",
            ),
            (
                json!({"type": "PersistentVolumeClaim"}),
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but \
                 neither was provided",
            ),
            (
                json!({"type": "Foo"}),
                "spec.limits[0].type: Invalid value: \"Foo\": must be a standard limit type or fully qualified",
            ),
            (
                json!({"type": "Container", "max": {"storage": "1"}}),
                "spec.limits[0].max[storage]: Invalid value: \"storage\": must be a standard resource for containers",
            ),
        ] {
            assert_eq!(limits(json!([item])), [expect]);
        }
        let twice = json!([{"type": "Pod", "max": {"cpu": "1"}}, {"type": "Pod", "min": {"cpu": "1"}}]);
        assert_eq!(limits(twice), ["spec.limits[1].type: Duplicate value: \"Pod\""]);
    }
}
