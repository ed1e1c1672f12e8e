//! Services as pods see them in their environment: a watch that keeps names,
//! addresses and ports and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::convert::service_env::ServiceLink;
use crate::ids::ObjectName;

fn key(service: &Service) -> ObjectName {
    let meta = &service.metadata;
    ObjectName::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Keeps `out` at the present Services until cancelled; `None` until all are
/// known.
pub async fn run(client: kube::Client, out: watch::Sender<Option<Arc<Vec<ServiceLink>>>>, token: CancellationToken) {
    let api: Api<Service> = Api::all(client);
    let mut stream = watcher::watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut links: BTreeMap<ObjectName, ServiceLink> = BTreeMap::new();
    let mut listing = false;
    loop {
        let event = tokio::select! {
            () = token.cancelled() => return,
            // Cancel-safe: an event is lost only when it is received.
            event = stream.next() => event,
        };
        match event {
            Some(Ok(Event::Init)) => {
                listing = true;
                links.clear();
            }
            Some(Ok(Event::InitApply(service) | Event::Apply(service))) => {
                match ServiceLink::of(&service) {
                    Some(link) => links.insert(key(&service), link),
                    None => links.remove(&key(&service)),
                };
            }
            Some(Ok(Event::InitDone)) => listing = false,
            Some(Ok(Event::Delete(service))) => {
                links.remove(&key(&service));
            }
            Some(Err(error)) => tracing::debug!(%error, "services not watched"),
            None => return,
        }
        let now: Vec<ServiceLink> = if listing { continue } else { links.values().cloned().collect() };
        out.send_if_modified(|old| {
            let same = old.as_ref().is_some_and(|o| **o == now);
            if !same {
                *old = Some(Arc::new(now));
            }
            !same
        });
    }
}
