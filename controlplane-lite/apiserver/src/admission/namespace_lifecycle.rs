//! NamespaceLifecycle: nothing is created in a namespace that is missing or ending; the system's namespaces stay.
//! Follows `k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`.

use futures::FutureExt as _;
use serde_json::Value;

use super::{Answer, Cause, Mutated, Mutating, Operation, Refusal, Request, View};
use crate::registry::ResourceName;
use scheme::Text;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
pub(super) const NAMESPACES: ResourceName =
    ResourceName { group: Text::Borrowed(""), plural: Text::Borrowed("namespaces") };

pub(super) struct NamespaceLifecycle;

impl Mutating for NamespaceLifecycle {
    /// What the caches do not show may have been made a moment ago: before it is called missing, they get the time to
    /// catch up.
    fn mutate<'a>(
        &'a self,
        request: &'a Request<'a>,
        _: Option<&'a mut Value>,
        view: &'a dyn View,
    ) -> Answer<'a, Mutated> {
        if let Some(judged) = judge(request, view) {
            return Answer::Now(judged);
        }
        let later = async move {
            view.fresh().await?;
            let missing = || Err(Refusal::NotFound { resource: NAMESPACES, name: request.namespace.to_owned() });
            judge(request, view).unwrap_or_else(missing)
        };
        Answer::Later(later.boxed())
    }
}

/// Nothing when the namespace cannot be seen.
fn judge(request: &Request<'_>, view: &dyn View) -> Option<Result<Mutated, Refusal>> {
    let fine = Some(Ok(Mutated::No));
    if request.is("", "namespaces") {
        let kept = request.operation == Operation::Delete && IMMORTAL.contains(&request.name);
        return if kept { Some(Err(request.forbidden("this namespace may not be deleted"))) } else { fine };
    }
    if request.namespace.is_empty() || request.operation == Operation::Delete {
        return fine;
    }
    if request.operation == Operation::Update {
        return view.has("", "namespaces", "", request.namespace).then_some(Ok(Mutated::No));
    }
    if view.is_ending(request.namespace)? { Some(Err(ending(request))) } else { fine }
}

fn ending(request: &Request<'_>) -> Refusal {
    let name = request.namespace;
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let said = Cause {
        reason: "NamespaceTerminating",
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace",
    };
    match request.forbidden(why) {
        Refusal::Forbidden { resource, name, why, .. } => {
            Refusal::Forbidden { resource, name, why, cause: Some(Box::new(said)) }
        }
        other => other,
    }
}
