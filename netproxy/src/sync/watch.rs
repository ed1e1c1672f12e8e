//! Watches → [`Change`]s on a channel. Converts each object at once, so that nothing but the
//! compact form is ever kept; a relist arrives as one change that replaces everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cidr::Cidr4;
use crate::snapshot::convert::{
    LABEL_HEADLESS, LABEL_SERVICE_PROXY_NAME, service_name, service_ports, slice_content, slice_key, trigger_time,
};
use crate::snapshot::{Change, ServiceName, ServicePort, Slice};

const LABEL_ZONE: &str = "topology.kubernetes.io/zone";
const TAINT_TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What a watch saw.
#[derive(Debug)]
pub enum Seen {
    /// A change of the snapshot, and when what it carries began (milliseconds since 1970).
    Change(Change, Option<i64>),
    /// This node.
    Node {
        /// The zone it is in.
        zone: Option<Box<str>>,
        /// Whether load balancers may use it.
        eligible: bool,
        /// Its part of the pod network.
        pod_cidr: Option<Cidr4>,
    },
}

type Sender = mpsc::Sender<Seen>;

/// Starts the watches; they end when `token` is cancelled or nobody receives any more.
pub fn spawn(client: &Client, node_name: &str, sender: Sender, token: &CancellationToken) {
    let (node, token) = (node_name.to_owned(), token.clone());
    tokio::spawn(until(token.clone(), services(client.clone(), sender.clone())));
    tokio::spawn(until(token.clone(), slices(client.clone(), node.clone(), sender.clone())));
    tokio::spawn(until(token, this_node(client.clone(), node, sender)));
}

async fn until(token: CancellationToken, work: impl Future<Output = ()>) {
    // Nothing is lost when a watch is dropped half-way: the next start lists anew.
    let _ = token.run_until_cancelled(work).await;
}

/// Sends what `read` makes of a watch's events until the receiver is gone. Errors are the
/// watcher's to retry, with its back-off; each run of them is logged once.
async fn pump<K, F>(api: Api<K>, config: watcher::Config, what: &'static str, sender: Sender, mut read: F)
where
    K: kube::Resource + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + 'static,
    F: FnMut(Event<K>) -> Option<Seen>,
{
    let mut stream = watch(api, config).default_backoff().boxed();
    let mut failing = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                failing = false;
                if let Some(seen) = read(event)
                    && sender.send(seen).await.is_err()
                {
                    return;
                }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(what, error = %error, "watch failed, retrying");
                }
                failing = true;
            }
        }
    }
}

async fn services(client: Client, sender: Sender) {
    let config = watcher::Config::default().labels(&format!("!{LABEL_SERVICE_PROXY_NAME}"));
    let mut listing: BTreeMap<ServiceName, Vec<ServicePort>> = BTreeMap::new();
    let read = move |event: Event<Service>| {
        let change = match event {
            Event::Init => {
                listing.clear();
                None
            }
            Event::InitApply(service) => {
                listing.extend(service_name(&service).map(|name| (name, service_ports(&service))));
                None
            }
            Event::InitDone => Some(Change::AllServices(std::mem::take(&mut listing).into_iter().collect())),
            Event::Apply(service) => service_name(&service).map(|name| Change::Service(name, service_ports(&service))),
            Event::Delete(service) => service_name(&service).map(Change::ServiceGone),
        };
        change.map(|change| Seen::Change(change, None))
    };
    pump(Api::<Service>::all(client), config, "services", sender, read).await;
}

async fn slices(client: Client, node_name: String, sender: Sender) {
    let selector = format!("!{LABEL_SERVICE_PROXY_NAME},!{LABEL_HEADLESS}");
    let config = watcher::Config::default().labels(&selector);
    let mut listing: BTreeMap<(ServiceName, Arc<str>), Slice> = BTreeMap::new();
    let read = move |event: Event<EndpointSlice>| match event {
        Event::Init => {
            listing.clear();
            None
        }
        Event::InitApply(slice) => {
            listing.extend(slice_key(&slice).map(|key| (key, slice_content(&slice, &node_name))));
            None
        }
        Event::InitDone => {
            let all = std::mem::take(&mut listing).into_iter();
            let all = all.map(|((service, slice), content)| (service, slice, content)).collect();
            Some(Seen::Change(Change::AllSlices(all), None))
        }
        Event::Apply(slice) => {
            let (service, name) = slice_key(&slice)?;
            let content = slice_content(&slice, &node_name);
            Some(Seen::Change(Change::Slice(service, name, content), trigger_time(&slice)))
        }
        Event::Delete(slice) => {
            let (service, name) = slice_key(&slice)?;
            Some(Seen::Change(Change::SliceGone(service, name), None))
        }
    };
    pump(Api::<EndpointSlice>::all(client), config, "endpointslices", sender, read).await;
}

async fn this_node(client: Client, node_name: String, sender: Sender) {
    let config = watcher::Config::default().fields(&format!("metadata.name={node_name}"));
    let read = |event: Event<Node>| match event {
        Event::Init | Event::InitDone => None,
        Event::InitApply(node) | Event::Apply(node) => {
            let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ZONE));
            let zone = zone.filter(|zone| !zone.is_empty()).map(|zone| zone.as_str().into());
            Some(Seen::Node { zone, eligible: is_eligible(&node), pod_cidr: pod_cidr(&node) })
        }
        Event::Delete(_) => Some(Seen::Node { zone: None, eligible: false, pod_cidr: None }),
    };
    pump(Api::<Node>::all(client), config, "node", sender, read).await;
}

/// The IPv4 network among the node's, `None` while it has none.
fn pod_cidr(node: &Node) -> Option<Cidr4> {
    let spec = node.spec.as_ref()?;
    spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr).find_map(|text| text.parse().ok())
}

/// As upstream: a node that is being deleted, or that the autoscaler is about to delete, wants no
/// new connections from load balancers.
fn is_eligible(node: &Node) -> bool {
    let tainted = node.spec.as_ref().and_then(|s| s.taints.as_ref()).into_iter().flatten();
    node.metadata.deletion_timestamp.is_none() && !tainted.into_iter().any(|t| t.key == TAINT_TO_BE_DELETED)
}
