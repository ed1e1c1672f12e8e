//! Admission, as upstream's chain: every plugin that mutates, in order, before the strategy prepares an object; every
//! plugin that validates, in order, once it is valid. `write` says when each phase is.
//!
//! A plugin sees the request, the object and a [`View`] of the cluster, and answers at once or, when it has to wait for
//! something, later: what is pure stays a plain function and costs no allocation. A plugin may be asked again, about a
//! newer state of the object or after others changed it, and must then come to the same end.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use super::outbound::ServicePort;
use super::registry::{RegistryError, Resource, ResourceName};
use auth::authn::UserInfo;
use auth::authz::Attributes;
use scheme::access::str_at;
use scheme::{FieldErrors, Kind, Scheme};

mod admin_access;
mod certificates;
mod chain;
mod context;
mod default_classes;
mod limit_ranger;
mod mountable_secrets;
mod namespace_lifecycle;
mod node_restriction;
mod nodes;
mod on_nodes;
mod optional;
mod pod_security;
pub mod policies;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage;
mod tolerations;
mod unbuilt;
pub mod webhooks;

pub(crate) use chain::in_order;
pub use chain::{Chain, Plugin, Selection};
pub use context::{Memory, Options};

/// What a request does to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a create-only subresource.
    Create,
    /// A changed object.
    Update,
    /// A removal; there is no new object.
    Delete,
    /// A connection; the object is its options.
    Connect,
}

impl Operation {
    /// As upstream writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// The request as plugins see it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What happens.
    pub operation: Operation,
    /// To which kind, as it is stored.
    pub kind: &'a Kind,
    /// The kind that the request names, which may be another version of it.
    pub served: &'a Kind,
    /// The kind of the object at hand, which through a subresource may be another.
    pub body: &'a Kind,
    /// Through which subresource, empty for the object itself.
    pub subresource: &'a str,
    /// Namespace, empty when cluster-scoped.
    pub namespace: &'a str,
    /// Name; empty while it is to be generated.
    pub name: &'a str,
    /// On whose behalf.
    pub user: &'a UserInfo,
    /// The stored object, for update and delete.
    pub old: Option<&'a Value>,
    /// Whether nothing will be stored: a plugin leaves no trace of it elsewhere, either.
    pub dry_run: bool,
    /// Whether this is the second round of mutation, which follows a [raw](Mutated::Raw) change in the first.
    pub again: bool,
    /// What else the request says.
    pub options: Options<'a>,
    /// What plugins remember from one round to the next.
    pub memory: &'a Memory,
}

impl Request<'_> {
    fn is(&self, group: &str, plural: &str) -> bool {
        self.kind.group == group && self.kind.plural == plural
    }

    /// A refusal about the request's object.
    pub fn forbidden(&self, why: impl Into<String>) -> Refusal {
        let resource = ResourceName::of(self.kind);
        Refusal::Forbidden { resource, name: self.name.to_owned(), why: why.into(), cause: None }
    }
}

/// Why a request is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A plugin's rule.
    #[error("{resource} {name:?}: {why}")]
    Forbidden {
        /// What the request is about.
        resource: ResourceName,
        /// Its name, empty when it has none yet.
        name: String,
        /// The rule.
        why: String,
        /// What programs read.
        cause: Option<Box<Cause>>,
    },
    /// Something that it needs is not there.
    #[error("{resource} {name:?} is not there")]
    NotFound {
        /// Of this resource.
        resource: ResourceName,
        /// Of this name.
        name: String,
    },
    /// Fields that a plugin cannot make sense of.
    #[error("{kind} {name:?} is invalid")]
    Invalid {
        /// Group of the object.
        group: &'static str,
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What is wrong.
        errors: FieldErrors,
    },
    /// A plugin's own answer: a `Status` with code, reason, message and details.
    #[error("denied: {0}")]
    Denied(Box<Value>),
    /// A request that a plugin can make nothing of.
    #[error("{0}")]
    Bad(String),
    /// A plugin that failed.
    #[error("{0}")]
    Failed(String),
    /// Whether it may be admitted could not be found out.
    #[error("look at the cluster")]
    Unknown(#[from] RegistryError),
}

/// What programs read of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Upstream's cause type.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The field it is about.
    pub field: &'static str,
}

