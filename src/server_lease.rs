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
        let present = own.leases.get_opt(NAME).await.context("read who serves")?;
        if let Some(Held::By { holder, renewed }) = present.as_ref().map(|lease| held(lease, id)) {
            tracing::warn!(holder, "another server used this etcd; waiting whether it still does");
            sleep(EXPIRY).await;
            let later = own.leases.get_opt(NAME).await.context("read who serves")?;
            let unchanged = Held::By { holder: holder.clone(), renewed };
            if later.as_ref().is_some_and(|lease| ![Held::Free, unchanged].contains(&held(lease, id))) {
                bail!("the server {holder} uses this etcd: two at once are not supported yet; end that one first");
            }
        }
        own.renew().await.context("take the Lease of the server")?;
        Ok(own)
    }

    async fn renew(&self) -> Result<()> {
        let present = self.leases.get_opt(NAME).await?;
        if let Some(Held::By { holder, .. }) = present.as_ref().map(|lease| held(lease, &self.id))
            && present.as_ref().and_then(|lease| lease.spec.as_ref()).is_some_and(|spec| spec.holder_identity.is_some())
        {
            tracing::info!(holder, "taking over from a server that is gone");
        }
        let lease = taken(present.clone(), &self.id, Timestamp::now());
        match present {
            None => self.leases.create(&PostParams::default(), &lease).await?,
            // With its resourceVersion: whoever was quicker has it.
            Some(_) => self.leases.replace(NAME, &PostParams::default(), &lease).await?,
        };
        Ok(())
    }

    /// Renews until `token` is cancelled.
    ///
    /// # Errors
    /// That another server took the Lease.
    pub async fn keep(self, token: CancellationToken) -> Result<()> {
        while token.run_until_cancelled(sleep(RENEW)).await.is_some() {
            match self.leases.get_opt(NAME).await {
                Ok(Some(lease)) => {
                    if let Held::By { holder, .. } = held(&lease, &self.id) {
                        bail!("the server {holder} took over this etcd");
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "the Lease of the server cannot be read");
                    continue;
                }
            }
            if let Err(error) = self.renew().await {
                tracing::warn!(error = %format!("{error:#}"), "the Lease of the server is not renewed");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
}
