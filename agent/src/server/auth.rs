//! Who asks, and whether they may: client certificates, TokenReview,
//! SubjectAccessReview.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Request, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::route;
use crate::config::{Authorization, ServerSettings};

/// Upstream's defaults: how long answers of the API server are believed.
const TOKEN_TTL: Duration = Duration::from_secs(120);
const ALLOW_TTL: Duration = Duration::from_secs(300);
const DENY_TTL: Duration = Duration::from_secs(30);
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Entries of a cache before it is thinned out.
const CACHE_SIZE: usize = 512;
/// The group that may do anything; no one needs to be asked.
const MASTERS: &str = "system:masters";

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// A request that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub message: String,
}

/// Who is at the other end of a connection, by the certificate that TLS has verified when it began.
/// Connections last; so the certificate's own time is looked at for each request, as upstream's x509
/// authenticator does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    identity: Identity,
    /// Seconds since the epoch, both included.
    valid: (i64, i64),
}

impl Peer {
    /// The user is the certificate's common name, the groups its organizations. `None` without a
    /// common name.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = parsed.subject().iter_organization().filter_map(|o| Some(o.as_str().ok()?.to_owned()));
        let mut groups: Vec<String> = groups.collect();
        groups.push("system:authenticated".into());
        let validity = parsed.validity();
        let valid = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Some(Self { identity: Identity { name, groups, ..Identity::default() }, valid })
    }

    /// The user, while the certificate holds.
    fn at(&self, now: Timestamp) -> Option<&Identity> {
        let (from, to) = self.valid;
        (from..=to).contains(&now.as_second()).then_some(&self.identity)
    }
}

/// Decides over requests.
pub struct Authenticator {
    client: Option<kube::Client>,
    node_name: String,
    authorization: Authorization,
    tokens_by_webhook: bool,
    anonymous: bool,
    tokens: Mutex<Cache<[u8; 32], Identity>>,
    decisions: Mutex<Cache<Question, Result<(), String>>>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("authorization", &self.authorization).finish_non_exhaustive()
    }
}

/// User, verb, subresource.
type Question = (Identity, &'static str, &'static str);

/// Answers by question, each with an end.
struct Cache<K, T>(HashMap<K, (Instant, T)>);

impl<K: Eq + Hash, T: Clone> Cache<K, T> {
    fn get(&self, key: &K) -> Option<T> {
        self.0.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, value)| value.clone())
    }

    fn put(&mut self, key: K, value: T, ttl: Duration) {
        let now = Instant::now();
        if self.0.len() >= CACHE_SIZE {
            self.0.retain(|_, (until, _)| now < *until);
        }
        if self.0.len() >= CACHE_SIZE {
            self.0.clear();
        }
        self.0.insert(key, (now + ttl, value));
    }
}

