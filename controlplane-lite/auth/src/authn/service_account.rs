//! Service-account tokens: issuing and verifying the JWTs upstream's servers use,
//! bound to a pod, secret or node, with audiences and an expiry; and those that lie in Secrets.

mod claims;
mod legacy;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Authenticated, Authenticator, AuthnError, BoundKind, Clock, Credentials, Found, Lookup, UserInfo, bearer};
pub use claims::{Claims, Private, Reference};
use pki::ServiceAccountKey;

/// Tolerated difference of clocks, and how long a deleted object's tokens live on.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
/// Verified tokens remembered, so that a signature is checked once.
const REMEMBERED: usize = 1024;

/// What to put into a token.
#[derive(Clone, Debug)]
pub struct TokenSpec<'t> {
    pub namespace: &'t str,
    pub account: Reference,
    /// Empty for the API's own.
    pub audiences: &'t [String],
    pub lifetime: SignedDuration,
    /// When its user should have fetched a new one, if earlier than the expiry.
    pub warn_after: Option<SignedDuration>,
    pub pod: Option<Reference>,
    pub secret: Option<Reference>,
    pub node: Option<Reference>,
    /// A random id, for audits.
    pub id: String,
}

/// A token that was issued.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    pub token: String,
    pub expires: Timestamp,
}

