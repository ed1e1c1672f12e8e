//! DELETE one object.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::admission::Operation;
use crate::body::Body;
use crate::call::{Call, decode_body};
use crate::deletion::{self, Deletion};
use crate::options::{self, DeleteOptions, Propagation};
use crate::registry::{Change, RETRIES, Written};
use crate::respond;
use crate::status::{self, ApiError};
use scheme::access::str_at;
use scheme::{FieldValidation, Kind};

/// Deletes as the options say and answers the object or a Status, as upstream does for the kind.
///
/// # Errors
/// 404, 409 for preconditions, 400/422 for options.
pub async fn delete(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let options = delete_options(call, &body)?;
    let name = call.info.name.as_str();
    let written = delete_object(call, name, &options).await?;
    if written.removed && !call.resource.kind.facts.returns_deleted {
        let status = status::deleted(call.subject(), name, written.object.uid());
        return respond::document(call, StatusCode::OK, &status);
    }
    let waits = !written.removed && options.propagation == Some(Propagation::Foreground);
    let code = if waits { StatusCode::ACCEPTED } else { StatusCode::OK };
    respond::object(call, code, &written.object)
}

/// Reads DeleteOptions from body or query.
///
/// # Errors
/// 400 for malformed bodies, 422 for unsupported values.
pub fn delete_options(call: &Call, body: &Bytes) -> Result<DeleteOptions, ApiError> {
    if body.is_empty() {
        return options::delete(&call.query, None);
    }
    let value: Option<Value> = match delete_options_kind() {
        Some(kind) => Some(decode_body(kind, &call.headers, body, FieldValidation::Ignore)?.object),
        None => serde_json::from_slice(body).map(Some).map_err(|e| ApiError::bad_request(e.to_string()))?,
    };
    let mut value = value.unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    options::delete(&call.query, Some(&value))
}

fn delete_options_kind() -> Option<&'static Kind> {
    scheme::builtin().by_gvk("", "v1", "DeleteOptions")
}

/// Deletes one object: at once, or by marking it for whoever finishes.
///
/// # Errors
/// 404, 409 for preconditions, admission's refusal.
pub async fn delete_object(call: &Call, name: &str, options: &DeleteOptions) -> Result<Written, ApiError> {
    let namespace = call.info.namespace.as_str();
    let kind = call.resource.kind;
    let now = call.server.now();
    let mut remove_next = false;
    let repairs = call.server.services.repairs();
    let written = call
        .resource
        .change(namespace, name, options.dry_run, RETRIES, |old| {
            check_preconditions(call, name, options, old)?;
            call.admit(Operation::Delete, None, Some(old))?;
            remove_next = false;
            Ok(match deletion::plan(kind, old, options, now) {
                Deletion::Now => Change::Remove(old.clone()),
                Deletion::Mark(marked) => Change::Write(marked),
                Deletion::MarkThenRemove(marked) => {
                    remove_next = true;
                    Change::Write(marked)
                }
                Deletion::Pending => Change::Keep,
            })
        })
        .await?;
    let written = if remove_next && !options.dry_run { remove_marked(call, name, written).await? } else { written };
    if written.removed && !options.dry_run {
        call.server.services.vacate(kind, &written.object, repairs);
    }
    Ok(written)
}

/// The second step of an immediate pod deletion. Dead before it, the pod stays marked with no grace left, and the pod
/// garbage collector or the kubelet deletes it again.
async fn remove_marked(call: &Call, name: &str, marked: Written) -> Result<Written, ApiError> {
    let uid = marked.object.uid().to_owned();
    let removal = call
        .resource
        .change(&call.info.namespace, name, false, RETRIES, |current| {
            let ours = str_at(current, &["metadata", "uid"]) == uid;
            Ok(if ours { Change::Remove(current.clone()) } else { Change::Keep })
        })
        .await;
    match removal {
        Ok(written) => Ok(Written { removed: true, ..written }),
        // Somebody else finished it.
        Err(error) if error.is_not_found() => Ok(Written { removed: true, ..marked }),
        Err(error) => Err(error),
    }
}

fn check_preconditions(call: &Call, name: &str, options: &DeleteOptions, old: &Value) -> Result<(), ApiError> {
    let uid = str_at(old, &["metadata", "uid"]);
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
        return Err(ApiError::conflict(call.subject(), name, &why));
    }
    let version = str_at(old, &["metadata", "resourceVersion"]);
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != version) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
        );
        return Err(ApiError::conflict(call.subject(), name, &why));
    }
    Ok(())
}
