//! CertificateSigningRequests: what may be asked, and which part of the status
//! changes through which door.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::meta::{dns1123_label, dns1123_subdomain};
use crate::access::{at, int_at, list_at, str_at};
use crate::field::{FieldErrors, Path};
use pki::{CertInfo, Request};

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");
const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// The longest request that is read. Upstream has no bound of its own; the longest honest ones, with RSA keys and a
/// hundred names, have some ten kilobytes.
const MAX_REQUEST: usize = 64 * 1024;
/// Lifetimes below this many seconds are refused.
const MIN_SECONDS: i64 = 600;
/// A domain, a slash, and `<namespace>.<name>` at their longest.
const MAX_SIGNER: usize = 253 + 1 + 253 + 63 + 1;
/// Conditions that are there or not, but never false.
const TRUE_ONLY: [&str; 3] = ["Approved", "Denied", "Failed"];

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// CertificateSigningRequest.
pub fn request(object: &Value, errors: &mut FieldErrors) {
    let encoded = str_at(object, &["spec", "request"]);
    // In base64 a third longer.
    if encoded.len() > MAX_REQUEST.div_ceil(3) * 4 {
        errors.too_long(&SPEC.child("request"), MAX_REQUEST);
        return;
    }
    stored(object, errors);
}

/// One that was taken before its length was bounded goes on being answered.
fn stored(object: &Value, errors: &mut FieldErrors) {
    let encoded = str_at(object, &["spec", "request"]);
    if let Err(why) = readable(encoded, str_at(object, &["spec", "signerName"])) {
        errors.invalid(&SPEC.child("request"), encoded, why);
    }
    usages(list_at(object, &["spec", "usages"]), errors);
    match str_at(object, &["spec", "signerName"]) {
        LEGACY => errors.invalid(
            &SPEC.child("signerName"),
            LEGACY,
            "the legacy signerName is not allowed via this API version",
        ),
        name => signer_name(name, &SPEC.child("signerName"), errors),
    }
    if let Some(seconds) = int_at(object, &["spec", "expirationSeconds"])
        && seconds < MIN_SECONDS
    {
        errors.invalid(
            &SPEC.child("expirationSeconds"),
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    conditions(list_at(object, &["status", "conditions"]), errors);
    let certificate = str_at(object, &["status", "certificate"]);
    if !certificate.is_empty()
        && let Err(why) = decoded(certificate).and_then(|pem| certificates(&pem))
    {
        errors.invalid(&STATUS.child("certificate"), "<certificate data>", why);
    }
}

/// The cluster's own signers sign a subject as it was read, so it must have one reading; others may know more.
fn readable(encoded: &str, signer: &str) -> Result<(), String> {
    let request = decoded(encoded).and_then(|pem| Request::from_pem(&pem).map_err(|e| e.to_string()))?;
    match request.subject() {
        Err(why) if signer.starts_with("kubernetes.io/") => Err(why.to_owned()),
        _ => Ok(()),
    }
}

fn decoded(encoded: &str) -> Result<String, String> {
    let bytes = STANDARD.decode(encoded).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not PEM".to_owned())
}

/// Nothing but certificates, and at least one.
fn certificates(pem: &str) -> Result<(), String> {
    const BEGIN: &str = "-----BEGIN ";
    let mut rest = pem;
    let mut found = 0;
    while let Some(start) = rest.find(BEGIN) {
        let block = &rest[start..];
        CertInfo::from_pem(block)?;
        found += 1;
        rest = &block[BEGIN.len()..];
    }
    if found == 0 { Err("must contain at least one CERTIFICATE PEM block".into()) } else { Ok(()) }
}

fn usages(usages: &[Value], errors: &mut FieldErrors) {
    let path = SPEC.child("usages");
    if usages.is_empty() {
        errors.required(&path, "");
    }
    let mut seen = HashSet::new();
    for (i, usage) in usages.iter().enumerate() {
        if !usage.as_str().is_some_and(|usage| USAGES.contains(&usage)) {
            errors.not_supported(&path.index(i), usage, USAGES);
        }
        if !seen.insert(usage.as_str()) {
            errors.duplicate(&path.index(i), usage);
        }
    }
}

/// `example.com/signer-name`.
fn signer_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let (domain, signer) = match name.split_once('/') {
        Some((domain, signer)) if !signer.contains('/') => (domain, signer),
        _ => {
            let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            return errors.invalid(path, name, form);
        }
    };
    if domain.len() > 253 {
        errors.too_long(path, 253);
    }
    let mut first_problem = |text: &str, check: fn(&str) -> Vec<String>| {
        let bad = text.split('.').find_map(|label| Some((label, check(label))).filter(|(_, found)| !found.is_empty()));
        for (label, problem) in bad.into_iter().flat_map(|(label, found)| found.into_iter().map(move |p| (label, p))) {
            errors.invalid(path, text, format!("validating label {label:?}: {problem}"));
        }
    };
    first_problem(domain, dns1123_label);
    first_problem(signer, dns1123_subdomain);
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    if name.len() > MAX_SIGNER {
        errors.too_long(path, MAX_SIGNER);
    }
}

fn conditions(conditions: &[Value], errors: &mut FieldErrors) {
    let path = STATUS.child("conditions");
    let mut before = HashSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let item = path.index(i);
        let (kind, status) = (str_at(condition, &["type"]), str_at(condition, &["status"]));
        if kind.is_empty() {
            errors.required(&item.child("type"), "");
        }
        let allowed: &[&str] = if TRUE_ONLY.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        if status.is_empty() {
            errors.required(&item.child("status"), "");
        } else if !allowed.contains(&status) {
            errors.not_supported(&item.child("status"), status, allowed);
        }
        if kind == "Approved" && before.contains("Denied") || kind == "Denied" && before.contains("Approved") {
            errors.invalid(&item.child("type"), kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !before.insert(kind) {
            errors.duplicate(&item.child("type"), kind);
        }
    }
}

/// Conditions of a type.
fn of_type<'a>(object: &'a Value, kind: &str) -> Vec<&'a Value> {
    list_at(object, &["status", "conditions"]).iter().filter(|c| str_at(c, &["type"]) == kind).collect()
}

