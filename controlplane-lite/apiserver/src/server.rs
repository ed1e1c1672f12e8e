//! The server's state, shared by all requests, and how it comes up.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::admission::{Chain, View};
use super::aggregation::Aggregation;
use super::allocate::Cidr;
use super::backends;
use super::components::Components;
use super::definitions::Definitions;
use super::flow::Flow;
use super::kubelet::{DialPolicy, KubeletTls};
use super::metrics::Metrics;
use super::outbound::ServicePort;
use super::priority::Priority;
use super::registry::{Registry, RegistryError, Resource};
use super::services::Services;
use auth::authn::{Authenticator, UserInfo};
use auth::authz::{Attributes, Authorizer};
use scheme::{Kind, Scheme, meta};
use storage::watch_cache::Filter;

/// Everything a request may need.
#[derive(Debug)]
pub struct Server {
    /// The kinds served, and the resources stored.
    pub registry: Registry,
    /// Who has a say in writes.
    pub admission: Chain,
    /// What Services hold.
    pub services: Arc<Services>,
    /// What is counted.
    pub metrics: Metrics,
    /// Who is asking.
    pub authn: Arc<dyn Authenticator>,
    /// May they.
    pub authz: Arc<dyn Authorizer>,
    /// Tokens and rules beyond the two questions above.
    pub access: Access,
    /// TLS towards kubelets.
    pub kubelet_tls: KubeletTls,
    /// TLS towards `https:` pods.
    pub unverified_tls: Arc<rustls::ClientConfig>,
    /// What other servers serve.
    pub aggregation: Aggregation,
    /// Cancelled when the server ends; open watches end with it.
    pub stopping: CancellationToken,
    /// How much of the server a request may hold.
    pub flow: Flow,
    /// What requests are told of their priority.
    pub priority: Priority,
    /// Events made for watches that want them in another form.
    pub watch_frames: super::verbs::watch::shared::Shared,
    /// What else answers under `/healthz` and `/metrics`.
    pub components: Components,
    /// The CustomResourceDefinitions, and what is served of them.
    pub definitions: Definitions,
    /// Woken when one may have to go.
    pub cleanup: tokio::sync::Notify,
    pub(super) service_cidr: Cidr,
    /// CAs whose client certificates are users, PEM.
    pub(super) client_cas: String,
    /// The CA of whoever says to aggregated APIs who asks, PEM.
    pub(super) front_proxy_ca: String,
    pub(super) advertise: (IpAddr, u16),
    pub(super) bootstrapped: AtomicBool,
}

impl Server {
    /// The time.
    pub fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    /// The time as objects carry it.
    pub fn now_text(&self) -> String {
        super::deletion::timestamp(self.now())
    }

    /// A random (version 4) UUID.
    pub fn new_uid(&self) -> String {
        random_uid()
    }

    /// Which addresses it connects to for others.
    pub fn dial_policy(&self) -> DialPolicy {
        DialPolicy { advertise: self.advertise, services: self.services.ranges() }
    }

    /// `host:port` as clients are told.
    pub fn advertised(&self) -> String {
        let (address, port) = self.advertise;
        std::net::SocketAddr::new(address, port).to_string()
    }

    /// Whether namespaces, roles and priority classes are in place.
    pub fn is_bootstrapped(&self) -> bool {
        self.bootstrapped.load(Ordering::Relaxed)
    }
}

/// A random (version 4) UUID.
pub(super) fn random_uid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = |range: std::ops::Range<usize>| bytes[range].iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
}

impl View for Server {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        Some(self.registry.get(group, plural)?.cache().get(namespace, name)?.value())
    }

    fn each_in(&self, group: &str, plural: &str, namespace: &str, visit: &mut dyn FnMut(&Value)) {
        if let Some(resource) = self.registry.get(group, plural) {
            resource.cache().for_each(&Filter::all().in_namespace(namespace), |object| visit(&object.value()));
        }
    }

    fn may(&self, user: &UserInfo, verb: &str, group: &str, resource: (&str, &str), name: &str) -> bool {
        let (plural, namespace) = resource;
        let asked = Attributes::resource(user.clone(), verb, group, plural, namespace);
        self.authz.authorize(&Attributes { name: name.to_owned(), ..asked }).allowed()
    }

    fn authorize(&self, asked: &Attributes) -> (bool, String) {
        let decision = self.authz.authorize(asked);
        (decision.allowed(), decision.reason)
    }

    fn is_own_audience(&self, audience: &str) -> bool {
        self.access.audiences().iter().any(|own| own == audience)
    }

    fn convert<'a>(&'a self, kind: &'a Kind, object: Value) -> BoxFuture<'a, Result<Value, String>> {
        Box::pin(async move {
            match self.registry.get(&kind.group, &kind.plural).and_then(|resource| resource.converter().cloned()) {
                Some(converter) => converter.convert_one(self, object, kind).await,
                None => Ok(object),
            }
        })
    }

    fn suffix(&self) -> String {
        meta::name_suffix(rand::random())
    }

    fn has(&self, group: &str, plural: &str, namespace: &str, name: &str) -> bool {
        self.registry.get(group, plural).is_some_and(|resource| resource.cache().get(namespace, name).is_some())
    }

    fn mentions(&self, group: &str, plural: &str, namespace: &str, name: &str, text: &str) -> Option<bool> {
        Some(self.registry.get(group, plural)?.cache().get(namespace, name)?.mentions(text))
    }

    /// Every create asks: the object's header says it, without a decode.
    fn is_ending(&self, namespace: &str) -> Option<bool> {
        let namespace = self.registry.get("", "namespaces")?.cache().get("", namespace)?;
        Some(namespace.deletion_timestamp().is_some() || namespace.field("status.phase") == Some("Terminating"))
    }

    fn scheme(&self) -> Arc<Scheme> {
        self.registry.served().scheme.clone()
    }

    fn endpoint(&self, service: &ServicePort) -> Result<SocketAddr, String> {
        backends::endpoint(self, service)
    }

    fn any_in(&self, group: &str, plural: &str, namespace: &str) -> bool {
        self.registry.get(group, plural).is_some_and(|resource| resource.cache().has_any_in(namespace))
    }

    fn stored(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.registry.get(group, plural)
    }

    fn fresh(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        self.registry.fresh().map_ok(drop).boxed()
    }
}
