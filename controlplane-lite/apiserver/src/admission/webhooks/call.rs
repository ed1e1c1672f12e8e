//! One call of a webhook: the question, the time it has, and what its answer means
//! (`callAttrMutatingHook` and `callHook` in the dispatchers). What it may do to the object is for who asked.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use super::hook::Hook;
use super::request::Asked;
use super::review::{self, Verdict, Wrong};
use super::{Refusal, Webhooks};
use crate::deadline;
use crate::flow::LARGE_BODY;
use crate::metrics::webhooks::{Called, Phase, Rejection};
use crate::outbound::{Answer, Resolve, ServicePort};
use crate::server::random_uid;
use scheme::field::go_quote;

/// Why a call did not let the request pass.
#[derive(Debug)]
pub(super) enum Failure {
    /// The webhook could not be called, or answered no review; upstream counts it with this code.
    Calling { why: String, code: u16 },
    /// It denied, with this `Status`.
    Denied(Value),
    /// The request is at fault.
    Bad(String),
    /// Its answer cannot be made use of.
    Internal(String),
}

impl Failure {
    fn calling(why: impl Into<String>, code: u16) -> Self {
        Self::Calling { why: why.into(), code }
    }

    /// What the request is refused with; nothing where nobody minds the failure.
    pub(super) fn refusal(self, hook: &Hook) -> Option<Refusal> {
        match self {
            Self::Calling { .. } if hook.failure == super::hook::FailurePolicy::Ignore => None,
            Self::Calling { why, .. } => {
                Some(Refusal::Failed(format!("failed calling webhook {}: {why}", go_quote(&hook.name))))
            }
            Self::Denied(status) => Some(Refusal::Denied(Box::new(status))),
            Self::Bad(why) => Some(Refusal::Bad(why)),
            Self::Internal(why) => Some(Refusal::Failed(why)),
        }
    }
}

/// Services' endpoints, as the view knows them.
struct Endpoints<'a>(&'a dyn super::View);

impl Resolve for Endpoints<'_> {
    fn endpoint(&self, service: &ServicePort) -> Result<std::net::SocketAddr, String> {
        self.0.endpoint(service)
    }
}

/// Asks a webhook; what it says when it allows. Warnings and annotations are passed on, whatever it says.
pub(super) async fn ask(
    hook: &Hook,
    asked: &Asked<'_>,
    question: impl FnOnce() -> Bytes,
    phase: Phase,
) -> Result<Verdict, Failure> {
    if asked.request.dry_run && !hook.dry_run {
        return Err(Failure::Bad(format!("admission webhook {} does not support dry run", go_quote(&hook.name))));
    }
    let Some(version) = hook.review else {
        let why =
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        return Err(Failure::calling(why, 400));
    };
    let peer = hook.peer.as_ref().map_err(|why| Failure::calling(format!("could not get REST client: {why}"), 500))?;
    let uid = random_uid();
    let parts = review::asked(version, &uid, &question());
    let left = deadline::left().unwrap_or(hook.timeout);
    // Should the request's own time be over first, it ends, and nobody has to be told of this call.
    let time = (hook.timeout, hook.timeout.min(left).max(Duration::from_millis(1)));
    let answer = peer.post(&parts, time, &Endpoints(asked.view())).await;
    let answer = answer.map_err(|why| Failure::calling(format!("failed to call webhook: {why}"), 503))?;
    if !(200..=206).contains(&answer.code) {
        return Err(Failure::calling(format!("failed to call webhook: {}", refused(&answer)), answer.code));
    }
    let mutating = phase == Phase::Mutating;
    let heavy = answer.body.len() >= LARGE_BODY;
    let verdict = apart(heavy, move || review::verify(version, &uid, mutating, &answer.body)).await?;
    let verdict = verdict.map_err(|wrong| match wrong {
        Wrong::NoReview(why) => Failure::calling(format!("failed to call webhook: {why}"), 503),
        Wrong::Response(why) => Failure::calling(format!("received invalid webhook response: {why}"), 503),
        Wrong::PatchType(ty) => Failure::calling(format!("unsupported patch type {}", go_quote(&ty)), 400),
    })?;
    for (key, value) in &verdict.annotations {
        asked.annotate(&format!("{}/{key}", hook.name), value);
    }
    for warning in &verdict.warnings {
        crate::warnings::add(warning.as_str());
    }
    if verdict.allowed { Ok(verdict) } else { Err(Failure::Denied(review::denial(&hook.name, &verdict.result))) }
}

/// Work on what a webhook answered; what may take long is done where no request waits for the thread.
pub(super) async fn apart<T: Send + 'static>(
    heavy: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    if !heavy {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::Internal("the answer of a webhook could not be read".to_owned()))
}

/// What client-go says of an answer that is no success (`NewGenericServerResponse`).
fn refused(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    let said = if answer.text { body.trim() } else { "unknown" };
    match answer.code {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => said.to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        409 => "the server reported a conflict".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned()
        }
        code if code >= 500 => {
            format!("an error on the server ({}) has prevented the request from succeeding", go_quote(said))
        }
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}

impl Webhooks {
    /// Counts a call, and says in the log of one that failed.
    pub(super) fn note<T>(&self, hook: &Hook, asked: &Asked<'_>, began: Instant, called: &Result<T, Failure>) {
        let ignored = hook.failure == super::hook::FailurePolicy::Ignore;
        let (code, rejected) = match called {
            Ok(_) => (200, None),
            Err(Failure::Calling { code, .. }) => (*code, (!ignored).then_some(Rejection::Calling)),
            Err(Failure::Denied(status)) => {
                let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
                (code.unwrap_or(u16::MAX), Some(Rejection::Denied))
            }
            Err(Failure::Bad(_) | Failure::Internal(_)) => (0, Some(Rejection::Internal)),
        };
        let (phase, operation, took) = (self.phase, asked.request.operation, began.elapsed());
        self.metrics.called(&hook.name, Called { phase, operation, code, rejected, took });
        if let Err(Failure::Calling { why, .. }) = called {
            tracing::warn!(
                webhook = hook.name,
                configuration = hook.configuration,
                ignored,
                error = why,
                "calling a webhook failed"
            );
            if ignored {
                self.metrics.failed_open(&hook.name, phase);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_no_success_are_told_as_upstream_tells_them() {
        let told =
            |code, text, body: &'static str| refused(&Answer { code, text, body: Bytes::from_static(body.as_bytes()) });
        assert_eq!(
            told(500, true, " boom\n"),
            "an error on the server (\"boom\") has prevented the request from succeeding"
        );
        assert_eq!(
            told(500, false, "{}"),
            "an error on the server (\"unknown\") has prevented the request from succeeding"
        );
        assert_eq!(told(404, true, "x"), "the server could not find the requested resource");
        assert_eq!(
            told(302, true, "x"),
            "the server responded with the status code 302 but did not return more information"
        );
    }
}
