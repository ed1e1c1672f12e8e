//! A changed object: a whole one that was put, a patched or a scaled one.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::{Asked, grant};
use crate::access::check_escalation;
use crate::admission::Operation;
use crate::call::{Call, valid};
use crate::deletion;
use crate::options::WriteOptions;
use crate::owners::{self, Owners};
use crate::params;
use crate::registry::{Change, Commit, RETRIES, WriteResult};
use crate::services::OpenGrant;
use crate::status::{ApiError, Cause, Subject};
use scheme::access::{ensure_map, str_at};
use scheme::field::go_quote;
use scheme::{Kind, convert};

/// How a request carries the object that it changes. Admission sees what is carried.
#[derive(Debug, Clone, Copy)]
pub enum Carried<'k> {
    /// As it is.
    Whole,
    /// As its Scale. The strategy is asked as for a write of the object itself, which counts generations.
    Scale(Scaling<'k>),
}

/// A write of a Scale.
#[derive(Debug, Clone, Copy)]
pub struct Scaling<'k> {
    /// The kind Scale.
    pub kind: &'k Kind,
    /// Who writes.
    pub owners: &'k Owners<'k>,
    /// The configuration that is applied, as one of the object itself, and whether by force.
    pub applied: Option<(&'k Value, bool)>,
}

impl Scaling<'_> {
    /// Tells the owners of a scaled object.
    fn own(&self, object: &mut Value, old: &Value) -> Result<(), ApiError> {
        let Some((config, force)) = self.applied else {
            self.owners.changed(old, object);
            return Ok(());
        };
        let mut applied = self.owners.apply(Some(old), config, force)?;
        match applied["metadata"]["managedFields"].take() {
            Value::Null => {}
            entries => {
                ensure_map(object, &["metadata"]).insert("managedFields".into(), entries);
            }
        }
        Ok(())
    }
}

impl Carried<'_> {
    fn of<'v>(&self, call: &Call, object: &'v Value) -> Result<Cow<'v, Value>, ApiError> {
        match (self, &call.kind.scale) {
            (Self::Whole, _) => Ok(Cow::Borrowed(object)),
            (Self::Scale(..), None) => Ok(Cow::Owned(convert::scale_of(object))),
            (Self::Scale(..), Some(paths)) => {
                let (mut scale, found) = convert::custom_scale(object, paths).map_err(ApiError::internal)?;
                if !found {
                    scale["spec"]["replicas"] = convert::UNSET_REPLICAS.into();
                }
                Ok(Cow::Owned(scale))
            }
        }
    }

    /// The new object, and what carried it where that is something else.
    fn onto(self, call: &Call, carried: Value, old: &Value) -> Result<(Value, Option<Value>), ApiError> {
        let Self::Scale(scaling) = self else { return Ok((carried, None)) };
        let mut object = old.clone();
        if let Some(paths) = &call.kind.scale {
            if carried["spec"]["replicas"] == convert::UNSET_REPLICAS {
                let path = go_quote(&paths.spec_replicas);
                return Err(ApiError::bad_request(format!("the spec replicas field {path} cannot be empty")));
            }
            convert::apply_custom_scale(&mut object, paths, &carried).map_err(ApiError::internal)?;
        } else if let Err(errors) = convert::apply_scale(&mut object, &carried) {
            valid(Subject::new("autoscaling", "Scale"), &call.info.name, errors)?;
        }
        let version = str_at(&carried, &["metadata", "resourceVersion"]);
        ensure_map(&mut object, &["metadata"]).insert("resourceVersion".into(), json!(version));
        scaling.own(&mut object, old)?;
        Ok((object, Some(carried)))
    }
}

/// Carries a change through: `next` makes what the request wants (as it is served, defaulted) of what is stored, anew
/// whenever another writer was faster.
///
/// # Errors
/// 404, 409, 422, admission's refusal and whatever `next` answers.
pub async fn update<F>(
    call: &Call,
    options: &WriteOptions,
    carried: Carried<'_>,
    mut next: F,
) -> Result<WriteResult, ApiError>
where
    F: FnMut(&Value) -> Result<Value, ApiError>,
{
    let (resource, services) = (&call.resource, &call.server.services);
    let mut asked = Asked::new(call, Operation::Update, options.dry_run);
    if let Carried::Scale(scaling) = carried {
        asked.body = scaling.kind;
    }
    let repairs = services.repairs();
    for _ in 0..RETRIES {
        let opened = resource.open(&call.info.namespace, &call.info.name).await?;
        let wanted = |before: &Value| Ok(call.unserved(next(before)?));
        let judged = call.judged(&opened.value).await?;
        let (change, mut held) = decide(&asked, carried, &judged, wanted).await?;
        held.sent();
        let committed = resource.commit(&opened, change, options.dry_run).await;
        if let Ok(Commit::Lost { winner }) = committed {
            held.refused();
            resource.after_loss(winner).await;
            continue;
        }
        held.answered(&committed, options.dry_run);
        if let Commit::Written(written) = committed? {
            if written.removed && !options.dry_run {
                services.vacate(&resource.kind, &written.object, repairs);
            }
            return call.answered(written).await;
        }
    }
    Err(resource.modified(&call.info.name).into())
}

