//! APIs that other servers serve: which APIService leads where, and what is known of those servers
//! (k8s.io/kube-aggregator). A request finds its [`Remote`] here and is carried there by [`proxy`]; [`keep`] watches
//! what changes, asks the servers whether they live, and writes what it learns into the APIServices.
//!
//! What is decided without asking anybody is pure: [`check`], and `scheme::apiregistration`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde_json::Value;

use super::outbound::ServicePort;
use super::request_info::RequestInfo;
use super::serve::TlsError;
use identity::FrontProxy;
use scheme::Scheme;
use scheme::access::{at, int_at, str_at};
use scheme::apiregistration::is_available;
use scheme::discovery::Elsewhere;
use scheme::openapi::Part;

mod check;
mod identity;
mod keep;
mod openapi;
pub(super) mod proxy;
mod registration;
mod remote;

pub(super) use keep::{keep, reload};
pub(super) use openapi::Parts;
pub(super) use registration::{Moment, register};

/// Who asks for what this server wants to know itself.
const AGGREGATOR: &str = "system:kube-aggregator";

/// An APIService whose requests go to a Service.
#[derive(Debug)]
pub struct Remote {
    /// The APIService's name.
    pub name: String,
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Priorities of the group and of the version.
    pub priorities: (i32, i32),
    /// Where requests go.
    pub service: ServicePort,
    /// Whether they may, as its status says.
    pub available: bool,
    tls: Result<Arc<rustls::ClientConfig>, String>,
    /// What it was made of: while this is the same, so is the TLS.
    spec: Value,
}

impl Remote {
    /// Of an APIService that names a Service, and what was made of it before.
    fn new(service: &Value, front_proxy: &FrontProxy, before: Option<&Self>) -> Option<Self> {
        let spec = at(service, &["spec"]);
        let to = spec.get("service").filter(|to| to.is_object())?;
        let number = |field: &str| int_at(spec, &[field]).and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
        let tls = match before.filter(|before| before.spec == *spec) {
            Some(before) => before.tls.clone(),
            None => front_proxy.towards(spec).map_err(|error| full_text(&error)),
        };
        Some(Self {
            name: str_at(service, &["metadata", "name"]).to_owned(),
            group: str_at(spec, &["group"]).to_owned(),
            version: str_at(spec, &["version"]).to_owned(),
            priorities: (number("groupPriorityMinimum"), number("versionPriority")),
            service: ServicePort {
                namespace: str_at(to, &["namespace"]).to_owned(),
                name: str_at(to, &["name"]).to_owned(),
                port: int_at(to, &["port"]).and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            },
            available: is_available(service),
            tls,
            spec: spec.clone(),
        })
    }

    /// `/apis/GROUP/VERSION`.
    fn path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The name that the server's certificate has to have.
    fn server_name(&self) -> String {
        format!("{}.{}.svc", self.service.name, self.service.namespace)
    }
}

/// An error and what it comes from, in one line.
fn full_text(error: &TlsError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

/// What a server told when it was asked last.
#[derive(Debug, Default, Clone, PartialEq)]
struct Known {
    /// The resources of the group version; none when it did not answer.
    resources: Option<Arc<Value>>,
    /// Where version 3 of its OpenAPI document is, with the hash of its content.
    v3: Option<String>,
    /// Paths and definitions of version 2.
    v2: Option<Arc<Part>>,
}

/// The APIs that other servers serve, now.
#[derive(Debug)]
pub struct Aggregation {
    front_proxy: FrontProxy,
    remotes: ArcSwap<Vec<Arc<Remote>>>,
    known: ArcSwap<HashMap<String, Known>>,
    parts: Mutex<Option<Arc<Parts>>>,
}

impl Aggregation {
    /// Nothing yet. The certificate and its key, PEM, say that it is this server who asks.
    ///
    /// # Errors
    /// When they are no PEM.
    pub fn new(cert_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let front_proxy = FrontProxy::new(cert_pem, key_pem)?;
        Ok(Self { front_proxy, remotes: ArcSwap::default(), known: ArcSwap::default(), parts: Mutex::default() })
    }

    /// Shows servers another certificate, as soon as their APIServices are read again.
    ///
    /// # Errors
    /// When a PEM text is broken; then the old one stays.
    pub fn replace(&self, cert_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        self.front_proxy.replace(cert_pem, key_pem)?;
        // What was made with the old one is made anew.
        let before = self.remotes.load();
        let remotes = before.iter().map(|remote| {
            let tls = self.front_proxy.towards(&remote.spec).map_err(|error| full_text(&error));
            Arc::new(Remote {
                name: remote.name.clone(),
                group: remote.group.clone(),
                version: remote.version.clone(),
                service: remote.service.clone(),
                spec: remote.spec.clone(),
                tls,
                ..**remote
            })
        });
        self.remotes.store(Arc::new(remotes.collect()));
        Ok(())
    }

    /// Whoever serves a group version, if that is not this server. What is built in is never anybody else's.
    pub fn remote(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        self.remotes.load().iter().find(|remote| remote.group == group && remote.version == version).cloned()
    }

    /// Whoever answers a request, if that is not this server: of objects, of a group version's discovery, or of its
    /// OpenAPI document.
    pub fn of(&self, info: &RequestInfo) -> Option<Arc<Remote>> {
        if self.remotes.load().is_empty() {
            return None;
        }
        if info.is_resource {
            return self.remote(&info.group, &info.version);
        }
        let path = info.path.trim_matches('/');
        let (group, version) =
            path.strip_prefix("openapi/v3/").unwrap_or(path).strip_prefix("apis/")?.split_once('/')?;
        self.remote(group, version)
    }

    /// What discovery shows of them.
    pub fn elsewhere(&self) -> Vec<Elsewhere> {
        let known = self.known.load();
        let of = |remote: &Arc<Remote>| Elsewhere {
            group: remote.group.clone(),
            version: remote.version.clone(),
            priorities: remote.priorities,
            resources: known.get(&remote.name).and_then(|known| known.resources.clone()),
        };
        self.remotes.load().iter().map(of).collect()
    }

    /// What their servers add to the documents of a scheme; nothing when there is nothing.
    pub fn parts(&self, scheme: &Arc<Scheme>) -> Option<Arc<Parts>> {
        let known = self.known.load_full();
        let mut last = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parts) = last.as_ref().filter(|parts| parts.is_of(scheme, &known)) {
            return Some(parts.clone());
        }
        *last = Parts::new(scheme, known).map(Arc::new);
        last.clone()
    }

    /// Takes what was learnt of a server.
    fn learn(&self, name: &str, learnt: Option<Known>) {
        // What is as before leaves everything made of it as it is.
        if self.known.load().get(name) == learnt.as_ref() {
            return;
        }
        self.known.rcu(|known| {
            let mut next = HashMap::clone(known);
            match &learnt {
                Some(learnt) => drop(next.insert(name.to_owned(), learnt.clone())),
                None => drop(next.remove(name)),
            }
            next
        });
    }
}
