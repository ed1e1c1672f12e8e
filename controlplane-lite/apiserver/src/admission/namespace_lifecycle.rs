//! NamespaceLifecycle: nothing is created in a namespace that is missing or ending; the system's namespaces stay.

use serde_json::Value;

use super::{Operation, Request, View};
use crate::status::{ApiError, Subject};
use scheme::access::str_at;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn admit(request: &Request<'_>, _: Option<&mut Value>, view: &dyn View) -> Result<(), ApiError> {
    if request.is("", "namespaces") {
        if request.operation == Operation::Delete && IMMORTAL.contains(&request.name) {
            return Err(request.forbidden("this namespace may not be deleted"));
        }
        return Ok(());
    }
    if request.namespace.is_empty() || request.operation != Operation::Create {
        return Ok(());
    }
    let namespaces = Subject::new("", "namespaces");
    let Some(namespace) = view.get("", "namespaces", "", request.namespace) else {
        return Err(ApiError::not_found(namespaces, request.namespace));
    };
    if str_at(&namespace, &["status", "phase"]) != "Terminating" && namespace["metadata"]["deletionTimestamp"].is_null()
    {
        return Ok(());
    }
    let name = request.namespace;
    Err(request
        .forbidden(format!("unable to create new content in namespace {name} because it is being terminated"))
        .with_cause("NamespaceTerminating", format!("namespace {name} is being terminated"), "metadata.namespace"))
}
