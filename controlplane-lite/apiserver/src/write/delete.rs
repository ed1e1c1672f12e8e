//! A deleted object: removed at once, or marked for whoever finishes.

use serde_json::Value;

use super::Asked;
use crate::admission::{Operation, Options};
use crate::call::Call;
use crate::deletion::{self, Deletion};
use crate::options::DeleteOptions;
use crate::registry::{Change, Commit, RETRIES, RegistryError, WriteResult};
use crate::status::ApiError;
use scheme::access::str_at;

/// Deletes one object.
///
/// # Errors
/// 404, 409 for preconditions, admission's refusal.
pub async fn delete(call: &Call, name: &str, options: &DeleteOptions) -> Result<WriteResult, ApiError> {
    let asked = Asked::new(call, Operation::Delete, options.dry_run);
    carry_out(call, name, options, Some(Asked { options: Options::Delete(options), ..asked })).await
}

/// Deletes one object on behalf of a request that was admitted as something else: an eviction.
///
/// # Errors
/// 404, 409 for preconditions.
pub async fn delete_admitted(call: &Call, name: &str, options: &DeleteOptions) -> Result<WriteResult, ApiError> {
    carry_out(call, name, options, None).await
}

async fn carry_out(
    call: &Call,
    name: &str,
    options: &DeleteOptions,
    asked: Option<Asked<'_>>,
) -> Result<WriteResult, ApiError> {
    let (resource, namespace) = (&call.resource, call.info.namespace.as_str());
    let now = call.server.now();
    let repairs = call.server.services.repairs();
    for _ in 0..RETRIES {
        let mut opened = resource.open(namespace, name).await?;
        let old = &opened.value;
        check_preconditions(call, name, options, old)?;
        if let Some(asked) = &asked {
            let seen = call.judged(old).await?;
            asked.mutate(name, None, Some(&seen)).await?;
            asked.validate(name, None, Some(&seen)).await?;
        }
        let mut remove_next = false;
        let change = match deletion::plan(&resource.kind, old, options, now) {
            Deletion::Now => Change::Remove(std::mem::take(&mut opened.value)),
            Deletion::Mark(marked) => Change::Write(marked),
            Deletion::MarkThenRemove(marked) => {
                remove_next = true;
                Change::Write(marked)
            }
            Deletion::Pending => Change::Keep,
        };
        let written = match resource.commit(&opened, change, options.dry_run).await? {
            Commit::Written(written) if remove_next && !options.dry_run => remove_marked(call, name, written).await?,
            Commit::Written(written) => written,
            Commit::Lost { winner } => {
                resource.after_loss(winner).await;
                continue;
            }
        };
        if written.removed && !options.dry_run {
            call.server.services.vacate(&resource.kind, &written.object, repairs);
        }
        return call.answered(written).await;
    }
    Err(resource.modified(name).into())
}

/// The second step of an immediate pod deletion. Dead before it, the pod stays marked with no grace left, and the pod
/// garbage collector or the kubelet deletes it again.
async fn remove_marked(call: &Call, name: &str, marked: WriteResult) -> Result<WriteResult, RegistryError> {
    let uid = marked.object.uid().to_owned();
    let removal = call
        .resource
        .change(&call.info.namespace, name, false, |current| {
            let ours = str_at(current, &["metadata", "uid"]) == uid;
            Ok(if ours { Change::Remove(current.clone()) } else { Change::Keep })
        })
        .await;
    match removal {
        Ok(written) => Ok(WriteResult { removed: true, ..written }),
        // Somebody else finished it.
        Err(RegistryError::NotFound { .. }) => Ok(WriteResult { removed: true, ..marked }),
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
