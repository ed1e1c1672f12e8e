//! Pods bound to this node, from the API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use tokio_util::sync::CancellationToken;

use super::PodOrigin;
use super::merge::Merger;
use crate::ids::PodUid;

/// Drops what nobody here reads.
fn slim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
}

/// Watches until cancelled. A new list replaces the set only when it is whole.
pub async fn run(client: kube::Client, node_name: &str, merger: Merger, token: CancellationToken) {
    let api: Api<Pod> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
    let mut stream = watcher::watcher(api, config).default_backoff().boxed();
    let mut list: BTreeMap<PodUid, Arc<Pod>> = BTreeMap::new();
    loop {
        let event = tokio::select! {
            () = token.cancelled() => return,
            // Cancel-safe: an event is lost only when it is received.
            event = stream.next() => event,
        };
        match event {
            Some(Ok(event)) => handle(event.modify(slim), &mut list, &merger),
            Some(Err(error)) => tracing::debug!(%error, "pods not watched"),
            None => return,
        }
    }
}

fn handle(event: Event<Pod>, list: &mut BTreeMap<PodUid, Arc<Pod>>, merger: &Merger) {
    match event {
        Event::Init => list.clear(),
        Event::InitApply(pod) => {
            list.insert(PodUid::of(&pod), Arc::new(pod));
        }
        Event::InitDone => merger.replace(PodOrigin::Api, std::mem::take(list)),
        Event::Apply(pod) => merger.apply(PodOrigin::Api, Arc::new(pod)),
        Event::Delete(pod) => merger.remove(PodOrigin::Api, &PodUid::of(&pod)),
    }
}
