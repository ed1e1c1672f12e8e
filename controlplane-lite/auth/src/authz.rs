//! Authorization: may this user do that? Owns the vocabulary ([`Attributes`],
//! [`Decision`]) and the chain of authorizers.

pub mod abac;
pub mod node;
pub mod rbac;

use std::sync::Arc;

use super::authn::{MASTERS, UserInfo};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub user: UserInfo,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
    /// `deletecollection`, `impersonate`, … or the lowercase HTTP method for
    /// non-resource requests.
    pub verb: String,
    pub resource_request: bool,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// The path of a non-resource request.
    pub path: String,
    /// Raw selectors of a list or watch, for authorizers that narrow by them.
    pub field_selector: String,
    pub label_selector: String,
}

impl Attributes {
    /// A request for a resource (no subresource, no name).
    pub fn resource(user: UserInfo, verb: &str, group: &str, resource: &str, namespace: &str) -> Self {
        Self {
            user,
            verb: verb.into(),
            resource_request: true,
            group: group.into(),
            version: "*".into(),
            resource: resource.into(),
            namespace: namespace.into(),
            ..Self::default()
        }
    }

    /// A request for a path that is no resource.
    pub fn non_resource(user: UserInfo, verb: &str, path: &str) -> Self {
        Self { user, verb: verb.into(), path: path.into(), ..Self::default() }
    }
}

/// An authorizer's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
    NoOpinion,
}

/// A verdict and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    pub reason: String,
}

impl Decision {
    /// Yes, because.
    pub fn allow(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Allow, reason: reason.into() }
    }

    /// No, whatever others say, because.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Deny, reason: reason.into() }
    }

    /// Ask someone else.
    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::NoOpinion, reason: reason.into() }
    }

    /// True for a yes.
    pub fn allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

/// Decides requests. Synchronous and without side effects: views answer from
/// memory. (A webhook authorizer will wrap the chain, not join it.)
pub trait Authorizer: Send + Sync + std::fmt::Debug {
    fn authorize(&self, attributes: &Attributes) -> Decision;
}

/// Authorizers in order: the first that allows or denies decides.
#[derive(Debug)]
pub struct Chain(pub Vec<Arc<dyn Authorizer>>);

impl Authorizer for Chain {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            let decision = authorizer.authorize(attributes);
            if decision.verdict != Verdict::NoOpinion {
                return decision;
            }
            if !decision.reason.is_empty() {
                reasons.push(decision.reason);
            }
        }
        Decision::no_opinion(reasons.join(", "))
    }
}

/// Allows `system:masters` everything, whatever the policy says, so that nobody
/// is locked out for good.
#[derive(Clone, Copy, Debug)]
pub struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(MASTERS) { Decision::allow("") } else { Decision::no_opinion("") }
    }
}

/// A way to authorize, as upstream's `--authorization-mode` names it (`pkg/kubeapiserver/authorizer/modes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Abac,
    Node,
    Rbac,
}

impl Mode {
    /// All that there are. (Webhook is not built.)
    pub const ALL: [Self; 5] = [Self::AlwaysAllow, Self::AlwaysDeny, Self::Abac, Self::Node, Self::Rbac];

    /// Upstream's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::AlwaysAllow => "AlwaysAllow",
            Self::AlwaysDeny => "AlwaysDeny",
            Self::Abac => "ABAC",
            Self::Node => "Node",
            Self::Rbac => "RBAC",
        }
    }
}

/// A word that is no [`Mode`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of AlwaysAllow, AlwaysDeny, ABAC, Node and RBAC")]
pub struct NoMode(String);

impl std::str::FromStr for Mode {
    type Err = NoMode;

    fn from_str(text: &str) -> Result<Self, NoMode> {
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or_else(|| NoMode(text.to_owned()))
    }
}

/// Allows nothing: `--authorization-mode=AlwaysDeny`.
#[derive(Clone, Copy, Debug)]
pub struct AlwaysDeny;

impl Authorizer for AlwaysDeny {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::no_opinion("Everything is forbidden.")
    }
}

/// Allows everything: `--authorization-mode=AlwaysAllow`.
#[derive(Clone, Copy, Debug)]
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::allow("")
    }
}
