//! Authentication: turns the credentials of a request into a [`UserInfo`]. Owns
//! the authenticators and their order; the TLS layer verifies certificate chains.

pub mod bootstrap_token;
pub mod files;
pub mod impersonation;
pub mod service_account;
pub mod x509;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

/// Every authenticated user is in this group.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of the anonymous user.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Who may do everything.
pub const MASTERS: &str = "system:masters";
/// All nodes: the organization of their client certificates.
pub use pki::NODES;

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

    /// A service account, as its tokens authenticate it.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        Self::new(format!("system:serviceaccount:{namespace}:{name}"), groups)
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
    /// The client's certificate, verified by the TLS layer against the cluster CA.
    pub certificate: Option<&'r x509::ClientCertificate>,
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

/// What exists in the cluster, for credentials that are bound to objects.
pub trait Lookup: Send + Sync + std::fmt::Debug {
    /// The uid and deletion time of an object; `None` when it is not there.
    fn find(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<Found>;
    /// A Secret, decoded from its JSON but with `data` still in base64.
    fn secret(&self, namespace: &str, name: &str) -> Option<serde_json::Value>;
}

/// What a token can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BoundKind {
    ServiceAccount,
    Pod,
    Secret,
    Node,
}

/// An object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub uid: String,
    /// When it is gone for those who hold its token.
    pub deleted: Option<Timestamp>,
}

/// Tells the time; injected, so that tests need not wait.
pub type Clock = fn() -> Timestamp;

/// Where anonymous requests may go unless configured otherwise: health, and what who wants to join has to know.
pub const ANONYMOUS_PATHS: [&str; 5] =
    ["/healthz", "/livez", "/readyz", "/version", "/api/v1/namespaces/kube-public/configmaps/cluster-info"];

/// All authenticators of a server, in upstream's order: certificate, tokens, basic,
/// anonymous. A bearer token nobody accepts is an error, not an anonymous user.
#[derive(Debug, Default)]
pub struct Union {
    /// Asked first, whatever the request carries.
    pub certificates: Option<Arc<dyn Authenticator>>,
    /// Asked in order about bearer tokens.
    pub tokens: Vec<Arc<dyn Authenticator>>,
    /// Asked about user names and passwords.
    pub basic: Option<Arc<dyn Authenticator>>,
    /// Paths anonymous requests may ask for; a path allows what lies below it.
    pub anonymous_paths: Vec<String>,
}

#[async_trait]
impl Authenticator for Union {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Option<Authenticated>, AuthnError> {
        if let Some(certificates) = &self.certificates
            && let Some(found) = certificates.authenticate(credentials).await?
        {
            return Ok(Some(found));
        }
        if bearer(credentials).is_some() {
            let mut refused = AuthnError::NotAccepted;
            for authenticator in &self.tokens {
                match authenticator.authenticate(credentials).await {
                    Ok(Some(found)) => return Ok(Some(found)),
                    Ok(None) => {}
                    Err(error) => refused = error,
                }
            }
            return Err(refused);
        }
        if let Some(basic) = &self.basic
            && let Some(found) = basic.authenticate(credentials).await?
        {
            return Ok(Some(found));
        }
        let allowed = |path: &String| {
            credentials.path.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let user = || Authenticated { user: UserInfo::anonymous(), audiences: Vec::new() };
        Ok(self.anonymous_paths.iter().any(allowed).then(user))
    }
}

/// The bearer token of a request; an empty one counts as none.
pub fn bearer(credentials: Credentials<'_>) -> Option<&str> {
    let (scheme, token) = credentials.authorization?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Compares secrets without telling by the time where they differ.
fn same_secret(one: &[u8], other: &[u8]) -> bool {
    use sha2::{Digest, Sha256};
    // Hashes of equal length, so that neither length nor position shows.
    let (one, other) = (Sha256::digest(one), Sha256::digest(other));
    one.iter().zip(other.iter()).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests;
