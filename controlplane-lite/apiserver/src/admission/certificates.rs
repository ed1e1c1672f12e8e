//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: a signer's requests are approved and
//! signed only by those who hold that right for the signer, and nobody asks to become a master.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Operation, Refusal, Request, View};
use auth::authn::MASTERS;
use scheme::access::{at, str_at};

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub(super) fn approval(request: &Request<'_>, _: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    if !request.is(GROUP, "certificatesigningrequests") || request.subresource != "approval" {
        return Ok(());
    }
    permitted(request, "approve", view)
}

pub(super) fn signing(request: &Request<'_>, object: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    let (Some(new), Some(old)) = (object, request.old) else { return Ok(()) };
    if !request.is(GROUP, "certificatesigningrequests") || request.subresource != "status" {
        return Ok(());
    }
    let unchanged = ["certificate", "conditions"].iter().all(|f| at(new, &["status", f]) == at(old, &["status", f]));
    if unchanged { Ok(()) } else { permitted(request, "sign", view) }
}

/// The right to `verb` requests for the stored request's signer, or for all signers of its domain.
fn permitted(request: &Request<'_>, verb: &str, view: &dyn View) -> Result<(), Refusal> {
    let Some(old) = request.old else { return Ok(()) };
    let signer = str_at(old, &["spec", "signerName"]);
    let domain = signer.split('/').next().unwrap_or_default();
    let may = |name: &str| view.may(request.user, verb, GROUP, ("signers", ""), name);
    if may(signer) || may(&format!("{domain}/*")) {
        return Ok(());
    }
    Err(request.forbidden(format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

/// What a CertificateSigningRequest asks for.
pub(super) fn read(object: &Value) -> Result<pki::Request, String> {
    let pem = STANDARD.decode(str_at(object, &["spec", "request"])).map_err(|error| error.to_string())?;
    let pem = String::from_utf8(pem).map_err(|_| "it is not PEM".to_owned())?;
    pki::Request::from_pem(&pem).map_err(|error| error.to_string())
}

pub(super) fn subject(request: &Request<'_>, object: Option<&Value>, _: &dyn View) -> Result<(), Refusal> {
    let Some(new) = object else { return Ok(()) };
    let asks = request.is(GROUP, "certificatesigningrequests")
        && request.operation == Operation::Create
        && request.subresource.is_empty()
        && str_at(new, &["spec", "signerName"]) == CLIENT_SIGNER;
    if !asks {
        return Ok(());
    }
    let unreadable = |why: &str| request.forbidden(format!("could not parse CSR: {why}"));
    let asked = read(new).map_err(|why| unreadable(&why))?;
    if asked.subject().map_err(unreadable)?.organizations().any(|group| group == MASTERS) {
        return Err(request.forbidden(format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed")));
    }
    Ok(())
}
