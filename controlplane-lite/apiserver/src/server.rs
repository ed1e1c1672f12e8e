//! The server's state, shared by all requests, and how it comes up.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::admission::View;
use super::allocate::Cidr;
use super::call::Call;
use super::components::Components;
use super::documents::Documents;
use super::flow::Flow;
use super::kubelet::{KubeletTls, Own};
use super::metrics::Metrics;
use super::registry::Registry;
use super::services::Services;
use super::status::ApiError;
use auth::authn::{Authenticator, UserInfo};
use auth::authz::{Attributes, Authorizer};
use scheme::access::str_at;
use scheme::{Scheme, meta};
use storage::watch_cache::Filter;

/// Everything a request may need.
#[derive(Debug)]
pub struct Server {
    /// The kinds served.
    pub scheme: &'static Scheme,
    /// The resources stored.
    pub registry: Registry,
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
    /// Cancelled when the server ends; open watches end with it.
    pub stopping: CancellationToken,
    /// How much of the server a request may hold.
    pub flow: Flow,
    /// What else answers under `/healthz` and `/metrics`.
    pub components: Components,
    pub(super) documents: Documents,
    pub(super) service_cidr: Cidr,
    /// CAs whose client certificates are users, PEM.
    pub(super) client_cas: String,
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
        let mut bytes: [u8; 16] = rand::random();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex = |range: std::ops::Range<usize>| bytes[range].iter().map(|b| format!("{b:02x}")).collect::<String>();
        format!("{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
    }

    /// What this server is.
    pub fn own(&self) -> Own {
        Own { advertise: self.advertise, services: self.service_cidr }
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

    /// Admission reads caches, which follow the store by a moment. When they do not show what a create needs, they get
    /// the time to catch up with every write answered before.
    ///
    /// # Errors
    /// 504 when they do not.
    pub async fn ensure_namespace_seen(&self, call: &Call) -> Result<(), ApiError> {
        if call.info.namespace.is_empty() {
            return Ok(());
        }
        let namespace = call.info.namespace.as_str();
        let seen = |plural: &str, namespace: &str, name: &str| {
            self.registry.get("", plural).is_some_and(|r| r.cache().get(namespace, name).is_some())
        };
        let account = call.kind.plural != "pods" || seen("serviceaccounts", namespace, "default");
        if !(account && seen("namespaces", "", namespace)) {
            self.registry.fresh().await?;
        }
        Ok(())
    }
}

/// How often, and how many times, a namespace's own account is looked for.
const ACCOUNT_RETRY: std::time::Duration = std::time::Duration::from_millis(100);
const ACCOUNT_TRIES: usize = 10;

impl Server {
    /// A pod that comes right after its namespace waits a moment for the account that a controller makes there, as
    /// upstream's admission does.
    pub async fn wait_for_default_account(&self, call: &Call, pod: &Value) {
        let is_pod = call.kind.group.is_empty() && call.kind.plural == "pods" && call.info.subresource.is_empty();
        let account = str_at(pod, &["spec", "serviceAccountName"]);
        if !is_pod || !matches!(account, "" | "default") || auth::pod::is_mirror(pod) {
            return;
        }
        let namespace = call.info.namespace.as_str();
        let seen = |plural: &str, namespace: &str, name: &str| {
            self.registry.get("", plural).is_some_and(|r| r.cache().get(namespace, name).is_some())
        };
        for _ in 0..ACCOUNT_TRIES {
            if seen("serviceaccounts", namespace, "default") || !seen("namespaces", "", namespace) {
                return;
            }
            tokio::time::sleep(ACCOUNT_RETRY).await;
        }
    }
}

impl View for Server {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        Some(self.registry.get(group, plural)?.cache().get(namespace, name)?.value())
    }

    fn list(&self, group: &str, plural: &str) -> Vec<Value> {
        let mut found = Vec::new();
        if let Some(resource) = self.registry.get(group, plural) {
            resource.cache().for_each(&Filter::all(), |object| found.push(object.value()));
        }
        found
    }

    fn may(&self, user: &UserInfo, verb: &str, group: &str, resource: (&str, &str), name: &str) -> bool {
        let (plural, namespace) = resource;
        let asked = Attributes::resource(user.clone(), verb, group, plural, namespace);
        self.authz.authorize(&Attributes { name: name.to_owned(), ..asked }).allowed()
    }

    fn is_own_audience(&self, audience: &str) -> bool {
        self.access.audiences().iter().any(|own| own == audience)
    }

    fn suffix(&self) -> String {
        meta::name_suffix(rand::random())
    }
}
