//! Tokens of service accounts as a source of projected volumes: asked for, kept, and renewed in time;
//! upstream's pkg/kubelet/token and pkg/volume/projected.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use tokio::time::Instant;

use super::atomic_volume::Source;
use super::plugins::SetUpError;
use super::spec::check_path;
use crate::ids::ObjectName;
use crate::objectcache::ObjectReader;

/// No token is used longer than this without asking for a new one.
const LONGEST_USE: Duration = Duration::from_secs(24 * 3600);
/// How soon a token that could not be renewed, and is valid still, is asked for again.
const RETRY: Duration = Duration::from_secs(30);

/// A token bound to the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenFile {
    pub audience: Option<String>,
    /// Seconds.
    pub expiration: i64,
    pub path: String,
}

/// The source of a projected volume.
pub(super) fn source(asked: &ServiceAccountTokenProjection) -> Result<Source, String> {
    check_path(&asked.path)?;
    Ok(Source::ServiceAccountToken(TokenFile {
        audience: asked.audience.clone().filter(|a| !a.is_empty()),
        expiration: asked.expiration_seconds.unwrap_or(3600),
        path: asked.path.clone(),
    }))
}

/// A token that was handed out, and when to ask for the next.
#[derive(Clone)]
struct IssuedToken {
    data: Vec<u8>,
    /// When to ask for a new one: after 80 % of its life, at most a day.
    refresh_at: Instant,
    expires_at: Instant,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("refresh_at", &self.refresh_at).finish_non_exhaustive()
    }
}

/// Tokens of one volume, by file path.
#[derive(Debug, Default)]
pub(super) struct Tokens(HashMap<String, IssuedToken>);

impl Tokens {
    /// When one is to be asked for, if ever.
    pub fn refresh_at(&self) -> Option<Instant> {
        self.0.values().map(|token| token.refresh_at).min()
    }

    /// The token in use while it is young enough, else a new one; an old one
    /// that is still valid does when none can be had.
    pub async fn token(
        &mut self,
        file: &TokenFile,
        pod: &Pod,
        reader: &dyn ObjectReader,
    ) -> Result<Vec<u8>, SetUpError> {
        let now = Instant::now();
        if let Some(token) = self.0.get(&file.path).filter(|token| now < token.refresh_at) {
            return Ok(token.data.clone());
        }
        let error = match reader.service_account_token(&account(pod), &request(file, pod)).await {
            Ok(answer) => {
                let token = issued(answer, file.expiration, now)?;
                let data = token.data.clone();
                self.0.insert(file.path.clone(), token);
                return Ok(data);
            }
            Err(error) => error,
        };
        if let Some(token) = self.0.get_mut(&file.path).filter(|token| now < token.expires_at) {
            token.refresh_at = now + RETRY;
            return Ok(token.data.clone());
        }
        let text = format!("failed to fetch token: {error}");
        Err(if error.is_not_found() { SetUpError::Missing(text) } else { SetUpError::Unavailable(text) })
    }
}

fn account(pod: &Pod) -> ObjectName {
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).filter(|n| !n.is_empty());
    ObjectName::new(pod.metadata.namespace.as_deref().unwrap_or("default"), account.unwrap_or("default"))
}

fn request(file: &TokenFile, pod: &Pod) -> TokenRequestSpec {
    TokenRequestSpec {
        audiences: Some(file.audience.iter().cloned().collect()),
        expiration_seconds: Some(file.expiration),
        bound_object_ref: Some(BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        }),
    }
}

fn issued(answer: TokenRequest, asked_seconds: i64, now: Instant) -> Result<IssuedToken, SetUpError> {
    let empty = || SetUpError::Unavailable("failed to fetch token: empty answer".into());
    let status = answer.status.ok_or_else(empty)?;
    let text = status.token.filter(|token| !token.is_empty()).ok_or_else(empty)?;
    let left = status.expiration_timestamp.map(|at| at.0.as_second() - Timestamp::now().as_second());
    // A clock that stands wrong must not make us ask without pause.
    let life = left.filter(|left| *left > 60).unwrap_or(asked_seconds.max(60));
    let life = Duration::from_secs(u64::try_from(life).unwrap_or(60));
    let jitter = Duration::from_millis(rand::random_range(0..10_000));
    let refresh_after = (life * 4 / 5).min(LONGEST_USE).saturating_sub(jitter).max(Duration::from_secs(30));
    Ok(IssuedToken { data: text.into_bytes(), refresh_at: now + refresh_after, expires_at: now + life })
}
