//! How objects are converted between the versions of a definition: the webhook that is asked
//! (k8s.io/apiserver/pkg/util/webhook/validation.go).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pki::CertInfo;
use serde_json::Value;

use super::{Options, SPEC};
use crate::access::{at, bool_at, is_empty, list_at, str_at};
use crate::crd::Spec;
use crate::field::{FieldErrors, Path};
use crate::meta;
use crate::validation::endpoint::{address, service};

const UNSET: &str = "should not be set when strategy is not set to Webhook";

/// Whether somebody understands a version of ConversionReview.
pub(super) fn is_known(version: &Value) -> bool {
    matches!(version.as_str(), Some("v1" | "v1beta1"))
}

pub(super) fn check(spec: &Spec<'_>, options: &Options<'_>, errors: &mut FieldErrors) {
    let conversion = at(spec.spec, &["conversion"]);
    if conversion.is_null() {
        return;
    }
    let path = SPEC.child("conversion");
    let strategy = str_at(conversion, &["strategy"]);
    if strategy != "None" && bool_at(spec.spec, &["preserveUnknownFields"]) {
        errors.invalid(&path.child("strategy"), strategy, "must be None if spec.preserveUnknownFields is true");
    }
    match strategy {
        "" => errors.required(&path.child("strategy"), ""),
        "None" | "Webhook" => {}
        other => errors.not_supported(&path.child("strategy"), other, &["None", "Webhook"]),
    }
    let config = at(conversion, &["webhook", "clientConfig"]);
    let versions = at(conversion, &["webhook", "conversionReviewVersions"]);
    let config_path = path.child("webhookClientConfig");
    let versions_path = path.child("conversionReviewVersions");
    if strategy == "Webhook" {
        client_config(config, &config_path, options, errors);
        review_versions(versions, &versions_path, options, errors);
        return;
    }
    if !config.is_null() {
        errors.forbidden(&config_path, UNSET);
    }
    if !is_empty(versions) {
        errors.forbidden(&versions_path, UNSET);
    }
}

fn client_config(config: &Value, path: &Path<'_>, options: &Options<'_>, errors: &mut FieldErrors) {
    if config.is_null() {
        errors.required(path, "required when strategy is set to Webhook");
        return;
    }
    match (at(config, &["url"]), at(config, &["service"])) {
        (Value::String(url), Value::Null) => address(url, &path.child("url"), errors),
        (Value::Null, webhook) if !webhook.is_null() => service(webhook, &path.child("service"), errors),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
    let held = at(config, &["caBundle"]);
    if !is_empty(held)
        && !options.allow_bad_bundle
        && let Err(why) = bundle(held)
    {
        errors.invalid(&path.child("caBundle"), held, format!("unable to load root certificates: {why}"));
    }
}

/// Certificates in base64 of PEM, of which at least one has to be there; others may be none
/// (`AppendCertsFromPEM` of Go's `crypto/x509`).
pub(super) fn bundle(held: &Value) -> Result<(), String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    // Go's decoder passes over the ends of lines.
    let text = held.as_str().unwrap_or("").replace(['\r', '\n'], "");
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let pem = String::from_utf8_lossy(&bytes);
    let mut problem = "unable to parse bytes as PEM block".to_owned();
    for (place, (start, _)) in pem.match_indices(BEGIN).enumerate() {
        match CertInfo::from_pem(&pem[start..]) {
            Ok(_) => return Ok(()),
            Err(why) if place == 0 => problem = format!("failed to parse certificate: {why}"),
            Err(_) => {}
        }
    }
    Err(problem)
}

fn review_versions(versions: &Value, path: &Path<'_>, options: &Options<'_>, errors: &mut FieldErrors) {
    let list = list_at(versions, &[]);
    if list.is_empty() {
        return errors.required(path, "");
    }
    let mut seen = std::collections::HashSet::new();
    for (place, version) in list.iter().enumerate() {
        let version = version.as_str().unwrap_or("");
        if !seen.insert(version) {
            errors.invalid(&path.index(place), version, "duplicate version");
            continue;
        }
        for problem in meta::dns1035_label(version) {
            errors.invalid(&path.index(place), version, problem);
        }
    }
    if options.require_review_version && !list.iter().any(is_known) {
        errors.invalid(path, versions, "must include at least one of v1, v1beta1");
    }
}
