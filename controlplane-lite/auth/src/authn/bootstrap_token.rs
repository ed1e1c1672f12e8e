//! Bootstrap tokens: `ID.SECRET`, kept as Secrets in `kube-system`, with which a
//! node joins.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::{Authenticated, Authenticator, AuthnError, Clock, Credentials, Lookup, UserInfo, bearer, same_secret};

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Extra groups of a token must start with this.
const GROUP_PREFIX: &str = "system:bootstrappers:";

/// Accepts bootstrap tokens.
#[derive(Debug)]
pub struct BootstrapTokenAuthenticator {
    lookup: Arc<dyn Lookup>,
    clock: Clock,
}

impl BootstrapTokenAuthenticator {
    /// Over the cluster's Secrets.
    pub fn new(lookup: Arc<dyn Lookup>, clock: Clock) -> Self {
        Self { lookup, clock }
    }
}

/// The parts of a token, when it has the form of one.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let made_of = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && made_of(id) && made_of(secret)).then_some((id, secret))
}

/// The user a Secret makes of a token; `None` when it does not.
pub fn user_of(stored: &Value, id: &str, secret: &str, now: Timestamp) -> Option<UserInfo> {
    let field = |name: &str| {
        let bytes = STANDARD.decode(stored["data"][name].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let live = stored["type"] == SECRET_TYPE && stored["metadata"]["deletionTimestamp"].is_null();
    let is_it = field("token-id")? == id && same_secret(field("token-secret")?.as_bytes(), secret.as_bytes());
    let unexpired = match field("expiration") {
        // An unreadable time has passed.
        Some(text) => text.parse::<Timestamp>().is_ok_and(|at| at > now),
        None => true,
    };
    let enabled = field("usage-bootstrap-authentication").is_some_and(|usage| usage == "true");
    if !(live && is_it && unexpired && enabled) {
        return None;
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    for group in field("auth-extra-groups").unwrap_or_default().split(',').filter(|group| !group.is_empty()) {
        if !group.starts_with(GROUP_PREFIX) {
            return None;
        }
        groups.push(group.to_owned());
    }
    Some(UserInfo::new(format!("system:bootstrap:{id}"), groups))
}

#[async_trait]
impl Authenticator for BootstrapTokenAuthenticator {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Option<Authenticated>, AuthnError> {
        let Some((id, secret)) = bearer(credentials).and_then(parse) else { return Ok(None) };
        let Some(stored) = self.lookup.secret(NAMESPACE, &format!("bootstrap-token-{id}")) else { return Ok(None) };
        let user = user_of(&stored, id, secret, (self.clock)());
        Ok(user.map(|user| Authenticated { user, audiences: Vec::new() }))
    }
}
