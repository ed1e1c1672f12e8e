//! Authentication: turns the credentials of a request into a [`UserInfo`]. Owns
//! the authenticators and their order; the TLS layer verifies certificate chains.

use std::collections::BTreeMap;

use async_trait::async_trait;

/// Every authenticated user is in this group.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of the anonymous user.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Who may do everything.
pub const MASTERS: &str = "system:masters";
/// All nodes.
pub const NODES: &str = "system:nodes";

/// An authenticated (or anonymous) caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UserInfo {
    pub username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user with groups, `system:authenticated` among them.
    pub fn new<G: Into<String>>(username: impl Into<String>, groups: impl IntoIterator<Item = G>) -> Self {
        let mut user = Self { username: username.into(), ..Self::default() };
        user.groups.extend(groups.into_iter().map(Into::into));
        user.authenticated()
    }

    /// `system:anonymous`.
    pub fn anonymous() -> Self {
        Self { username: "system:anonymous".into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// The kubelet of a node.
    pub fn node(name: &str) -> Self {
        Self::new(format!("system:node:{name}"), [NODES])
    }

    /// True when the user is in the group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|have| have == group)
    }

    /// The node's name when this is a kubelet.
    pub fn node_name(&self) -> Option<&str> {
        self.username.strip_prefix("system:node:").filter(|name| !name.is_empty() && self.in_group(NODES))
    }

    /// Adds `system:authenticated`, except to the anonymous user.
    #[must_use]
    pub fn authenticated(mut self) -> Self {
        if !self.in_group(AUTHENTICATED) && !self.in_group(UNAUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }
}

/// The credentials a request carries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'r> {
    /// The client's certificate chain, leaf first, DER, as verified by the TLS
    /// layer against the cluster CA.
    pub peer_certificates: &'r [Vec<u8>],
    /// The `Authorization` header as it came.
    pub authorization: Option<&'r str>,
    /// The request's path, for which anonymous access may be allowed.
    pub path: &'r str,
}

/// A caller, and the audiences the credentials are good for (empty: the API's own).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    pub user: UserInfo,
    pub audiences: Vec<String>,
}

/// One way to authenticate.
#[async_trait]
pub trait Authenticator: Send + Sync + std::fmt::Debug {
    /// `Ok(None)` when the credentials are not of this authenticator's kind.
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Option<Authenticated>, AuthnError>;
}

/// Why credentials were refused. The text is for the server's log: clients are
/// told only that they are unauthorized.
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    #[error("client certificate: {0}")]
    Certificate(String),
    #[error("token: {0}")]
    Token(String),
    #[error("basic authentication: {0}")]
    Basic(String),
    #[error("look up {0}")]
    Lookup(String),
    #[error("no authenticator accepted the credentials")]
    NotAccepted,
}