/// Tokens are kept as digests: the memory holds no secrets of others.
fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn locked<T>(cache: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unauthorized() -> Refusal {
    Refusal { status: StatusCode::UNAUTHORIZED, message: "Unauthorized".into() }
}

impl Authenticator {
    /// An authenticator by the server's settings.
    pub fn new(settings: &ServerSettings, client: Option<kube::Client>, node_name: &str) -> Self {
        Self {
            client,
            node_name: node_name.to_owned(),
            authorization: settings.authorization,
            tokens_by_webhook: settings.webhook_authentication,
            anonymous: settings.anonymous,
            tokens: Mutex::new(Cache(HashMap::new())),
            decisions: Mutex::new(Cache(HashMap::new())),
        }
    }

    /// Lets a request pass or says why not. `peer` comes from the connection's
    /// client certificate.
    pub async fn check<B>(&self, peer: Option<&Peer>, request: &Request<B>) -> Result<Identity, Refusal> {
        let user = self.authenticate(peer, request).await?;
        if user.groups.iter().any(|group| group == MASTERS) || self.authorization == Authorization::AlwaysAllow {
            return Ok(user);
        }
        let verb = route::verb(request.method().as_str());
        let mut denial = String::new();
        for subresource in route::subresources(request.uri().path()) {
            match self.authorize(&user, verb, subresource).await? {
                Ok(()) => return Ok(user),
                Err(reason) => denial = reason,
            }
        }
        let subresource = route::subresources(request.uri().path()).pop().unwrap_or("proxy");
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource={subresource}){}{denial}",
            user.name,
            if denial.is_empty() { "" } else { ": " },
        );
        Err(Refusal { status: StatusCode::FORBIDDEN, message })
    }

    async fn authenticate<B>(&self, peer: Option<&Peer>, request: &Request<B>) -> Result<Identity, Refusal> {
        if let Some(user) = peer.and_then(|peer| peer.at(Timestamp::now())) {
            return Ok(user.clone());
        }
        let header = request.headers().get(http::header::AUTHORIZATION);
        match header.and_then(|value| bearer(value.to_str().ok()?)) {
            Some(token) if self.tokens_by_webhook => self.review_token(token).await,
            Some(_) => Err(unauthorized()),
            // Whose certificate has ended is not nobody.
            None if self.anonymous && peer.is_none() => Ok(Identity {
                name: "system:anonymous".into(),
                groups: vec!["system:unauthenticated".into()],
                ..Identity::default()
            }),
            None => Err(unauthorized()),
        }
    }

    async fn review_token(&self, token: &str) -> Result<Identity, Refusal> {
        let key = digest(token);
        if let Some(user) = locked(&self.tokens).get(&key) {
            return Ok(user);
        }
        let Some(client) = &self.client else { return Err(unauthorized()) };
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(client.clone());
        let params = PostParams::default();
        let answer = tokio::time::timeout(ASK_TIMEOUT, api.create(&params, &review)).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(%error, "token review failed");
                return Err(unauthorized());
            }
            Err(_) => {
                tracing::warn!("token review took too long");
                return Err(unauthorized());
            }
        };
        let status = answer.status.filter(|status| status.authenticated == Some(true)).ok_or_else(unauthorized)?;
        let user = status.user.unwrap_or_default();
        let identity = Identity {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        };
        locked(&self.tokens).put(key, identity.clone(), TOKEN_TTL);
        Ok(identity)
    }

    async fn authorize(
        &self,
        user: &Identity,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<Result<(), String>, Refusal> {
        let question = (user.clone(), verb, subresource);
        if let Some(decision) = locked(&self.decisions).get(&question) {
            return Ok(decision);
        }
        let Some(client) = &self.client else { return Ok(Err("no API server to ask".into())) };
        let api: Api<SubjectAccessReview> = Api::all(client.clone());
        let review = self.access_review(user, verb, subresource);
        let params = PostParams::default();
        let failed = |message: String| {
            tracing::warn!(message, "access review failed");
            Refusal {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                message: format!(
                    "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                    user.name
                ),
            }
        };
        let answer = tokio::time::timeout(ASK_TIMEOUT, api.create(&params, &review)).await;
        let answer = answer.map_err(|_| failed("no answer in time".into()))?.map_err(|e| failed(e.to_string()))?;
        let status = answer.status.unwrap_or_default();
        let (decision, ttl) =
            if status.allowed { (Ok(()), ALLOW_TTL) } else { (Err(status.reason.unwrap_or_default()), DENY_TTL) };
        locked(&self.decisions).put(question, decision.clone(), ttl);
        Ok(decision)
    }

    fn access_review(&self, user: &Identity, verb: &str, subresource: &str) -> SubjectAccessReview {
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".into()),
            resource: Some("nodes".into()),
            subresource: Some(subresource.to_owned()),
            name: Some(self.node_name.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        SubjectAccessReview { spec, ..SubjectAccessReview::default() }
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

#[cfg(test)]
mod tests;
