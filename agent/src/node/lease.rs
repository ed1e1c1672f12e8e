//! The node's Lease: a small write now and then that says "alive".

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where node leases live.
pub const NAMESPACE: &str = "kube-node-lease";
const MAX_RETRY: Duration = Duration::from_secs(7);

fn owner(node: &Node) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// The lease renewed at `now`; built anew or upon the one that is there.
pub fn renewed(base: Option<Lease>, node: &Node, duration: Duration, now: Timestamp) -> Lease {
    let name = node.metadata.name.clone().unwrap_or_default();
    let mut lease = base.unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    lease.metadata.owner_references = Some(vec![owner(node)]);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(name),
        lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
        renew_time: Some(MicroTime(now)),
        ..lease.spec.take().unwrap_or_default()
    });
    lease
}

/// Renews four times per duration until cancelled. The owner is the node as it
/// is now: one that was deleted and made again has another UID, and without a node there is no
/// lease, as upstream (component-helpers/apimachinery/lease/controller.go, `ensureLease`).
pub async fn run(
    client: kube::Client,
    name: String,
    mut nodes: watch::Receiver<Option<Arc<Node>>>,
    duration: Duration,
    token: CancellationToken,
) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut known: Option<Lease> = None;
    let mut failures = 0_u32;
    loop {
        let there = tokio::select! {
            () = token.cancelled() => return,
            there = nodes.wait_for(Option::is_some) => there.ok().and_then(|node| node.clone()),
        };
        let Some(node) = there else { return };
        let write = async {
            if known.is_none() {
                known = api.get_opt(&name).await?;
            }
            let exists = known.is_some();
            let lease = renewed(known.take(), &node, duration, Timestamp::now());
            let params = PostParams::default();
            if exists { api.replace(&name, &params, &lease).await } else { api.create(&params, &lease).await }
        };
        let written = tokio::select! {
            () = token.cancelled() => return,
            written = tokio::time::timeout(duration / 4, write) => written,
        };
        let pause = match written {
            Ok(Ok(lease)) => {
                known = Some(lease);
                failures = 0;
                duration / 4
            }
            other => {
                // Whatever is there now, look at it anew.
                known = None;
                failures += 1;
                let error = other.map(|r| r.err().map(|e| e.to_string()));
                tracing::debug!(?error, "lease not renewed");
                Duration::from_millis(200).saturating_mul(1 << failures.min(6)).min(MAX_RETRY)
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lease_keeps_what_others_wrote() {
        let node: Node = serde_norway::from_str("metadata: {name: n, uid: u}").unwrap();
        let now = Timestamp::from_second(7).unwrap();
        let lease = renewed(None, &node, Duration::from_secs(40), now);
        let spec = lease.spec.clone().unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("n"), Some(40)));
        let mut old = lease;
        old.metadata.resource_version = Some("9".into());
        old.spec.as_mut().unwrap().lease_transitions = Some(3);
        let again = renewed(Some(old), &node, Duration::from_secs(40), now);
        assert_eq!(again.metadata.resource_version.as_deref(), Some("9"));
        assert_eq!(again.spec.as_ref().unwrap().lease_transitions, Some(3));
        let mut reborn = node;
        reborn.metadata.uid = Some("u2".into());
        let lease = renewed(Some(again), &reborn, Duration::from_secs(40), now);
        assert_eq!(lease.metadata.owner_references.unwrap()[0].uid, "u2");
    }
}
