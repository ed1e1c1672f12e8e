//! Admission: an ordered chain of pure plugins between authorization and storage, in upstream's default order.
//!
//! Plugins see the request, the object and a [`View`] of the cluster; they do no I/O. Doors without a plugin yet, in
//! their place in the order: LimitRanger (after NamespaceLifecycle), StorageObjectInUseProtection and
//! DefaultStorageClass (after Priority), webhooks and ResourceQuota (last).

use serde_json::Value;

use super::status::{ApiError, Subject};
use auth::authn::UserInfo;
use scheme::Kind;

mod certificates;
mod mountable_secrets;
mod namespace_lifecycle;
mod node_restriction;
mod nodes;
mod pod_security;
mod priority;
mod runtime_class;
mod service_account;
mod tolerations;
mod unbuilt;

/// What a request does to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a create-only subresource.
    Create,
    /// A changed object.
    Update,
    /// A removal; there is no new object.
    Delete,
}

/// The request as plugins see it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What happens.
    pub operation: Operation,
    /// To which kind.
    pub kind: &'static Kind,
    /// Through which subresource, empty for the object itself.
    pub subresource: &'a str,
    /// Namespace, empty when cluster-scoped.
    pub namespace: &'a str,
    /// Name; empty when generated.
    pub name: &'a str,
    /// On whose behalf.
    pub user: &'a UserInfo,
    /// The stored object, for update and delete.
    pub old: Option<&'a Value>,
}

impl Request<'_> {
    fn is(&self, group: &str, plural: &str) -> bool {
        self.kind.group == group && self.kind.plural == plural
    }

    /// 403 about the request's object, as admission errors are framed.
    pub fn forbidden(&self, why: impl AsRef<str>) -> ApiError {
        ApiError::forbidden(Subject::new(self.kind.group, self.kind.plural), self.name, why.as_ref())
    }
}

/// What plugins may read: the server's own caches.
pub trait View: Sync {
    /// The object at `group/plural` `namespace/name`.
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value>;
    /// All objects of a resource.
    fn list(&self, group: &str, plural: &str) -> Vec<Value>;
    /// Whether the user may do that to an object of a resource, in a namespace or (empty) the cluster.
    fn may(&self, user: &UserInfo, verb: &str, group: &str, resource: (&str, &str), name: &str) -> bool;
    /// Whether tokens for the audience are tokens for this API.
    fn is_own_audience(&self, audience: &str) -> bool;
    /// Five characters for generated names.
    fn suffix(&self) -> String;
}

type Plugin = fn(&Request<'_>, Option<&mut Value>, &dyn View) -> Result<(), ApiError>;

/// The chain, in order.
const CHAIN: [(&str, Plugin); 12] = [
    ("NamespaceLifecycle", namespace_lifecycle::admit),
    ("ServiceAccount", service_account::admit),
    ("NodeRestriction", node_restriction::admit),
    ("TaintNodesByCondition", nodes::admit),
    ("PodSecurity", pod_security::admit),
    ("Priority", priority::admit),
    ("DefaultTolerationSeconds", tolerations::admit),
    ("RuntimeClass", runtime_class::admit),
    ("CertificateApproval", certificates::approval),
    ("CertificateSigning", certificates::signing),
    ("CertificateSubjectRestriction", certificates::subject),
    ("Unbuilt", unbuilt::admit),
];

/// Runs the chain over `object` (absent for deletes).
///
/// # Errors
/// The first plugin's refusal.
pub fn admit(request: &Request<'_>, mut object: Option<&mut Value>, view: &dyn View) -> Result<(), ApiError> {
    CHAIN.iter().try_for_each(|(_, plugin)| plugin(request, object.as_deref_mut(), view))
}

/// The names of the plugins in effect, in order.
pub fn plugin_names() -> impl Iterator<Item = &'static str> {
    CHAIN.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests;
