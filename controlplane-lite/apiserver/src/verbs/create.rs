//! POST: a new object.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::access::check_escalation;
use crate::admission::Operation;
use crate::body::Body;
use crate::call::{Call, valid};
use crate::options::{self, WriteOptions};
use crate::respond;
use crate::status::ApiError;
use scheme::access::{ensure_map, str_at};
use scheme::meta;
use storage::Object;

/// Tries of a generated name before giving up, as upstream.
const NAME_ATTEMPTS: usize = 8;

/// Decodes, admits, validates and stores a new object.
///
/// # Errors
/// Every failure upstream's create has.
pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let options = options::write(&call.query, "CreateOptions")?;
    let decoded = call.decode(call.kind, &body, options.field_validation)?;
    let mut warnings = decoded.warnings;
    warnings.extend(call.kind.strategy.warnings(&decoded.object));
    let object = create_object(call, decoded.object, &options).await?;
    let mut response = if options.dry_run {
        respond::unstored(call, StatusCode::CREATED, &object)?
    } else {
        respond::object(call, StatusCode::CREATED, &object)?
    };
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// Creates a decoded object; also where a PUT may create.
///
/// # Errors
/// As [`create`].
pub async fn create_object(call: &Call, mut object: Value, options: &WriteOptions) -> Result<Object, ApiError> {
    call.settle_namespace(&mut object)?;
    if !str_at(&object, &["metadata", "resourceVersion"]).is_empty() {
        return Err(ApiError::plain(500, "resourceVersion should not be set on objects to be created"));
    }
    call.kind.default(&mut object);
    let mut object = call.stored(object);
    call.server.ensure_namespace_seen(call).await?;
    call.server.wait_for_default_account(call, &object).await;
    call.admit(Operation::Create, Some(&mut object), None)?;
    let base = str_at(&object, &["metadata", "generateName"]).to_owned();
    let generated = str_at(&object, &["metadata", "name"]).is_empty() && !base.is_empty();
    let attempts = if generated { NAME_ATTEMPTS } else { 1 };
    let mut result = Err(ApiError::generate_name_conflict(call.subject(), &base));
    for _ in 0..attempts {
        if generated {
            let name = meta::generate_name(&base, rand::random());
            ensure_map(&mut object, &["metadata"]).insert("name".into(), json!(name));
        }
        result = attempt(call, object.clone(), options).await;
        match &result {
            Err(error) if generated && error.is_already_exists() => {}
            _ => return result,
        }
    }
    result.map_err(|_| ApiError::generate_name_conflict(call.subject(), &base))
}

async fn attempt(call: &Call, mut object: Value, options: &WriteOptions) -> Result<Object, ApiError> {
    let kind = call.resource.kind;
    let server = &call.server;
    let (now, uid) = (server.now_text(), server.new_uid());
    kind.prepare_create(&mut object, &call.context(&now, &uid));
    let name = str_at(&object, &["metadata", "name"]).to_owned();
    valid(call.kind_subject(), &name, kind.validate_create(&object))?;
    check_escalation(call, &object, None)?;
    let grant = match server.services.fill(kind, &mut object, None) {
        Ok(grant) => grant,
        Err(errors) => {
            return Err(valid(call.kind_subject(), &name, errors).err().unwrap_or_else(ApiError::unauthorized));
        }
    };
    let namespace = &call.info.namespace;
    let result = if options.dry_run {
        dry_run(call, &name, object).await
    } else {
        call.resource.create(namespace, &name, object).await
    };
    grant.answered(&result, options.dry_run);
    result
}

async fn dry_run(call: &Call, name: &str, object: Value) -> Result<Object, ApiError> {
    if call.resource.exists(&call.info.namespace, name).await? {
        return Err(ApiError::already_exists(call.subject(), name));
    }
    call.resource.unstored(object, storage::Revision::default())
}
