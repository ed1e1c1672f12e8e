//! Sends a request for a certificate and waits for the answer. Sending it again
//! after a crash finds the one that is there: its name says what it asks.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Error};

use super::plan::{Answer, Request, answer};
use super::{JoinError, PATIENCE};
use crate::answers::bounded;
use crate::watch::{Item, Skipped};

/// How long an approval is waited for, as upstream.
const APPROVAL: Duration = Duration::from_secs(15 * 60);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The certificate that was issued for a request.
pub(super) async fn certificate(client: &Client, request: &Request) -> Result<String, JoinError> {
    let client = bounded(client.clone());
    let asked: Api<CertificateSigningRequest> = Api::all(client.clone());
    retried(|| async {
        match asked.create(&PostParams::default(), &request.object).await {
            Err(Error::Api(status)) if status.is_already_exists() => Ok(()),
            answered => answered.map(drop),
        }
    })
    .await?;
    let name = request.name();
    tracing::info!(request = name, "waiting for a certificate");
    match tokio::time::timeout(APPROVAL, answered(Api::all(client), name)).await {
        Ok(Answer::Issued(pem)) => Ok(pem),
        Ok(Answer::Refused(reason)) => Err(JoinError::Denied { name: name.to_owned(), reason }),
        Ok(Answer::Pending) | Err(_) => Err(JoinError::Unanswered { name: name.to_owned(), waited: APPROVAL }),
    }
}

/// Waits for the answer; the watch reconnects by itself.
async fn answered(api: Api<Item<CertificateSigningRequest>>, name: &str) -> Answer {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = watcher(api, config).default_backoff().applied_objects().boxed();
    let mut skipped = Skipped::new("certificatesigningrequests");
    while let Some(change) = changes.next().await {
        match change.map(Item::read) {
            Ok(Ok(request)) => match answer(&request) {
                Answer::Pending => {}
                found => return found,
            },
            Ok(Err(object)) => _ = skipped.say(&object),
            Err(error) => tracing::debug!(%error, "the request cannot be watched"),
        }
    }
    Answer::Pending
}

/// Tries again while the server does not answer or is not itself, for a while.
pub(super) async fn retried<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, JoinError>
where
    F: Future<Output = Result<T, Error>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(Error::Api(status)) if status.code == 401 => return Err(JoinError::Unauthorized),
            Err(error) => error,
        };
        let passing = match &error {
            Error::Api(status) => status.code >= 500 || status.code == 429,
            _ => true,
        };
        if !passing || tokio::time::Instant::now() + pause > deadline {
            return Err(JoinError::Api(error));
        }
        if pause == FIRST_PAUSE {
            tracing::info!(%error, "waiting for the API server");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
