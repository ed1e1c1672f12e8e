//! Renews a node's certificates before they end, for as long as the node runs.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::client::Switch;
use super::{Credentials, JoinError, plan, renew, renew_serving};
use crate::node::NodeView;

/// Longest sleep: clocks are set, machines are suspended.
const LOOK: Duration = Duration::from_secs(10 * 60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Keeps the client certificate of `node` good until cancelled. `reload` makes a
/// client of the files as they are; requests after a renewal go through it.
pub async fn client<F>(
    credentials: Credentials,
    node: String,
    asking: Client,
    switch: Switch,
    reload: impl Fn() -> F,
    token: CancellationToken,
) where
    F: Future<Output = Result<Client, String>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let wait = due_in(&credentials, Timestamp::now());
        // Cancel-safe: both arms only wait.
        if token.run_until_cancelled(tokio::time::sleep(wait.min(LOOK))).await.is_none() {
            return;
        }
        if !due_in(&credentials, Timestamp::now()).is_zero() {
            continue;
        }
        // Cut off, it goes on with the same request at the next start.
        let renewed = token.run_until_cancelled(renew(&credentials, &node, &asking)).await;
        match renewed {
            None => return,
            Some(Ok(())) => match reload().await {
                Ok(next) => {
                    switch.exchange(next);
                    tracing::info!("client certificate renewed");
                }
                // The old one has some of its life left; the next start reads the files.
                Err(error) => tracing::warn!(error, "the renewed client certificate cannot be used"),
            },
            Some(Err(error)) => report(&error, pause),
        }
        // Also one that was issued may be due again.
        if !due_in(&credentials, Timestamp::now()).is_zero() {
            pause = FIRST_PAUSE;
            continue;
        }
        if token.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Keeps a serving certificate good for the names and addresses that the Node
/// has, until cancelled.
pub async fn serving(
    credentials: Credentials,
    node: String,
    client: Client,
    mut view: watch::Receiver<Arc<NodeView>>,
    token: CancellationToken,
) {
    let work = async {
        let mut pause = FIRST_PAUSE;
        loop {
            let names = names_of(&view.borrow_and_update());
            let wait = due_for(&credentials, &names);
            if names.is_empty() || !wait.is_zero() {
                let time = if names.is_empty() { LOOK } else { wait.min(LOOK) };
                // Cancel-safe: both arms only wait.
                tokio::select! {
                    changed = view.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(time) => {}
                }
                continue;
            }
            let renewed = tokio::select! {
                renewed = renew_serving(&credentials, &node, &names, &client) => renewed,
                // Cut off, as at the end: what nobody answered is not what is wanted any more.
                changed = other_names(&mut view, &names) => match changed {
                    Ok(()) => {
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    Err(_) => return,
                }
            };
            match renewed {
                Ok(()) if !due_for(&credentials, &names).is_zero() => {
                    pause = FIRST_PAUSE;
                    continue;
                }
                Ok(()) => {
                    tracing::warn!(?names, retry_in = ?pause, "another certificate was issued than was asked for")
                }
                Err(error) => report(&error, pause),
            }
            // Cancel-safe: both arms only wait.
            tokio::select! {
                changed = other_names(&mut view, &names) => match changed {
                    // What was refused for some names may be granted for others.
                    Ok(()) => pause = FIRST_PAUSE,
                    Err(_) => return,
                },
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    };
    // Cut off, it goes on with the same request at the next start.
    token.run_until_cancelled(work).await;
}

fn names_of(view: &NodeView) -> Vec<String> {
    view.node.as_deref().map(plan::names).unwrap_or_default()
}

/// Waits until the Node has other names or addresses than these; what else changes of it, such as its heartbeat, is no
/// reason to ask sooner.
async fn other_names(view: &mut watch::Receiver<Arc<NodeView>>, names: &[String]) -> Result<(), RecvError> {
    view.wait_for(|view| names_of(view) != names).await.map(drop)
}

fn report(error: &JoinError, pause: Duration) {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::warn!(%error, source, retry_in = ?pause, "certificate not renewed");
}

/// How long until the certificate is to be renewed; one for other names is due now.
fn due_for(credentials: &Credentials, names: &[String]) -> Duration {
    let fits = credentials.validity().is_some_and(|validity| validity.names == names);
    if fits { due_in(credentials, Timestamp::now()) } else { Duration::ZERO }
}

/// How long until the certificate is to be renewed; a missing one is due now.
fn due_in(credentials: &Credentials, now: Timestamp) -> Duration {
    let Some(validity) = credentials.validity() else { return Duration::ZERO };
    // The same dice for the same certificate, so that looking again changes nothing.
    let dice = validity.public_key.iter().fold(0_u32, |sum, byte| (sum * 31 + u32::from(*byte)) % 1000);
    let due = plan::rotation(&validity, f64::from(dice) / 1000.0);
    due.duration_since(now).try_into().unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Method, Request, Response, StatusCode};
    use http_body_util::BodyExt;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
    use kube::client::Body;
    use rcgen::{CertificateParams, CertificateSigningRequestParams, DnType, Issuer, KeyPair};
    use serde_json::json;

    use super::*;

    /// An API that approves and signs whatever it is asked, after failing twice.
    #[derive(Clone)]
    struct Signer {
        issuer: Arc<Issuer<'static, KeyPair>>,
        asked: Arc<Mutex<Option<CertificateSigningRequest>>>,
        creates: Arc<AtomicUsize>,
        /// It leaves the names out that it is asked for.
        nameless: bool,
        /// It approves nothing.
        silent: bool,
    }

    impl Signer {
        fn new() -> Self {
            let issuer = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
            Self {
                issuer: Arc::new(issuer),
                asked: Arc::default(),
                creates: Arc::default(),
                nameless: false,
                silent: false,
            }
        }

        fn client(&self) -> Client {
            let signer = self.clone();
            let answer = move |request: Request<Body>| {
                let signer = signer.clone();
                async move { signer.answer(request).await }
            };
            Client::new(tower::service_fn(answer), "default")
        }

        async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
            let watches = request.uri().query().unwrap_or_default().contains("watch");
            let created = request.method() == Method::POST;
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let (code, body) = if created {
                // Whoever does not pause between its questions is to be told apart, and not to go on for ever.
                if !(2..50).contains(&self.creates.fetch_add(1, Ordering::SeqCst)) {
                    (StatusCode::SERVICE_UNAVAILABLE, json!({"kind": "Status", "status": "Failure", "code": 503}))
                } else {
                    *self.asked.lock().unwrap() = Some(serde_json::from_slice(&body).unwrap());
                    (StatusCode::CREATED, serde_json::from_slice(&body).unwrap())
                }
            } else if watches {
                (StatusCode::GONE, json!({"kind": "Status", "status": "Failure", "code": 410}))
            } else {
                (StatusCode::OK, json!({"metadata": {"resourceVersion": "1"}, "items": [self.signed()]}))
            };
            let json = Body::from(body.to_string().into_bytes());
            Ok(Response::builder().status(code).header("content-type", "application/json").body(json).unwrap())
        }

        fn signed(&self) -> CertificateSigningRequest {
            let mut request = self.asked.lock().unwrap().clone().unwrap();
            if self.silent {
                return request;
            }
            let pem = String::from_utf8(request.spec.request.0.clone()).unwrap();
            let mut asked = CertificateSigningRequestParams::from_pem(&pem).unwrap();
            if self.nameless {
                asked.params.subject_alt_names.clear();
            }
            asked.params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            asked.params.not_after = rcgen::date_time_ymd(2120, 1, 1);
            let pem = asked.signed_by(&*self.issuer).unwrap().pem();
            let status = json!({"conditions": [{"type": "Approved", "status": "True"}]});
            let mut status: k8s_openapi::api::certificates::v1::CertificateSigningRequestStatus =
                serde_json::from_value(status).unwrap();
            status.certificate = Some(ByteString(pem.into_bytes()));
            request.status = Some(status);
            request
        }
    }

    /// A certificate of node `n` that nears its end.
    fn old(credentials: &Credentials) {
        let key = credentials.pending_key().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "system:node:n");
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        // Most of its life has passed, and it is good for some days.
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let pem = params.self_signed(&KeyPair::from_pem(&key).unwrap()).unwrap().pem();
        let within = "2029-01-01T00:00:00Z".parse().unwrap();
        credentials.store(&pem, &key, "n", within).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_certificate_is_renewed_and_used() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::client(dir.path());
        old(&credentials);
        let before = credentials.validity().unwrap();
        let at = "2029-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(due_in(&credentials, at), Duration::ZERO);
        // Whatever the clock says today, a lost certificate is due.
        std::fs::remove_file(credentials.current()).unwrap();
        let signer = Signer::new();
        let (switch, _) = Switch::new(signer.client());
        let (reloaded, token) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let reload = {
            let (reloaded, token, next) = (reloaded.clone(), token.clone(), signer.client());
            move || {
                reloaded.fetch_add(1, Ordering::SeqCst);
                token.cancel();
                let next = next.clone();
                async move { Ok(next) }
            }
        };
        let running = client(credentials.clone(), "n".into(), signer.client(), switch, reload, token);
        tokio::time::timeout(Duration::from_secs(600), running).await.unwrap();
        assert_eq!((reloaded.load(Ordering::SeqCst), signer.creates.load(Ordering::SeqCst)), (1, 3));
        let after = credentials.validity().unwrap();
        assert_ne!(after.public_key, before.public_key);
        assert_eq!(after.common_name, "system:node:n");
        assert!(credentials.is_good("n", Timestamp::now()) && due_in(&credentials, Timestamp::now()) > Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_issues_something_else_is_not_asked_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::serving(dir.path());
        let signer = Signer { nameless: true, ..Signer::new() };
        let (_sender, view) = watch::channel(at("10.0.0.1"));
        let running = serving(credentials.clone(), "n".into(), signer.client(), view, CancellationToken::new());
        assert!(tokio::time::timeout(Duration::from_secs(600), running).await.is_err());
        assert!(credentials.validity().unwrap().names.is_empty());
        let asked = signer.creates.load(Ordering::SeqCst);
        assert!((4..15).contains(&asked), "asked {asked} times");
    }

    /// A view of a node that has this address.
    fn at(address: &str) -> Arc<NodeView> {
        let node = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        Arc::new(NodeView { node: Some(Arc::new(serde_json::from_value(node).unwrap())), ..NodeView::default() })
    }

    /// Whoever denies a certificate for some addresses may issue one for others. What else changes of a Node, its
    /// heartbeat above all, is no reason to ask sooner.
    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_when_the_addresses_change() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::serving(dir.path());
        let signer = Signer { nameless: true, ..Signer::new() };
        let (sender, view) = watch::channel(at("10.0.0.1"));
        let running = serving(credentials.clone(), "n".into(), signer.client(), view, CancellationToken::new());
        let mut running = std::pin::pin!(running);
        // Until its pauses are the longest ones, and it is in the midst of one.
        let mut asked = 0;
        while tokio::time::timeout(LONGEST_PAUSE / 2, running.as_mut()).await.is_err() {
            let before = std::mem::replace(&mut asked, signer.creates.load(Ordering::SeqCst));
            if before == asked {
                break;
            }
        }
        for _ in 0..100 {
            sender.send_replace(at("10.0.0.1"));
            assert!(tokio::time::timeout(Duration::from_millis(1), running.as_mut()).await.is_err());
        }
        assert_eq!(signer.creates.load(Ordering::SeqCst), asked, "nothing it asks for has changed");
        sender.send_replace(at("10.0.0.2"));
        assert!(tokio::time::timeout(FIRST_PAUSE / 2, running.as_mut()).await.is_err());
        assert_eq!(signer.creates.load(Ordering::SeqCst), asked + 1);
        drop(sender);
        running.await;
    }

    /// A request that nobody answers is waited for, but not for a node that is somewhere else meanwhile.
    #[tokio::test(start_paused = true)]
    async fn an_unanswered_request_ends_when_the_addresses_change() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::serving(dir.path());
        let signer = Signer { silent: true, ..Signer::new() };
        let (sender, view) = watch::channel(at("10.0.0.1"));
        let running = serving(credentials.clone(), "n".into(), signer.client(), view, CancellationToken::new());
        let mut running = std::pin::pin!(running);
        assert!(tokio::time::timeout(Duration::from_secs(60), running.as_mut()).await.is_err());
        let asked = signer.creates.load(Ordering::SeqCst);
        sender.send_replace(at("10.0.0.2"));
        assert!(tokio::time::timeout(FIRST_PAUSE / 2, running.as_mut()).await.is_err());
        assert_eq!(signer.creates.load(Ordering::SeqCst), asked + 1);
    }
}