/// Everything between what is stored and the commit.
async fn decide<F>(
    asked: &Asked<'_>,
    carried: Carried<'_>,
    old: &Value,
    wanted: F,
) -> Result<(Change, OpenGrant), ApiError>
where
    F: FnOnce(&Value) -> Result<Value, ApiError>,
{
    let call = asked.call;
    let (kind, name) = (call.ruling(), call.info.name.as_str());
    let before = carried.of(call, old)?;
    let mut body = wanted(&before)?;
    check_uid(call, &body, old)?;
    asked.mutate(name, Some(&mut body), Some(&before)).await?;
    let (mut new, body) = carried.onto(call, body, old)?;
    check_escalation(call, &new, Some(old))?;
    check_version(call, &new, old)?;
    let subresource = match carried {
        Carried::Whole => call.info.subresource.as_str(),
        Carried::Scale(..) => "",
    };
    let now = call.server.now_text();
    kind.prepare_update(subresource, &mut new, old, &call.context(&now, ""));
    owners::keep_times(&mut new, old);
    valid(call.kind_subject(), name, kind.validate_update(subresource, &new, old))?;
    params::check(call, &new, Some(old))?;
    let held = match subresource {
        "" => grant(call, name, &mut new, Some(old))?,
        _ => call.server.services.nothing(),
    };
    asked.validate(name, Some(body.as_ref().unwrap_or(&new)), Some(&before)).await?;
    let change = if deletion::ends_with_update(kind, &new) {
        Change::Remove(call.laid_down(new).await?)
    } else if kind.custom {
        // Whether it is stored so already is seen when it is encoded: what is only read as of today is brought up to
        // it.
        Change::Write(call.laid_down(new).await?)
    } else if same(&new, old) {
        Change::Keep
    } else if kind.strategy.is_heartbeat(subresource, &new, old) {
        Change::Heartbeat(new)
    } else {
        Change::Write(new)
    };
    Ok((change, held))
}

/// Whether two states differ in nothing but the version.
fn same(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new == old };
    let equal = |key: &str, new: &Value, old: &Value| match (key, new.as_object(), old.as_object()) {
        ("metadata", Some(new), Some(old)) => same_metadata(new, old),
        _ => new == old,
    };
    new.len() == old.len() && new.iter().all(|(key, value)| old.get(key).is_some_and(|other| equal(key, value, other)))
}

fn same_metadata(new: &Map<String, Value>, old: &Map<String, Value>) -> bool {
    const VERSION: &str = "resourceVersion";
    let fields = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key(VERSION));
    fields(new) == fields(old) && new.iter().all(|(key, value)| key == VERSION || old.get(key) == Some(value))
}

fn check_uid(call: &Call, new: &Value, old: &Value) -> Result<(), ApiError> {
    let (wanted, uid) = (str_at(new, &["metadata", "uid"]), str_at(old, &["metadata", "uid"]));
    if wanted.is_empty() || wanted == uid {
        return Ok(());
    }
    let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
    Err(ApiError::conflict(call.subject(), &call.info.name, &why))
}

fn check_version(call: &Call, new: &Value, old: &Value) -> Result<(), ApiError> {
    let name = call.info.name.as_str();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_makes_no_difference() {
        let old = json!({"kind": "K", "metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"b": [1, {"c": 2}]}});
        let with = |path: &str, value: Value| {
            let mut new = old.clone();
            match new.pointer_mut(path) {
                Some(field) => *field = value,
                None => new["metadata"]["labels"] = value,
            }
            new
        };
        for (new, expect) in [
            (old.clone(), true),
            (with("/metadata/resourceVersion", json!("2")), true),
            (with("/metadata", json!({"name": "a"})), true),
            (with("/metadata", json!({"name": "b"})), false),
            (with("/metadata", json!({})), false),
            (with("/metadata", json!(null)), false),
            (with("/metadata/labels", json!({})), false),
            (with("/spec/b/1/c", json!(3)), false),
            (json!({"kind": "K", "metadata": {"name": "a"}}), false),
            (json!(3), false),
        ] {
            assert_eq!((same(&new, &old), same(&old, &new)), (expect, expect), "{new}");
        }
    }
}
