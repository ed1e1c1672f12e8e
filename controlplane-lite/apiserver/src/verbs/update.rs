//! PUT: a whole object, to the main resource or to one of its subresources that carry the object itself.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::access::check_escalation;
use crate::admission::Operation;
use crate::body::Body;
use crate::call::{Call, valid};
use crate::deletion;
use crate::options::{self, WriteOptions};
use crate::registry::{Change, RETRIES, Written};
use crate::respond;
use crate::services::Held;
use crate::status::{ApiError, Cause};
use scheme::access::{ensure_map, str_at};

/// Replaces an object.
///
/// # Errors
/// Every failure upstream's update has.
pub async fn update(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let options = options::write(&call.query, "UpdateOptions")?;
    let decoded = call.decode(call.kind, &body, options.field_validation)?;
    let mut object = decoded.object;
    let mut warnings = decoded.warnings;
    warnings.extend(call.kind.warnings_on_update(&call.info.subresource, &object));
    call.settle_namespace(&mut object)?;
    match str_at(&object, &["metadata", "name"]) {
        "" => {
            ensure_map(&mut object, &["metadata"]).insert("name".into(), json!(call.info.name));
        }
        name if name != call.info.name => {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.info.name
            )));
        }
        _ => {}
    }
    call.kind.default(&mut object);
    let (code, object) = match replace(call, &object, &options).await {
        Ok(written) => (StatusCode::OK, written.object),
        Err(error) if error.is_not_found() && may_create(call, &object) => {
            crate::service::authorize_create(call)?;
            let created = super::create::create_object(call, object, &options).await?;
            (StatusCode::CREATED, created)
        }
        Err(error) => return Err(error),
    };
    let mut response = respond::object(call, code, &object)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

fn may_create(call: &Call, object: &Value) -> bool {
    call.resource.kind.facts.create_on_update
        && call.info.subresource.is_empty()
        && str_at(object, &["metadata", "resourceVersion"]).is_empty()
        && str_at(object, &["metadata", "uid"]).is_empty()
}

async fn replace(call: &Call, object: &Value, options: &WriteOptions) -> Result<Written, ApiError> {
    apply_change(call, options, RETRIES, |_| Ok(object.clone())).await
}

/// Carries a change of the whole object through: `next` makes the new object (in its served form, defaulted) from the
/// stored one, and everything upstream does around a write happens here.
///
/// # Errors
/// 404, 409, 422 and whatever `next` answers.
pub async fn apply_change<F>(
    call: &Call,
    options: &WriteOptions,
    attempts: usize,
    mut next: F,
) -> Result<Written, ApiError>
where
    F: FnMut(&Value) -> Result<Value, ApiError>,
{
    let services = &call.server.services;
    let mut grant = services.nothing();
    let repairs = services.repairs();
    let result = call
        .resource
        .change(&call.info.namespace, &call.info.name, options.dry_run, attempts, |old| {
            // A lost race: what that try was granted goes back.
            std::mem::replace(&mut grant, services.nothing()).refused();
            let new = call.stored(next(old)?);
            let (change, granted) = judge(call, new, old)?;
            grant = granted;
            Ok(change)
        })
        .await;
    grant.answered(&result, options.dry_run);
    if let Ok(written) = &result
        && written.removed
        && !options.dry_run
    {
        services.vacate(call.resource.kind, &written.object, repairs);
    }
    result
}

/// Everything between a client's object and the store: preconditions, strategy, admission, validation, allocation.
fn judge(call: &Call, mut new: Value, old: &Value) -> Result<(Change, Held), ApiError> {
    let kind = call.resource.kind;
    let name = call.info.name.as_str();
    check_preconditions(call, &new, old)?;
    let (now, subresource) = (call.server.now_text(), call.info.subresource.as_str());
    kind.prepare_update(subresource, &mut new, old, &call.context(&now, ""));
    call.admit(Operation::Update, Some(&mut new), Some(old))?;
    valid(call.kind_subject(), name, kind.validate_update(subresource, &new, old))?;
    check_escalation(call, &new, Some(old))?;
    let mut grant = call.server.services.nothing();
    if subresource.is_empty() {
        grant = match call.server.services.fill(kind, &mut new, Some(old)) {
            Ok(grant) => grant,
            Err(errors) => {
                valid(call.kind_subject(), name, errors)?;
                call.server.services.nothing()
            }
        };
    }
    let change = if deletion::ends_with_update(kind, &new) {
        Change::Remove(new)
    } else if same(&new, old) {
        Change::Keep
    } else if kind.strategy.is_heartbeat(subresource, &new, old) {
        Change::Beat(new)
    } else {
        Change::Write(new)
    };
    Ok((change, grant))
}

fn same(new: &Value, old: &Value) -> bool {
    let strip = |v: &Value| {
        let mut v = v.clone();
        v["metadata"] = without_version(&v["metadata"]);
        v
    };
    strip(new) == strip(old)
}

fn without_version(metadata: &Value) -> Value {
    let mut metadata = metadata.clone();
    if let Some(map) = metadata.as_object_mut() {
        map.remove("resourceVersion");
    }
    metadata
}

fn check_preconditions(call: &Call, new: &Value, old: &Value) -> Result<(), ApiError> {
    let name = call.info.name.as_str();
    let wanted = str_at(new, &["metadata", "uid"]);
    let uid = str_at(old, &["metadata", "uid"]);
    if !wanted.is_empty() && wanted != uid {
        return Err(ApiError::conflict(
            call.subject(),
            name,
            &format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"),
        ));
    }
    match str_at(new, &["metadata", "resourceVersion"]) {
        "" | "0" if call.resource.kind.facts.unconditional_update => Ok(()),
        "" | "0" => {
            let cause = Cause {
                reason: "FieldValueInvalid".into(),
                message: "Invalid value: 0: must be specified for an update".into(),
                field: "metadata.resourceVersion".into(),
            };
            let message = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
            Err(ApiError::invalid(call.kind_subject(), name, message, vec![cause]))
        }
        version if version == str_at(old, &["metadata", "resourceVersion"]) => Ok(()),
        version if version.parse::<u64>().is_err() => Err(ApiError::bad_request(format!(
            "metadata.resourceVersion: Invalid value: {version:?}: strconv.ParseUint: parsing {version:?}: invalid syntax"
        ))),
        _ => Err(ApiError::modified(call.subject(), name)),
    }
}
