//! A new object: made, admitted, prepared and stored, under a name of its own or one that is drawn for it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Asked, grant};
use crate::access::check_escalation;
use crate::admission::Operation;
use crate::call::{Call, valid};
use crate::options::WriteOptions;
use crate::owners::Owners;
use crate::params;
use crate::registry::RegistryError;
use crate::status::ApiError;
use scheme::access::{ensure_map, str_at};
use scheme::meta;
use storage::Object;

/// Tries of a generated name before giving up, as upstream (`maxNameGenerationCreateAttempts`).
const NAME_ATTEMPTS: usize = 8;

/// Whether an object already says who owns its fields.
#[derive(Debug, Clone, Copy)]
pub enum Told<'o> {
    /// It does: it was applied.
    Already,
    /// This write says it.
    ByThis(&'o Owners<'o>),
}

/// Creates a decoded object; also where a PUT may create.
///
/// # Errors
/// Every failure upstream's create has.
pub async fn create(
    call: &Call,
    mut object: Value,
    options: &WriteOptions,
    owners: Told<'_>,
) -> Result<Arc<Object>, ApiError> {
    if call.kind.terminating {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(ApiError::forbidden(call.subject(), str_at(&object, &["metadata", "name"]), why));
    }
    call.ensure_namespace(&mut object)?;
    if !str_at(&object, &["metadata", "resourceVersion"]).is_empty() {
        return Err(ApiError::plain(500, "resourceVersion should not be set on objects to be created"));
    }
    call.kind.default(&mut object);
    if let Told::ByThis(owners) = owners {
        owners.created(&mut object);
    }
    let mut object = call.unserved(object);
    let asked = Asked::new(call, Operation::Create, options.dry_run);
    let name = str_at(&object, &["metadata", "name"]).to_owned();
    asked.mutate(&name, Some(&mut object), None).await?;
    check_escalation(call, &object, None)?;
    let base = str_at(&object, &["metadata", "generateName"]).to_owned();
    if base.is_empty() || !str_at(&object, &["metadata", "name"]).is_empty() {
        return attempt(&asked, object).await;
    }
    for _ in 1..NAME_ATTEMPTS {
        match attempt(&asked, named(object.clone(), &base)).await {
            Err(error) if error.is_already_exists() => {}
            result => return result,
        }
    }
    attempt(&asked, named(object, &base)).await
}

fn named(mut object: Value, base: &str) -> Value {
    let name = meta::generate_name(base, rand::random());
    ensure_map(&mut object, &["metadata"]).insert("name".into(), json!(name));
    object
}

/// From the strategy's stages to the store.
async fn attempt(asked: &Asked<'_>, mut object: Value) -> Result<Arc<Object>, ApiError> {
    let call = asked.call;
    let kind = call.ruling();
    let (now, uid) = (call.server.now_text(), call.server.new_uid());
    kind.prepare_create(&mut object, &call.context(&now, &uid));
    let name = str_at(&object, &["metadata", "name"]).to_owned();
    valid(call.kind_subject(), &name, kind.validate_create(&object))?;
    params::check(call, &object, None)?;
    let mut held = grant(call, &name, &mut object, None)?;
    asked.validate(&name, Some(&object), None).await?;
    let generates = !str_at(&object, &["metadata", "generateName"]).is_empty();
    held.sent();
    let object = call.laid_down(object).await?;
    let stored = call.resource.create(&call.info.namespace, &name, object, asked.dry_run).await;
    held.answered(&stored, asked.dry_run);
    match stored {
        Err(RegistryError::AlreadyExists { .. }) => Err(taken(call, &name, generates).await),
        result => call.converted_one(result?).await,
    }
}

/// Why a name cannot be had: clients that let the server choose may try again, and those that wait for another object
/// to go read that it is going (`rest.CheckGeneratedNameError`, `Store.create`).
async fn taken(call: &Call, name: &str, generates: bool) -> ApiError {
    let error = if generates {
        ApiError::generate_name_conflict(call.subject(), name)
    } else {
        ApiError::already_exists(call.subject(), name)
    };
    match call.resource.read(&call.info.namespace, name).await {
        Ok(other) if other.deletion_timestamp().is_some() => error.preceded_by("object is being deleted"),
        _ => error,
    }
}
