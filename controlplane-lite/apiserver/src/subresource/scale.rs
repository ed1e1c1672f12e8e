//! The scale subresource of workloads: autoscaling/v1 Scale in, replicas changed, Scale out.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::negotiate::{self, Shape};
use crate::options::{self, WriteOptions};
use crate::owners::Owners;
use crate::respond;
use crate::status::ApiError;
use crate::verbs::apply::{Configuration, configuration};
use crate::verbs::patch;
use crate::write::{self, Carried, Scaling};
use scheme::access::{ensure_map, str_at};
use scheme::field::go_quote;
use scheme::{FieldValidation, Kind, convert, decode, patch as patching};
use storage::Object;

fn kind() -> Result<&'static Kind, ApiError> {
    scheme::builtin().by_gvk("autoscaling", "v1", "Scale").map(|kind| &**kind).ok_or_else(ApiError::no_such_path)
}

/// The Scale of an object.
fn scale_of(call: &Call, object: &Object) -> Result<Value, ApiError> {
    let Some(paths) = &call.kind.scale else { return Ok(convert::scale_of(&object.value())) };
    let (scale, found) = convert::custom_scale(&call.served(object.value()), paths).map_err(ApiError::internal)?;
    if !found && call.info.verb == "get" {
        let path = go_quote(&paths.spec_replicas);
        return Err(ApiError::internal(format!("the spec replicas field {path} does not exist")));
    }
    Ok(scale)
}

fn answer(call: &Call, object: &Object) -> Result<Response<Body>, ApiError> {
    let scale = scale_of(call, object)?;
    let accept = negotiate::accept(&call.headers)?;
    let value = match accept.shape {
        Shape::Object => scale,
        Shape::Metadata => respond::metadata_of(&scale, accept),
        Shape::Table => scheme::table::table(
            kind()?,
            respond::version_of(&scale),
            [&scale],
            scheme::table::IncludeObject::Metadata,
            true,
            jiff::Timestamp::now(),
        ),
    };
    Ok(respond::encode(StatusCode::OK, accept.format, &value, &call.query))
}

/// Reads the scale.
///
/// # Errors
/// 404.
pub async fn get(call: &Call) -> Result<Response<Body>, ApiError> {
    let object = call.resource.read(&call.info.namespace, &call.info.name).await?;
    answer(call, &*call.converted_one(Arc::new(object)).await?)
}

/// Replaces the scale.
///
/// # Errors
/// As an update of the object.
pub async fn update(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let options = options::write(&call.query, "UpdateOptions")?;
    let scale = call.decode(kind()?, &body, options.field_validation)?.object;
    let name = str_at(&scale, &["metadata", "name"]);
    if !name.is_empty() && name != call.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    change(call, &options, None, |_| Ok(scale.clone())).await
}

/// Patches the scale.
///
/// # Errors
/// As a patch of the object.
pub async fn patch(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    if patch::is_apply(call) {
        return apply(call, &body).await;
    }
    let options = options::patch(&call.query, false)?;
    let patch_type = patch::patch_type(call)?;
    let kind = kind()?;
    change(call, &options, None, |scale| {
        patching::apply(kind, patch_type, scale, &body, options.field_validation)
            .map(|decoded| decoded.object)
            .map_err(|error| patch::refused(call, error))
    })
    .await
}

/// Applies a Scale: who does owns the object's replicas (`apimachinery/pkg/util/managedfields/scalehandler.go`).
async fn apply(call: &Call, body: &Bytes) -> Result<Response<Body>, ApiError> {
    let options = options::patch(&call.query, true)?;
    let Configuration { value: sent, warnings } = configuration(body, options.field_validation)?;
    let (version, name) = (str_at(&sent, &["apiVersion"]), str_at(&sent, &["kind"]));
    if (version, name) != ("autoscaling/v1", "Scale") {
        return Err(ApiError::bad_request(format!("invalid object type: {version}, Kind={name}")));
    }
    if !sent["metadata"]["managedFields"].is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let scale = decode::decode_value(kind()?, sent, Vec::new(), true, FieldValidation::Strict);
    let scale = scale.map_err(|error| ApiError::plain(500, error.to_string()))?.object;
    let place = json!({"metadata": {"namespace": call.info.namespace}});
    // A configuration need not say which object the path names.
    let mut named = scale.clone();
    if str_at(&named, &["metadata", "name"]).is_empty() {
        ensure_map(&mut named, &["metadata"]).insert("name".into(), json!(call.info.name));
    }
    call.ensure_namespace(&mut named)?;
    patch::check_identity(call, &named, &place)?;
    let replicas = scale["spec"].get("replicas").cloned();
    let mut config = json!({"apiVersion": call.kind.api_version(), "kind": &*call.kind.kind,
        "metadata": {"name": &call.info.name}});
    if let Some(replicas) = &replicas {
        match &call.kind.scale {
            None => config["spec"] = json!({ "replicas": replicas }),
            Some(paths) => {
                let wanted = json!({"spec": {"replicas": replicas}});
                convert::apply_custom_scale(&mut config, paths, &wanted).map_err(ApiError::internal)?;
            }
        }
    }
    let mut response = change(call, &options, Some((&config, options.force)), |before| {
        let mut after = before.clone();
        // What the object has to be still.
        for key in ["uid", "resourceVersion"] {
            if !str_at(&scale, &["metadata", key]).is_empty() {
                ensure_map(&mut after, &["metadata"]).insert(key.into(), scale["metadata"][key].clone());
            }
        }
        if let Some(replicas) = &replicas {
            ensure_map(&mut after, &["spec"]).insert("replicas".into(), replicas.clone());
        }
        Ok(after)
    })
    .await?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

async fn change<F>(
    call: &Call,
    options: &WriteOptions,
    applied: Option<(&Value, bool)>,
    next: F,
) -> Result<Response<Body>, ApiError>
where
    F: FnMut(&Value) -> Result<Value, ApiError>,
{
    let owners = Owners::of(call, options);
    let scaling = Scaling { kind: kind()?, owners: &owners, applied };
    let written = write::update(call, options, Carried::Scale(scaling), next).await?;
    answer(call, &written.object)
}
