//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: expressions that judge and change objects, where bindings say
//! so. Follows `k8s.io/apiserver/pkg/admission/plugin/policy`.
//!
//! [`policy`] is a policy as it is written, compiled once; [`source`] has those that are bound now; [`constraints`]
//! says which requests they are about, [`params`] with which parameters; [`validating`] and [`mutating`] go through
//! them, and [`patch`] changes an object. Without a bound policy a request pays for looking whether there is one.

use futures::FutureExt as _;
use serde_json::Value;

use super::webhooks::is_exempt;
use super::webhooks::request::Asked;
use super::{Answer, Mutated, Mutating, Plugin, Refusal, Request, Validating, View};
use crate::registry::{Registry, ResourceName};
use scheme::Text;

mod constraints;
mod mutating;
mod params;
mod patch;
mod policy;
mod source;
mod validating;

use source::Source;

const GROUP: &str = "admissionregistration.k8s.io";

struct ValidatingPolicies(Source);
struct MutatingPolicies(Source);

/// Both plugins, over the policies that a registry has; none where it has no such kinds.
pub(crate) fn plugins(registry: &Registry) -> Vec<Plugin> {
    let source = |mutating: bool| {
        let kind = if mutating { "mutating" } else { "validating" };
        let cache = |plural: &str| Some(registry.get(GROUP, plural)?.cache().clone());
        let policies = cache(&format!("{kind}admissionpolicies"))?;
        Some(Source::new(policies, cache(&format!("{kind}admissionpolicybindings"))?, mutating))
    };
    let mutating = source(true).map(|source| Plugin::mutating("MutatingAdmissionPolicy", MutatingPolicies(source)));
    let validating =
        source(false).map(|source| Plugin::validating("ValidatingAdmissionPolicy", ValidatingPolicies(source)));
    mutating.into_iter().chain(validating).map(Plugin::of_connections).collect()
}

/// Whether policies have nothing to do with a request: those that say who is asked, and questions that are not stored
/// (`pkg/admission/exclusion`).
fn is_excluded(request: &Request<'_>) -> bool {
    is_exempt(request) || matches!(&*request.kind.group, "authentication.k8s.io" | "authorization.k8s.io")
}

impl Mutating for MutatingPolicies {
    fn mutate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a mut Value>,
        view: &'a dyn View,
    ) -> Answer<'a, Mutated> {
        let bound = self.0.bound();
        if bound.is_empty() || is_excluded(request) {
            return Answer::Now(Ok(Mutated::No));
        }
        Answer::Later(mutating::dispatch(bound, request, object, view).boxed())
    }
}

impl Validating for ValidatingPolicies {
    fn validate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a Value>,
        view: &'a dyn View,
    ) -> Answer<'a, ()> {
        let bound = self.0.bound();
        if bound.is_empty() || is_excluded(request) {
            return Answer::Now(Ok(()));
        }
        Answer::Later(validating::dispatch(bound, request, object, view).boxed())
    }
}

/// The namespace that an object is in; none for what is in none, and for namespaces.
async fn namespace(asked: &Asked<'_>) -> Result<Option<Value>, Refusal> {
    let Request { namespace, .. } = *asked.request;
    if namespace.is_empty() || asked.request.is("", "namespaces") {
        return Ok(None);
    }
    let find = || asked.view().get("", "namespaces", "", namespace);
    if let Some(found) = find() {
        return Ok(Some(found));
    }
    asked.view().fresh().await?;
    let resource = ResourceName { group: Text::Borrowed(""), plural: Text::Borrowed("namespaces") };
    find().map(Some).ok_or_else(|| Refusal::NotFound { resource, name: namespace.to_owned() })
}
