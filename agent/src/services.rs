//! Services as pods see them in their environment: a watch that keeps names, addresses and ports and
//! nothing else, each once. Whatever else a Service holds, it is not read and cannot keep others from
//! being known: no container starts before all of them are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::convert::service_env::{LinkPort, ServiceLink};
use crate::ids::ObjectName;

/// The links of all Services. A copy of it shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceLinks(BTreeMap<ObjectName, Arc<ServiceLink>>);

impl ServiceLinks {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &ServiceLink> {
        self.0.values().map(|link| &**link)
    }

    /// Takes in how a Service is now; tells whether its link changed.
    fn apply(&mut self, name: ObjectName, link: Option<ServiceLink>) -> bool {
        match link {
            Some(link) if self.0.get(&name).is_some_and(|known| **known == link) => false,
            Some(link) => {
                self.0.insert(name, Arc::new(link));
                true
            }
            None => self.0.remove(&name).is_some(),
        }
    }
}

/// A Service, of which only the name and the link are kept. Reading one never fails.
#[derive(Clone, Debug)]
struct Linked {
    meta: ObjectMeta,
    link: Option<ServiceLink>,
}

impl<'de> Deserialize<'de> for Linked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::read(&Value::deserialize(deserializer)?))
    }
}

impl Linked {
    fn read(value: &Value) -> Self {
        let text = |field: &str| value["metadata"][field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Self { link: link(&meta, &value["spec"]), meta }
    }

    fn name(&self) -> ObjectName {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        ObjectName::new(text(&self.meta.namespace).as_str(), text(&self.meta.name).as_str())
    }
}

/// The link of a Service that has an address of its own and ports.
fn link(meta: &ObjectMeta, spec: &Value) -> Option<ServiceLink> {
    let cluster_ip = spec["clusterIP"].as_str().filter(|ip| !ip.is_empty() && *ip != "None")?;
    let port = |port: &Value| {
        Some(LinkPort {
            name: port["name"].as_str().unwrap_or_default().to_owned(),
            protocol: port["protocol"].as_str().filter(|p| !p.is_empty()).unwrap_or("TCP").to_owned(),
            port: i32::try_from(port["port"].as_i64()?).ok()?,
        })
    };
    let ports: Vec<LinkPort> = spec["ports"].as_array()?.iter().filter_map(port).collect();
    (!ports.is_empty()).then(|| ServiceLink {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        cluster_ip: cluster_ip.to_owned(),
        ports,
    })
}

impl kube::Resource for Linked {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Service".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "services".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// Keeps `out` at the present Services until cancelled; `None` until all are
/// known.
pub async fn run(client: kube::Client, out: watch::Sender<Option<Arc<ServiceLinks>>>, token: CancellationToken) {
    let api: Api<Linked> = Api::all(client);
    let mut stream = watcher::watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut listed = ServiceLinks::default();
    loop {
        let event = tokio::select! {
            () = token.cancelled() => return,
            // Cancel-safe: an event is lost only when it is received.
            event = stream.next() => event,
        };
        match event {
            Some(Ok(Event::Init)) => listed = ServiceLinks::default(),
            Some(Ok(Event::InitApply(service))) => drop(listed.apply(service.name(), service.link)),
            Some(Ok(Event::InitDone)) => {
                let listed = std::mem::take(&mut listed);
                out.send_if_modified(|known| {
                    let same = known.as_deref() == Some(&listed);
                    *known = Some(Arc::new(listed));
                    !same
                });
            }
            Some(Ok(Event::Apply(service))) => change(&out, service.name(), service.link),
            Some(Ok(Event::Delete(service))) => change(&out, service.name(), None),
            Some(Err(error)) => tracing::debug!(%error, "services not watched"),
            None => return,
        }
    }
}

/// One Service changed: in place, unless somebody holds what was known before.
fn change(out: &watch::Sender<Option<Arc<ServiceLinks>>>, name: ObjectName, link: Option<ServiceLink>) {
    out.send_if_modified(|known| known.as_mut().is_some_and(|known| Arc::make_mut(known).apply(name, link)));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use http_body_util::Full;
    use serde_json::json;

    use super::*;

    fn service(name: &str, ip: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "ns", "resourceVersion": "1", "creationTimestamp": null},
            "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80, "protocol": null}]},
            "status": {"conditions": [{"type": "X", "status": "True", "lastTransitionTime": null}]}})
    }

    #[test]
    fn links_are_of_services_with_an_address_and_ports() {
        let read = |value: Value| Linked::read(&value).link.map(|link| (link.cluster_ip, link.ports));
        let port = |protocol: &str| LinkPort { name: "http".into(), protocol: protocol.into(), port: 80 };
        assert_eq!(read(service("a", "10.0.0.1")), Some(("10.0.0.1".to_owned(), vec![port("TCP")])));
        let mut udp = service("a", "10.0.0.1");
        udp["spec"]["ports"][0]["protocol"] = json!("UDP");
        assert_eq!(read(udp), Some(("10.0.0.1".to_owned(), vec![port("UDP")])));
        for (field, value) in [("clusterIP", json!("None")), ("clusterIP", json!("")), ("ports", json!([]))] {
            let mut service = service("a", "10.0.0.1");
            service["spec"][field] = value;
            assert_eq!(read(service), None);
        }
        assert_eq!(read(json!({"metadata": {"name": "external"}, "spec": {"type": "ExternalName"}})), None);
        assert_eq!(read(json!(7)), None);
    }

    #[test]
    fn a_change_copies_nothing_that_nobody_holds() {
        let (out, rx) = watch::channel(Some(Arc::new(ServiceLinks::default())));
        let one = |ip: &str| Linked::read(&service("a", ip));
        let put = |linked: Linked| change(&out, linked.name(), linked.link);
        put(one("10.0.0.1"));
        let place = Arc::as_ptr(rx.borrow().as_ref().unwrap());
        put(one("10.0.0.2"));
        assert_eq!(Arc::as_ptr(rx.borrow().as_ref().unwrap()), place);
        let held = rx.borrow().clone().unwrap();
        put(one("10.0.0.3"));
        assert_eq!(held.iter().next().unwrap().cluster_ip, "10.0.0.2", "what is held stays as it was");
        assert_eq!(rx.borrow().as_ref().unwrap().iter().next().unwrap().cluster_ip, "10.0.0.3");
        change(&out, one("").name(), None);
        assert_eq!(rx.borrow().as_ref().unwrap().iter().count(), 0);
    }

    /// Containers wait for the first list: it must not fail for one object.
    #[tokio::test]
    async fn a_service_that_makes_no_sense_keeps_no_other_from_being_known() {
        let server = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
            if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                std::future::pending::<()>().await;
            }
            let mut odd = service("odd", "10.0.0.9");
            odd["spec"]["ports"] = json!("many");
            odd["metadata"]["ownerReferences"] = json!("nobody");
            let list = json!({"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"},
                "items": [service("a", "10.0.0.1"), odd, null, service("b", "10.0.0.2")]});
            Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(list.to_string()))))
        });
        let (out, mut rx) = watch::channel(None);
        let token = CancellationToken::new();
        let running = tokio::spawn(run(kube::Client::new(server, "default"), out, token.clone()));
        let known = rx.wait_for(Option::is_some);
        let known = harness::time::within("a list", known).await.unwrap().unwrap().clone();
        let names: Vec<_> = known.unwrap().iter().map(|link| link.name.clone()).collect();
        assert_eq!(names, ["a", "b"]);
        token.cancel();
        running.await.unwrap();
    }
}
