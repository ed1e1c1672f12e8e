//! One server per etcd: caches, allocations and controllers of a second one would not know of the
//! first's. Who serves holds a Lease and renews it. Clocks of two machines are not compared: a holder
//! that does not renew while one watches is gone.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "copepod-server";
/// How often it is renewed, and how long one that is not counts, as upstream's leader election.
const RENEW: Duration = Duration::from_secs(5);
const EXPIRY: Duration = Duration::from_secs(15);

/// The Lease, held by the server with this id.
#[derive(Clone)]
#[allow(missing_debug_implementations)] // A client shows nothing of itself.
pub struct ServerLease {
    leases: Api<Lease>,
    id: String,
}

/// What a Lease means to the server `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    /// By nobody, or by an earlier process of the same server.
    Free,
    By {
        holder: String,
        renewed: Option<MicroTime>,
    },
}

fn held(lease: &Lease, id: &str) -> Held {
    let spec = lease.spec.clone().unwrap_or_default();
    match spec.holder_identity.filter(|holder| !holder.is_empty() && holder != id) {
        Some(holder) => Held::By { holder, renewed: spec.renew_time },
        None => Held::Free,
    }
}

fn taken(lease: Option<Lease>, id: &str, now: Timestamp) -> Lease {
    let mut lease = lease.unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(id.to_owned()),
        lease_duration_seconds: i32::try_from(EXPIRY.as_secs()).ok(),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    });
    lease
}

impl ServerLease {
    /// Takes the Lease.
    ///
    /// # Errors
    /// That another server has it and renews it.
    pub async fn take(client: Client, id: &str) -> Result<Self> {
        let own = Self { leases: Api::namespaced(client, NAMESPACE), id: id.to_owned() };
        let mut judged = own.leases.get_opt(NAME).await.context("read who serves")?;
        if let Some(Held::By { holder, renewed }) = judged.as_ref().map(|lease| held(lease, id)) {
            tracing::warn!(holder, "another server used this etcd; waiting whether it still does");
            sleep(EXPIRY).await;
            judged = own.leases.get_opt(NAME).await.context("read who serves")?;
            let unchanged = Held::By { holder: holder.clone(), renewed };
            if judged.as_ref().is_some_and(|lease| ![Held::Free, unchanged].contains(&held(lease, id))) {
                bail!("the server {holder} uses this etcd: two at once are not supported yet; end that one first");
            }
            tracing::info!(holder, "taking over from a server that is gone");
        }
        own.write(judged).await.context("take the Lease of the server")?;
        Ok(own)
    }

    /// Writes itself into the Lease that was judged, and into no other: whoever was quicker has it, since the
    /// resourceVersion is that of what was read.
    async fn write(&self, judged: Option<Lease>) -> Result<()> {
        let exists = judged.is_some();
        let lease = taken(judged, &self.id, Timestamp::now());
        if exists {
            self.leases.replace(NAME, &PostParams::default(), &lease).await?;
        } else {
            self.leases.create(&PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    /// Renews until `token` is cancelled.
    ///
    /// # Errors
    /// That another server took the Lease.
    pub async fn keep(self, token: CancellationToken) -> Result<()> {
        while token.run_until_cancelled(sleep(RENEW)).await.is_some() {
            let judged = match self.leases.get_opt(NAME).await {
                Ok(judged) => judged,
                Err(error) => {
                    tracing::warn!(%error, "the Lease of the server cannot be read");
                    continue;
                }
            };
            if let Some(Held::By { holder, .. }) = judged.as_ref().map(|lease| held(lease, &self.id)) {
                bail!("the server {holder} took over this etcd");
            }
            if let Err(error) = self.write(judged).await {
                tracing::warn!(error = %format!("{error:#}"), "the Lease of the server is not renewed");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_lease_is_free_for_its_holder_and_when_nobody_holds_it() {
        let lease = taken(None, "a", Timestamp::UNIX_EPOCH);
        assert_eq!(held(&lease, "a"), Held::Free);
        let by_a = Held::By { holder: "a".to_owned(), renewed: Some(MicroTime(Timestamp::UNIX_EPOCH)) };
        assert_eq!(held(&lease, "b"), by_a);
        assert_eq!(held(&Lease::default(), "b"), Held::Free);
        let renewed = taken(Some(lease), "a", Timestamp::UNIX_EPOCH + jiff::Span::new().seconds(5));
        assert_ne!(held(&renewed, "b"), by_a, "a renewal is seen");
    }

    /// One Lease at a server, which another server takes right after it was read for the n-th time.
    struct Etcd {
        lease: Mutex<Value>,
        reads: AtomicUsize,
        taken_after: usize,
    }

    impl Etcd {
        fn holding(holder: &str, taken_after: usize) -> Arc<Self> {
            let metadata = json!({"name": NAME, "namespace": NAMESPACE, "resourceVersion": "1"});
            let lease = json!({"metadata": metadata, "spec": {"holderIdentity": holder}});
            Arc::new(Self { lease: Mutex::new(lease), reads: AtomicUsize::new(0), taken_after })
        }

        fn answer(&self, request: &http::Request<Body>, sent: &[u8]) -> (u16, Value) {
            let mut lease = self.lease.lock().unwrap();
            let before = lease.clone();
            if request.method() == http::Method::GET {
                if self.reads.fetch_add(1, Ordering::SeqCst) + 1 == self.taken_after {
                    lease["spec"]["holderIdentity"] = json!("b");
                    lease["metadata"]["resourceVersion"] = json!("2");
                }
                return (200, before);
            }
            let new: Value = serde_json::from_slice(sent).unwrap();
            if new["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
                return (409, json!({"status": "Failure", "message": "", "reason": "Conflict", "code": 409}));
            }
            *lease = new.clone();
            (200, new)
        }

        fn client(self: &Arc<Self>) -> Client {
            let etcd = self.clone();
            let service = tower::service_fn(move |request: http::Request<Body>| {
                let etcd = etcd.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let sent = body.collect_bytes().await.unwrap();
                    let (code, answer) = etcd.answer(&http::Request::from_parts(parts, Body::empty()), &sent);
                    http::Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()))
                }
            });
            Client::new(service, "default")
        }

        fn holder(&self) -> Value {
            self.lease.lock().unwrap()["spec"]["holderIdentity"].clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_took_the_lease_while_it_was_being_renewed_keeps_it() {
        // Read once to take it, and then for each renewal.
        let etcd = Etcd::holding("a", 3);
        let lease = ServerLease::take(etcd.client(), "a").await.unwrap();
        let error = lease.keep(CancellationToken::new()).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), etcd.holder()), ("the server b took over this etcd", json!("b")));
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_wait_for_a_dead_one_the_quicker_has_the_lease() {
        let etcd = Etcd::holding("dead", 2);
        assert!(ServerLease::take(etcd.client(), "a").await.is_err());
        assert_eq!(etcd.holder(), json!("b"));
        let etcd = Etcd::holding("dead", 0);
        ServerLease::take(etcd.client(), "a").await.unwrap();
        assert_eq!(etcd.holder(), json!("a"));
    }
}
