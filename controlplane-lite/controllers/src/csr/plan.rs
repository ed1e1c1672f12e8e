//! What a request needs next: an approval, a signature, its removal. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use super::recognize::{self, KUBELET_CLIENT};
use client::objects::created;
use pki::{CertInfo, Request, Usage};

/// How long a request that was answered is kept, one way or the other.
const ANSWERED: SignedDuration = SignedDuration::from_hours(1);
/// How long a request waits for an answer.
const PENDING: SignedDuration = SignedDuration::from_hours(24);
/// The shortest and the longest life of a certificate, as upstream's signers.
const SHORTEST: SignedDuration = SignedDuration::from_mins(10);
const LONGEST: SignedDuration = SignedDuration::from_hours(365 * 24);

/// The next thing to do.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Remove it.
    Remove,
    /// Ask whether the requester may create these subresources of requests, in this order, each with the message of
    /// the approval.
    AskRights(&'static [(&'static str, &'static str)]),
    /// Compare it with what this node is.
    CompareNode { node: String, asked: Request },
    /// Sign what was read.
    Sign { asked: Request, usage: Usage, lifetime: SignedDuration },
    /// Say that it cannot be signed.
    Fail(String),
    /// Nothing, until it changes or this time has come.
    Wait(Duration),
}

const SELF: (&str, &str) =
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
const OTHER: (&str, &str) = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");

/// The condition of a type.
fn condition<'r>(request: &'r CertificateSigningRequest, kind: &str) -> Option<&'r CertificateSigningRequestCondition> {
    request.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// The certificate, once there is one.
fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    Some(request.status.as_ref()?.certificate.as_ref()?.0.as_slice()).filter(|pem| !pem.is_empty())
}

/// Decides what to do with a request. `can_sign` is whether there is a signer.
pub(super) fn step(request: &CertificateSigningRequest, can_sign: bool, now: Timestamp) -> Step {
    let due = expiry(request);
    if due.is_some_and(|due| due <= now) {
        return Step::Remove;
    }
    let wait = Step::Wait(due.map_or(Duration::MAX, |due| due.duration_since(now).unsigned_abs()));
    let refused = ["Denied", "Failed"].iter().any(|kind| condition(request, kind).is_some());
    if certificate(request).is_some() || refused {
        return wait;
    }
    // Reading one verifies a signature: only what is for one of the cluster's signers is read.
    if !recognize::is_own(&request.spec.signer_name) {
        return wait;
    }
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    if condition(request, "Approved").is_some() {
        if !can_sign {
            return wait;
        }
        let asked = match recognize::read(request) {
            Ok(asked) => asked,
            Err(why) => return Step::Fail(why),
        };
        return match recognize::for_signer(&request.spec.signer_name, &asked, usages) {
            None => wait,
            Some(Err(why)) => Step::Fail(why),
            Some(Ok(usage)) => {
                let lifetime = lifetime(request.spec.expiration_seconds);
                Step::Sign { asked, usage, lifetime }
            }
        };
    }
    approval(request, usages).unwrap_or(wait)
}

fn approval(request: &CertificateSigningRequest, usages: &[String]) -> Option<Step> {
    if !recognize::is_kubelets(&request.spec.signer_name) {
        return None;
    }
    let asked = recognize::read(request).ok()?;
    if request.spec.signer_name == KUBELET_CLIENT {
        let subject = recognize::kubelet_client(&asked, usages).ok()?;
        let own = request.spec.username.as_deref() == Some(subject.common_name());
        return Some(Step::AskRights(if own { &[SELF, OTHER] } else { &[OTHER] }));
    }
    let node = recognize::serving_node(request, &asked)?.to_owned();
    Some(Step::CompareNode { node, asked })
}

/// What was asked for, within bounds.
fn lifetime(seconds: Option<i32>) -> SignedDuration {
    seconds.map_or(LONGEST, |seconds| SignedDuration::from_secs(seconds.into()).clamp(SHORTEST, LONGEST))
}