/// What plugins may read: the server's own caches.
pub trait View: Send + Sync {
    /// The object at `group/plural` `namespace/name`.
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value>;
    /// Shows the objects of a resource in a namespace or (empty) everywhere, one at a time.
    fn each_in(&self, group: &str, plural: &str, namespace: &str, visit: &mut dyn FnMut(&Value));
    /// Whether the user may do that to an object of a resource, in a namespace or (empty) the cluster.
    fn may(&self, user: &UserInfo, verb: &str, group: &str, resource: (&str, &str), name: &str) -> bool;
    /// Whether what is asked is allowed, and why.
    fn authorize(&self, asked: &Attributes) -> (bool, String) {
        let _ = asked;
        (false, String::new())
    }
    /// Whether tokens for the audience are tokens for this API.
    fn is_own_audience(&self, audience: &str) -> bool;
    /// Five characters for generated names.
    fn suffix(&self) -> String;
    /// Whether there is such an object.
    fn has(&self, group: &str, plural: &str, namespace: &str, name: &str) -> bool {
        self.get(group, plural, namespace, name).is_some()
    }
    /// Whether the object there, if there is one, has this text in it: most do not have what is rare, and need not be
    /// decoded then.
    fn mentions(&self, group: &str, plural: &str, namespace: &str, name: &str, text: &str) -> Option<bool> {
        self.get(group, plural, namespace, name).map(|object| object.to_string().contains(text))
    }
    /// Whether a namespace is ending; nothing when it cannot be seen.
    fn is_ending(&self, namespace: &str) -> Option<bool> {
        let namespace = self.get("", "namespaces", "", namespace)?;
        let terminating = str_at(&namespace, &["status", "phase"]) == "Terminating";
        Some(terminating || !namespace["metadata"]["deletionTimestamp"].is_null())
    }
    /// The kinds served, now.
    fn scheme(&self) -> Arc<Scheme> {
        scheme::builtin().clone()
    }
    /// A custom resource in the version of a kind, as whoever converts such objects says; as it is where that is nobody.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn convert<'a>(&'a self, _kind: &'a Kind, object: Value) -> BoxFuture<'a, Result<Value, String>> {
        Box::pin(std::future::ready(Ok(object)))
    }
    /// Where a ready endpoint of a Service's port is.
    ///
    /// # Errors
    /// Why there is none, in upstream's words.
    fn endpoint(&self, service: &ServicePort) -> Result<SocketAddr, String> {
        Err(format!("service {:?} not found", service.name))
    }
    /// Whether a namespace has any object of a resource: asked with every request, so it has to cost next to nothing.
    fn any_in(&self, group: &str, plural: &str, namespace: &str) -> bool {
        let mut any = false;
        self.each_in(group, plural, namespace, &mut |_| any = true);
        any
    }
    /// The resource stored as `group/plural`, for who writes there on its own account. Nothing where nothing is stored.
    fn stored(&self, _group: &str, _plural: &str) -> Option<Arc<Resource>> {
        None
    }
    /// Waits until every write that was answered before can be seen here.
    fn fresh(&self) -> BoxFuture<'_, Result<(), RegistryError>>;
}

/// What a plugin answers.
#[must_use = "a plugin's refusal has to be heeded"]
pub enum Answer<'a, T> {
    /// At once.
    Now(Result<T, Refusal>),
    /// When it has found out.
    Later(BoxFuture<'a, Result<T, Refusal>>),
}

impl<T> std::fmt::Debug for Answer<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Now(Ok(_)) => "Now(Ok)",
            Self::Now(Err(_)) => "Now(Err)",
            Self::Later(_) => "Later",
        })
    }
}

/// What a plugin did to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutated {
    /// Nothing.
    No,
    /// It wrote fields whole, with all that defaults would add to them.
    Whole,
    /// It wrote as clients do: defaults are due, and the other plugins look once more, as upstream after its webhooks.
    Raw,
}

/// A plugin that changes objects (upstream's `MutationInterface`); it may refuse them, too.
pub trait Mutating: Send + Sync {
    /// Changes `object`, which is absent for deletes.
    fn mutate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a mut Value>,
        view: &'a dyn View,
    ) -> Answer<'a, Mutated>;
}

/// A plugin that judges what is about to be stored (upstream's `ValidationInterface`).
pub trait Validating: Send + Sync {
    /// Judges `object`, which is absent for deletes.
    fn validate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a Value>,
        view: &'a dyn View,
    ) -> Answer<'a, ()>;
}

impl<F> Mutating for F
where
    F: Fn(&Request<'_>, Option<&mut Value>, &dyn View) -> Result<Mutated, Refusal> + Send + Sync,
{
    fn mutate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a mut Value>,
        view: &'a dyn View,
    ) -> Answer<'a, Mutated> {
        Answer::Now(self(request, object, view))
    }
}

impl<F> Validating for F
where
    F: Fn(&Request<'_>, Option<&Value>, &dyn View) -> Result<(), Refusal> + Send + Sync,
{
    fn validate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a Value>,
        view: &'a dyn View,
    ) -> Answer<'a, ()> {
        Answer::Now(self(request, object, view))
    }
}

#[cfg(test)]
mod tests;