/// Why a token cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("use service account key")]
    Key(#[source] jsonwebtoken::errors::Error),
    #[error("sign token")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// Issues and verifies tokens with one key.
pub struct TokenIssuer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
    point: Vec<u8>,
    issuer: String,
    audiences: Vec<String>,
    verified: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl std::fmt::Debug for TokenIssuer {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenIssuer")
            .field("issuer", &self.issuer)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl TokenIssuer {
    /// `issuer` is the URL in `iss`, `audiences` what the API itself answers to
    /// (upstream: the issuer).
    pub fn new(key: &ServiceAccountKey, issuer: &str, audiences: Vec<String>) -> Result<Self, IssueError> {
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(key.private_pem.as_bytes()).map_err(IssueError::Key)?,
            decoding: DecodingKey::from_ec_pem(key.public_pem.as_bytes()).map_err(IssueError::Key)?,
            key_id: URL_SAFE_NO_PAD.encode(Sha256::digest(&key.public_der)),
            point: key.point.clone(),
            issuer: issuer.into(),
            audiences,
            verified: Mutex::default(),
        })
    }

    /// What the API itself answers to.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The URL in `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs a token.
    pub fn issue(&self, spec: &TokenSpec<'_>, now: Timestamp) -> Result<IssuedToken, IssueError> {
        let expires = now.checked_add(spec.lifetime).unwrap_or(Timestamp::MAX);
        let audiences = if spec.audiences.is_empty() { &self.audiences } else { spec.audiences };
        let claims = Claims {
            aud: audiences.to_vec(),
            exp: expires.as_second(),
            iat: now.as_second(),
            nbf: now.as_second(),
            iss: self.issuer.clone(),
            jti: spec.id.clone(),
            sub: format!("system:serviceaccount:{}:{}", spec.namespace, spec.account.name),
            private: Private {
                namespace: spec.namespace.into(),
                serviceaccount: spec.account.clone(),
                pod: spec.pod.clone(),
                secret: spec.secret.clone(),
                node: spec.node.clone(),
                warnafter: spec.warn_after.map(|after| now.as_second().saturating_add(after.as_secs())),
            },
        };
        let header = Header { kid: Some(self.key_id.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(IssueError::Sign)?;
        Ok(IssuedToken { token, expires })
    }

    /// The claims of a token this key signed; `None` for what is no token of this
    /// issuer. Neither expiry nor audience nor objects are looked at.
    fn claims(&self, token: &str) -> Result<Option<Arc<Claims>>, AuthnError> {
        let refuse = |error: jsonwebtoken::errors::Error| AuthnError::Token(error.to_string());
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(claims) = self.remembered().get(&digest) {
            return Ok(Some(claims.clone()));
        }
        // Someone else's token is for another authenticator, not an error.
        match jsonwebtoken::dangerous::insecure_decode_claims::<Value>(token) {
            Ok(claims) if claims["iss"] == self.issuer.as_str() => {}
            _ => return Ok(None),
        }
        let mut validation = Validation::new(Algorithm::ES256);
        // Times and audiences are judged below, with our clock, each time.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation).map_err(refuse)?;
        let claims = Arc::new(decoded.claims);
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(digest, claims.clone());
        Ok(Some(claims))
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Arc<Claims>>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Verifies a token for `audiences` (empty: the API's own) and says whose it
    /// is. `None` when another issuer made it.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        lookup: &dyn Lookup,
        now: Timestamp,
    ) -> Result<Option<Authenticated>, AuthnError> {
        let Some(claims) = self.claims(token)? else { return Ok(None) };
        let refuse = |reason: &str| AuthnError::Token(reason.to_owned());
        let second = now.as_second();
        if second > claims.exp.saturating_add(LEEWAY.as_secs()) {
            return Err(refuse("service account token has expired"));
        }
        if second < claims.nbf.saturating_sub(LEEWAY.as_secs()) {
            return Err(refuse("service account token is not valid yet"));
        }
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let common: Vec<_> = claims.aud.iter().filter(|audience| wanted.contains(audience)).cloned().collect();
        if common.is_empty() {
            return Err(AuthnError::Token(format!("invalid audience: the token is for {:?}", claims.aud)));
        }
        let private = &claims.private;
        if claims.sub != format!("system:serviceaccount:{}:{}", private.namespace, private.serviceaccount.name) {
            return Err(refuse("subject and service account claims do not match"));
        }
        let bound = |kind, reference: Option<&Reference>, namespace: &str| match reference {
            Some(reference) => still_there(lookup.find(kind, namespace, &reference.name), reference, kind, now),
            None => Ok(()),
        };
        bound(BoundKind::ServiceAccount, Some(&private.serviceaccount), &private.namespace)?;
        bound(BoundKind::Pod, private.pod.as_ref(), &private.namespace)?;
        bound(BoundKind::Secret, private.secret.as_ref(), &private.namespace)?;
        if private.pod.is_none() {
            // The node of a pod's token only says where it runs.
            bound(BoundKind::Node, private.node.as_ref(), "")?;
        }
        Ok(Some(Authenticated { user: claims.user(), audiences: common }))
    }

    /// The public key as `/openid/v1/jwks` shows it.
    pub fn jwks(&self) -> Value {
        let (x, y) = self.point.split_at(self.point.len() / 2);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }

    /// The document at `/.well-known/openid-configuration`.
    pub fn openid_configuration(&self, jwks_uri: &str) -> Value {
        json!({
            "issuer": self.issuer, "jwks_uri": jwks_uri, "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

fn still_there(found: Option<Found>, reference: &Reference, kind: BoundKind, now: Timestamp) -> Result<(), AuthnError> {
    let refuse = |reason: &str| Err(AuthnError::Token(format!("{kind:?} {} {reason}", reference.name)));
    match found {
        None => refuse("has been deleted"),
        Some(found) if !reference.uid.is_empty() && found.uid != reference.uid => refuse("has been replaced"),
        Some(Found { deleted: Some(at), .. }) if now.duration_since(at) > LEEWAY => refuse("has been deleted"),
        Some(_) => Ok(()),
    }
}

/// Accepts the issuer's tokens for the API's audiences.
#[derive(Debug)]
pub struct ServiceAccountAuthenticator {
    issuer: Arc<TokenIssuer>,
    lookup: Arc<dyn Lookup>,
    clock: Clock,
}

impl ServiceAccountAuthenticator {
    /// Over the cluster's objects.
    pub fn new(issuer: Arc<TokenIssuer>, lookup: Arc<dyn Lookup>, clock: Clock) -> Self {
        Self { issuer, lookup, clock }
    }
}

#[async_trait]
impl Authenticator for ServiceAccountAuthenticator {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Option<Authenticated>, AuthnError> {
        let Some(token) = bearer(credentials) else { return Ok(None) };
        match self.issuer.verify(token, &[], &*self.lookup, (self.clock)())? {
            Some(found) => Ok(Some(found)),
            None => self.issuer.verify_of_secret(token, &*self.lookup),
        }
    }
}

impl Claims {
    /// The user these claims stand for.
    fn user(&self) -> UserInfo {
        let private = &self.private;
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", private.namespace)];
        let mut user = UserInfo { uid: private.serviceaccount.uid.clone(), ..UserInfo::new(&self.sub, groups) };
        let mut extra = |name: &str, value: &str| {
            if !value.is_empty() {
                user.extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value.to_owned()]);
            }
        };
        if !self.jti.is_empty() {
            extra("credential-id", &format!("JTI={}", self.jti));
        }
        if let Some(pod) = &private.pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = &private.node {
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        user
    }
}