/// When the request is no use to anybody any more.
fn expiry(request: &CertificateSigningRequest) -> Option<Timestamp> {
    // The times are their writers': one beyond all times never comes.
    let after = |kind: &str| condition(request, kind)?.last_update_time.as_ref()?.0.checked_add(ANSWERED).ok();
    let conditions = request.status.as_ref().and_then(|s| s.conditions.as_ref());
    let unanswered = conditions.is_none_or(Vec::is_empty);
    let pending = created(&request.metadata).checked_add(PENDING).ok().filter(|_| unanswered);
    let pem = certificate(request);
    let issued = pem.and_then(|_| after("Approved"));
    let outlived = pem.and_then(|pem| CertInfo::from_pem(std::str::from_utf8(pem).ok()?).ok()).map(|c| c.not_after);
    [pending, issued, outlived, after("Denied"), after("Failed")].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn pem() -> String {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:a");
        params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    fn request(user: &str, signer: &str, status: Value) -> CertificateSigningRequest {
        let mut request: CertificateSigningRequest = serde_json::from_value(json!({
            "metadata": {"name": "r", "creationTimestamp": "2026-01-01T23:00:00Z"},
            "spec": {"request": "", "signerName": signer, "username": user, "groups": ["system:nodes"],
                "usages": ["digital signature", "client auth"], "expirationSeconds": 1000},
            "status": status,
        }))
        .unwrap();
        request.spec.request = ByteString(pem().into_bytes());
        request
    }

    fn at(request: &CertificateSigningRequest, now: &str) -> Step {
        step(request, true, now.parse().unwrap())
    }

    fn answered(kind: &str, at: &str) -> Value {
        json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": at}]})
    }

    #[test]
    fn nodes_are_asked_for_the_right_rights() {
        let own = request("system:node:a", KUBELET_CLIENT, json!({}));
        assert_eq!(at(&own, NOW), Step::AskRights(&[SELF, OTHER]));
        let token = request("system:bootstrap:abcdef", KUBELET_CLIENT, json!({}));
        assert_eq!(at(&token, NOW), Step::AskRights(&[OTHER]));
        let other = request("system:node:a", recognize::CLIENT, json!({}));
        assert_eq!(at(&other, NOW), Step::Wait(Duration::from_secs(23 * 3600)), "for somebody to approve");
    }

    #[test]
    fn a_subject_with_two_readings_is_neither_approved_nor_signed() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:a");
        let second = rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]);
        params.distinguished_name.push(second, "system:kube-controller-manager");
        let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let mut asked = request("system:node:a", KUBELET_CLIENT, json!({}));
        asked.spec.request = ByteString(pem.into_bytes());
        assert!(matches!(at(&asked, NOW), Step::Wait(_)));
        for signer in [KUBELET_CLIENT, recognize::CLIENT] {
            asked.spec.signer_name = signer.to_owned();
            asked.status = serde_json::from_value(answered("Approved", "2026-01-01T23:59:00Z")).unwrap();
            assert!(matches!(at(&asked, NOW), Step::Fail(_)), "{signer}");
        }
    }

    #[test]
    fn approved_requests_are_signed_within_bounds() {
        let status = answered("Approved", "2026-01-01T23:59:00Z");
        let ok = request("x", KUBELET_CLIENT, status.clone());
        let lifetime = SignedDuration::from_secs(1000);
        let asked = recognize::read(&ok).unwrap();
        assert_eq!(at(&ok, NOW), Step::Sign { asked, usage: Usage::ClientAuth, lifetime });
        assert!(matches!(step(&ok, false, NOW.parse().unwrap()), Step::Wait(_)));
        assert!(matches!(at(&request("x", recognize::KUBELET_SERVING, status.clone()), NOW), Step::Fail(_)));
        assert!(matches!(at(&request("x", "example.com/x", status.clone()), NOW), Step::Wait(_)));
        let mut garbage = ok;
        garbage.spec.request = ByteString(b"\xff".to_vec());
        assert!(matches!(at(&garbage, NOW), Step::Fail(_)));
        assert_eq!(
            (super::lifetime(None), super::lifetime(Some(1)), super::lifetime(Some(i32::MAX))),
            (LONGEST, SHORTEST, LONGEST)
        );
    }

    #[test]
    fn what_is_done_with_goes() {
        let old = "2026-01-01T22:59:00Z";
        for kind in ["Denied", "Failed"] {
            assert_eq!(at(&request("x", KUBELET_CLIENT, answered(kind, old)), NOW), Step::Remove, "{kind}");
            let fresh = request("x", KUBELET_CLIENT, answered(kind, "2026-01-01T23:30:00Z"));
            assert_eq!(at(&fresh, NOW), Step::Wait(Duration::from_secs(1800)));
        }
        let mut issued = request("x", KUBELET_CLIENT, answered("Approved", old));
        assert!(matches!(at(&issued, NOW), Step::Sign { .. }), "an approval waits for its certificate");
        issued.status.as_mut().unwrap().certificate = Some(ByteString(b"garbage".to_vec()));
        assert_eq!(at(&issued, NOW), Step::Remove);
        let pending = request("x", recognize::CLIENT, json!({}));
        assert_eq!(at(&pending, "2026-01-02T23:00:01Z"), Step::Remove);
    }

    #[test]
    fn a_time_beyond_all_times_never_comes() {
        for kind in ["Denied", "Failed"] {
            let last = request("x", KUBELET_CLIENT, answered(kind, "9999-12-30T22:00:00Z"));
            assert_eq!(at(&last, NOW), Step::Wait(Duration::MAX), "{kind}");
        }
    }
}
