//! ResourceClaims, ResourceClaimTemplates and DeviceClasses: what somebody asks for.

use serde_json::Value;

use super::*;
use crate::access::int_at;

const MOST_SELECTORS: usize = 32;
const MOST_CONSTRAINTS: usize = 32;
const MOST_ALTERNATIVES: usize = 8;

/// The names that a claim's requests have, each with those of its alternatives.
pub(super) struct Names<'a>(Vec<(&'a str, Vec<&'a str>)>);

impl<'a> Names<'a> {
    pub(super) fn of(devices: &'a Value) -> Self {
        let name = |of: &'a Value| str_at(of, &["name"]);
        let alternatives = |request| list_at(request, &["firstAvailable"]).iter().map(name).collect();
        Self(list_at(devices, &["requests"]).iter().map(|request| (name(request), alternatives(request))).collect())
    }

    fn has(&self, reference: &str) -> bool {
        let (request, alternative) = reference.split_once('/').map_or((reference, None), |(r, a)| (r, Some(a)));
        self.0.iter().any(|(name, of)| *name == request && alternative.is_none_or(|wanted| of.contains(&wanted)))
    }

    /// A request, or one of its alternatives.
    pub(super) fn check(&self, reference: &str, path: &Path<'_>, errors: &mut FieldErrors) {
        const DETAIL: &str =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        if reference.split('/').count() > 2 {
            errors.invalid(path, reference, DETAIL);
            return;
        }
        reference.split('/').for_each(|part| dns_label(part, path, errors));
        if !self.has(reference) {
            errors.invalid(path, reference, DETAIL);
        }
    }

    /// A list of them.
    pub(super) fn check_all(&self, of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
        let list = list_at(of, &["requests"]);
        let key = |reference| text(reference).to_owned();
        set(list, MOST_REQUESTS, key, &path.child("requests"), errors, &mut |reference, path, errors| {
            self.check(text(reference), path, errors);
        });
    }
}

/// A ResourceClaim.
pub(crate) fn claim(object: &Value, errors: &mut FieldErrors) {
    devices(at(object, &["spec", "devices"]), &SPEC.child("devices"), errors);
}

/// A ResourceClaimTemplate.
pub(crate) fn template(object: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("metadata");
    let metadata = at(object, &["spec", "metadata"]);
    meta::validate_annotations(at(metadata, &["annotations"]), &path.child("annotations"), errors);
    meta::validate_labels(at(metadata, &["labels"]), &path.child("labels"), errors);
    let path = SPEC.child("spec");
    devices(at(object, &["spec", "spec", "devices"]), &path.child("devices"), errors);
}

fn devices(claim: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let names = Names::of(claim);
    let name = |of: &Value| str_at(of, &["name"]).to_owned();
    set(list_at(claim, &["requests"]), MOST_REQUESTS, name, &path.child("requests"), errors, &mut request);
    let constraints = list_at(claim, &["constraints"]);
    items(constraints, MOST_CONSTRAINTS, &path.child("constraints"), errors, &mut |each, path, errors| {
        names.check_all(each, path, errors);
        constraint(each, path, errors);
    });
    items(list_at(claim, &["config"]), MOST_CONFIGS, &path.child("config"), errors, &mut |each, path, errors| {
        names.check_all(each, path, errors);
        configuration(each, false, path, errors);
    });
}

fn constraint(constraint: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let given = ["matchAttribute", "distinctAttribute"].into_iter().find(|f| !at(constraint, &[f]).is_null());
    match given {
        Some(field) => fully_qualified_name(str_at(constraint, &[field]), &path.child(field), errors),
        None => {
            let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields \
                          are set";
            errors.required(path, detail);
        }
    }
}

fn request(request: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    dns_label(str_at(request, &["name"]), &path.child("name"), errors);
    let alternatives = list_at(request, &["firstAvailable"]);
    let exactly = at(request, &["exactly"]);
    match (exactly.is_null(), alternatives.is_empty()) {
        (true, true) => errors.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (false, false) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.invalid(path, &Value::Null, detail);
        }
        (false, true) => wanted(exactly, &path.child("exactly"), errors),
        (true, false) => {
            let name = |of: &Value| str_at(of, &["name"]).to_owned();
            let path = path.child("firstAvailable");
            set(alternatives, MOST_ALTERNATIVES, name, &path, errors, &mut |each, path, errors| {
                dns_label(str_at(each, &["name"]), &path.child("name"), errors);
                wanted(each, path, errors);
            });
        }
    }
}

/// What devices are asked for, and how many.
fn wanted(request: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match str_at(request, &["deviceClassName"]) {
        "" => errors.required(&path.child("deviceClassName"), ""),
        name => dns_subdomain(name, &path.child("deviceClassName"), errors),
    }
    selectors(list_at(request, &["selectors"]), &path.child("selectors"), errors);
    let count = int_at(request, &["count"]).unwrap_or(0);
    match str_at(request, &["allocationMode"]) {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.invalid(&path.child("count"), count, detail);
        }
        "ExactCount" if count <= 0 => errors.invalid(&path.child("count"), count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => errors.not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    for (place, each) in list_at(request, &["tolerations"]).iter().enumerate() {
        toleration(each, &path.child("tolerations").index(place), errors);
    }
}

fn selectors(list: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    items(list, MOST_SELECTORS, path, errors, &mut |selector, path, errors| {
        let path = path.child("cel");
        if at(selector, &["cel"]).is_null() {
            errors.required(&path, "");
        } else if str_at(selector, &["cel", "expression"]).len() > LONGEST_TEXT {
            errors.too_long(&path.child("expression"), LONGEST_TEXT);
        }
    });
}

/// A DeviceClass. What is configured as before may be longer than what is new.
pub(crate) fn class(object: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    selectors(list_at(spec, &["selectors"]), &SPEC.child("selectors"), errors);
    let stored = old.is_some_and(|old| at(old, &["spec", "config"]) == at(spec, &["config"]));
    items(list_at(spec, &["config"]), MOST_CONFIGS, &SPEC.child("config"), errors, &mut |each, path, errors| {
        configuration(each, stored, path, errors);
    });
    let name = at(spec, &["extendedResourceName"]);
    if !name.is_null() && !is_extended_resource(text(name)) {
        errors.invalid(&SPEC.child("extendedResourceName"), name, "must be a valid extended resource name");
    }
}

/// `IsExtendedResourceName` of pkg/apis/core/v1/helper/helpers.go: not of Kubernetes' own domain, no request in a
/// quota, and a qualified name as one.
fn is_extended_resource(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && meta::qualified_name(&format!("requests.{name}")).is_empty()
}
