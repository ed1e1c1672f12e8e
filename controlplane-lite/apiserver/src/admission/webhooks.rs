//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: asks the webhooks that objects of
//! admissionregistration.k8s.io configure. Follows `k8s.io/apiserver/pkg/admission/plugin/webhook`.
//!
//! [`hook`] is a webhook as it is configured, [`matching`] says which requests it is about, [`review`] what it is asked
//! and may answer; these are pure. [`source`] has the webhooks that are configured now; [`call`] asks one; [`mutating`]
//! and [`validating`] go through them. Without a webhook a request pays for looking whether there is one.

use std::sync::Arc;

use futures::FutureExt as _;
use serde_json::Value;

use super::{Answer, Mutated, Mutating, Plugin, Refusal, Request, Validating, View};
use crate::metrics::webhooks::{Metrics, Phase};
use crate::outbound::Outbound;
use crate::registry::Registry;
use auth::authn::UserInfo;

mod call;
pub(super) mod hook;
mod matching;
mod mutating;
pub(super) mod request;
mod review;
mod source;
mod validating;

use source::Source;

const GROUP: &str = "admissionregistration.k8s.io";
/// The kinds that say who is asked: nobody is asked about those, or who is asked could not be changed any more
/// (`IsExemptAdmissionConfigurationResource`).
const EXEMPT: [&str; 6] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

/// What the expressions of a webhook's conditions are about.
#[derive(Debug)]
pub struct Condition<'a> {
    /// The request as the webhook would see it, without objects: `request`.
    pub request: &'a Value,
    /// The object, in the webhook's version; there is none in a delete.
    pub object: Option<&'a Value>,
    /// The object as it was.
    pub old: Option<&'a Value>,
    /// Who asks, for the `authorizer`.
    pub user: &'a UserInfo,
}

/// Judges an expression of a webhook's `matchConditions` (`matchconditions/matcher.go`); the error is why it could not.
pub type Conditions = dyn Fn(&str, &Condition<'_>, &dyn View) -> Result<bool, String> + Send + Sync;

/// One phase: its webhooks, and what calling them takes.
struct Webhooks {
    source: Source,
    metrics: Metrics,
    phase: Phase,
    conditions: Arc<Conditions>,
}

struct MutatingWebhooks(Webhooks);
struct ValidatingWebhooks(Webhooks);

/// Both plugins, over the configurations that a registry has; none where it has no such kinds.
pub(crate) fn plugins(registry: &Registry, metrics: &Metrics) -> Vec<Plugin> {
    let (outbound, conditions) = (Arc::new(Outbound::default()), Arc::new(crate::expressions::webhook_condition));
    let phase = |plural: &str, phase: Phase| {
        let configurations = registry.get(GROUP, plural)?;
        let source = Source::new(configurations.cache().clone(), outbound.clone());
        Some(Webhooks { source, metrics: metrics.clone(), phase, conditions: conditions.clone() })
    };
    let mutating = phase("mutatingwebhookconfigurations", Phase::Mutating)
        .map(|webhooks| Plugin::mutating("MutatingAdmissionWebhook", MutatingWebhooks(webhooks)).of_connections());
    let validating = phase("validatingwebhookconfigurations", Phase::Validating).map(|webhooks| {
        Plugin::validating("ValidatingAdmissionWebhook", ValidatingWebhooks(webhooks)).of_connections()
    });
    mutating.into_iter().chain(validating).collect()
}

pub(super) fn is_exempt(request: &Request<'_>) -> bool {
    request.kind.group == GROUP && EXEMPT.contains(&&*request.kind.kind)
}

impl Mutating for MutatingWebhooks {
    fn mutate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a mut Value>,
        view: &'a dyn View,
    ) -> Answer<'a, Mutated> {
        let hooks = self.0.source.hooks();
        if hooks.is_empty() || is_exempt(request) {
            return Answer::Now(Ok(Mutated::No));
        }
        Answer::Later(mutating::dispatch(&self.0, hooks, request, object, view).boxed())
    }
}

impl Validating for ValidatingWebhooks {
    fn validate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a Value>,
        view: &'a dyn View,
    ) -> Answer<'a, ()> {
        let hooks = self.0.source.hooks();
        if hooks.is_empty() || is_exempt(request) {
            return Answer::Now(Ok(()));
        }
        Answer::Later(validating::dispatch(&self.0, hooks, request, object, view).boxed())
    }
}

/// Reads an answer as the webhooks of both phases and versions would have given it.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_answer(body: &[u8]) {
    for version in ["v1", "v1beta1"] {
        for mutating in [true, false] {
            let Ok(verdict) = review::verify(version, "uid", mutating, body) else { continue };
            assert!(mutating || verdict.patch.is_empty());
            let status = review::denial("a.b.c", &verdict.result);
            assert!(status["message"].as_str().is_some_and(|text| text.contains("a.b.c")));
            assert!(status["code"].as_i64().is_some_and(|code| code >= 400));
        }
    }
}

/// A failure of the request that a plugin is to blame for.
fn failed(why: impl Into<String>) -> Refusal {
    Refusal::Failed(why.into())
}
