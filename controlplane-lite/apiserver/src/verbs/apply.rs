//! Server-side apply: a PATCH whose body is a configuration, the fields that one manager wants to have. What becomes of
//! them is the `managedfields` crate's business (`k8s.io/apiserver/pkg/endpoints/handlers/patch.go`: `applyPatcher`).

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::patch;
use crate::body::Body;
use crate::call::Call;
use crate::options::{self, WriteOptions};
use crate::owners::Owners;
use crate::respond;
use crate::service;
use crate::status::ApiError;
use crate::write::{self, Carried, Told};
use scheme::FieldValidation;
use scheme::access::{ensure_map, str_at};
use scheme::decode::{self, MediaType, ParseError};
use storage::Object;

/// How often an object may come or go between looking at it and writing it.
const TRIES: usize = 5;

/// Applies a configuration to an object, which is created where there is none.
///
/// # Errors
/// 400 for what is no configuration, 409 for fields of other managers, and every failure of an update or a create.
pub async fn apply(call: &Call, body: &Bytes) -> Result<Response<Body>, ApiError> {
    let options = options::patch(&call.query, true)?;
    let mut config = configuration(body, options.field_validation)?;
    let (code, object) = write(call, &options, &mut config).await?;
    let mut response = if code == StatusCode::CREATED && options.dry_run {
        respond::unstored(call, code, &object)?
    } else {
        respond::object(call, code, &object)?
    };
    respond::warn(&mut response, &config.warnings);
    Ok(response)
}

/// What is to be applied.
#[derive(Debug)]
pub struct Configuration {
    /// The object.
    pub value: Value,
    /// What a client that asks for warnings is told of it.
    pub warnings: Vec<String>,
}

/// Reads a configuration.
///
/// # Errors
/// 400 for what is no object, and for duplicate fields where those are refused.
pub fn configuration(body: &[u8], validation: FieldValidation) -> Result<Configuration, ApiError> {
    let parsed = decode::parse(MediaType::Yaml, body).map_err(|error| {
        let (ParseError::Json(text) | ParseError::Yaml(text)) = error;
        ApiError::bad_request(format!("error decoding patch: {text}"))
    })?;
    if !parsed.value.is_object() {
        let text = "json: cannot unmarshal non-object into Go value of type map[string]interface {}";
        return Err(ApiError::bad_request(format!("error decoding patch: {text}")));
    }
    let told = |text: &str| match text.starts_with("yaml: ") {
        true => format!("error converting YAML to JSON: {text}"),
        false => text.to_owned(),
    };
    let duplicates: Vec<String> = parsed.duplicates.iter().map(|problem| told(problem.text())).collect();
    match validation {
        FieldValidation::Strict if !duplicates.is_empty() => {
            Err(ApiError::bad_request(format!("error strict decoding patch: {}", duplicates.join(", "))))
        }
        FieldValidation::Warn => Ok(Configuration { value: parsed.value, warnings: duplicates }),
        _ => Ok(Configuration { value: parsed.value, warnings: Vec::new() }),
    }
}

async fn write(
    call: &Call,
    options: &WriteOptions,
    config: &mut Configuration,
) -> Result<(StatusCode, Arc<Object>), ApiError> {
    let Configuration { value: config, warnings } = config;
    let told = warnings.len();
    let owners = Owners::of(call, options);
    for _ in 0..TRIES {
        let wanted = |before: &Value| {
            let current = call.served_ref(before);
            let object = owners.apply(Some(&current), config, options.force)?;
            patch::check_identity(call, &object, &current)?;
            warnings.truncate(told);
            warnings.extend(call.kind.warnings_on_update(&call.info.subresource, &object));
            Ok(object)
        };
        match write::update(call, options, Carried::Whole, wanted).await {
            Err(error) if error.is_not_found() && call.info.subresource.is_empty() => {}
            written => return Ok((StatusCode::OK, written?.object)),
        }
        service::authorize_create(call)?;
        let object = new_object(call, &owners, config, options)?;
        warnings.truncate(told);
        warnings.extend(call.kind.strategy.warnings(&object));
        match write::create(call, object, options, Told::Already).await {
            // Somebody else made it meanwhile.
            Err(error) if error.is_already_exists() => {}
            created => return Ok((StatusCode::CREATED, created?)),
        }
    }
    Err(call.resource.modified(&call.info.name).into())
}

/// The object that a configuration makes where there is none.
fn new_object(call: &Call, owners: &Owners<'_>, config: &Value, options: &WriteOptions) -> Result<Value, ApiError> {
    let mut object = owners.apply(None, config, options.force)?;
    let uid = str_at(&object, &["metadata", "uid"]);
    if !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(ApiError::conflict(call.subject(), &call.info.name, &why));
    }
    call.ensure_namespace(&mut object)?;
    let place = json!({"metadata": {"namespace": str_at(&object, &["metadata", "namespace"])}});
    if str_at(&object, &["metadata", "name"]).is_empty() {
        let text = format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.info.name
        );
        return Err(ApiError::bad_request(text));
    }
    patch::check_identity(call, &object, &place)?;
    ensure_map(&mut object, &["metadata"]).remove("resourceVersion");
    Ok(object)
}