fn none_removed(new: &Value, old: &Value, errors: &mut FieldErrors) {
    for kind in TRUE_ONLY {
        if of_type(new, kind).len() < of_type(old, kind).len() {
            let why = format!("updates may not remove a condition of type {kind:?}");
            errors.forbidden(&STATUS.child("conditions"), why);
        }
    }
}

/// Through `/status`: the certificate once, and any condition but the approver's.
pub fn status_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    stored(new, errors);
    none_removed(new, old, errors);
    let path = STATUS.child("conditions");
    for kind in ["Approved", "Denied"] {
        let (now, before) = (of_type(new, kind), of_type(old, kind));
        if now.len() > before.len() {
            errors.forbidden(&path, format!("updates may not add a condition of type {kind:?}"));
        } else if now.len() == before.len() && now != before {
            errors.forbidden(&path, format!("updates may not modify a condition of type {kind:?}"));
        }
    }
    let issued = |object: &Value| at(object, &["status", "certificate"]).clone();
    if issued(old) != json!(null) && issued(old) != json!("") && issued(new) != issued(old) {
        errors.forbidden(&STATUS.child("certificate"), "updates may not modify existing certificate content");
    }
}

/// Through `/approval`: conditions.
pub fn approval_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    stored(new, errors);
    none_removed(new, old, errors);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pem() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
    }

    fn valid() -> Value {
        json!({"spec": {"request": STANDARD.encode(pem()), "usages": ["client auth"], "signerName": "example.com/x"}})
    }

    fn problems(check: impl Fn(&mut FieldErrors)) -> Vec<String> {
        let mut errors = FieldErrors::new();
        check(&mut errors);
        errors.0.iter().map(|e| format!("{} {}", e.path, e.body())).collect()
    }

    #[test]
    fn what_is_asked_badly_is_named() {
        assert_eq!(problems(|e| request(&valid(), e)), [""; 0]);
        let name = |name: &str| {
            let mut object = valid();
            object["spec"]["signerName"] = json!(name);
            problems(|e| request(&object, e))
        };
        for (bad, text) in [
            ("", "Required"),
            ("x", "of the form"),
            ("a.b/c/d", "of the form"),
            ("local/x", "at least two segments"),
            ("A.b/c", "validating label \"A\""),
            ("a.b/C", "validating label \"C\""),
            (LEGACY, "legacy"),
        ] {
            let found = name(bad);
            assert!(found.len() == 1 && found[0].contains(text), "{bad}: {found:?}");
        }
        let mut bad = valid();
        bad["spec"]["usages"] = json!(["client auth", "client auth", "cooking", 3]);
        bad["spec"]["expirationSeconds"] = json!(599);
        let forged = pem().replace("CERTIFICATE REQUEST", "CERTIFICATE");
        bad["spec"]["request"] = json!(STANDARD.encode(forged));
        let found = problems(|e| request(&bad, e));
        assert_eq!(found.len(), 5, "{found:?}");
    }

    #[test]
    fn the_clusters_signers_want_one_reading() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a");
        params.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]), "b");
        let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let mut object = valid();
        object["spec"]["request"] = json!(STANDARD.encode(pem));
        assert_eq!(problems(|e| request(&object, e)), [""; 0]);
        for signer in ["kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving"] {
            object["spec"]["signerName"] = json!(format!("kubernetes.io/{signer}"));
            assert_eq!(problems(|e| request(&object, e)).len(), 1, "{signer}");
        }
    }

    #[test]
    fn a_request_is_read_up_to_a_length() {
        let mut long = valid();
        long["spec"]["request"] = json!(STANDARD.encode(pem() + &"\n".repeat(MAX_REQUEST)));
        let found = problems(|e| request(&long, e));
        assert_eq!(found, ["spec.request Too long: may not be more than 65536 bytes"]);
        assert_eq!(problems(|e| status_update(&long, &long, e)), [""; 0], "one that is stored is answered");
        long["spec"]["request"] = json!(STANDARD.encode(pem() + &"\n".repeat(MAX_REQUEST / 2)));
        assert_eq!(problems(|e| request(&long, e)), [""; 0]);
    }

    #[test]
    fn garbage_is_invalid_and_no_panic() {
        for garbage in [json!(null), json!({"spec": 3}), json!({"spec": {"request": "%"}}), json!([])] {
            assert!(!problems(|e| request(&garbage, e)).is_empty());
            let _ = problems(|e| status_update(&garbage, &garbage, e));
        }
        for certificate in ["%%", "", "Z2FyYmFnZQ=="] {
            let mut object = valid();
            object["status"] = json!({"certificate": certificate});
            assert_eq!(problems(|e| request(&object, e)).is_empty(), certificate.is_empty(), "{certificate}");
        }
    }

    #[test]
    fn each_door_changes_its_own_part() {
        let approved = |kind: &str| {
            let mut object = valid();
            object["status"] = json!({"conditions": [{"type": kind, "status": "True"}]});
            object
        };
        let (plain, yes) = (valid(), approved("Approved"));
        assert_eq!(problems(|e| approval_update(&yes, &plain, e)), [""; 0]);
        assert!(
            problems(|e| status_update(&yes, &plain, e))[0].contains("may not add a condition of type \"Approved\"")
        );
        assert!(problems(|e| approval_update(&plain, &yes, e))[0].contains("may not remove"));
        let mut both = yes.clone();
        both["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "Denied", "status": "True"}));
        assert!(problems(|e| approval_update(&both, &yes, e))[0].contains("mutually exclusive"));
        let mut no = yes.clone();
        no["status"]["conditions"][0]["status"] = json!("False");
        assert!(problems(|e| approval_update(&no, &plain, e))[0].contains("Unsupported value"));
    }
}
