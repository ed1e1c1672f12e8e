//! Fetches what a projected volume shows and writes it.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::atomic;
use super::mounts;
use super::payload::{self, Payload, ProjectedFile};
use super::plan::{self, DownwardValue, ObjectPart, Part, Projected, TokenPart};
use crate::convert::fields::{self, FieldContext};
use crate::ids::ObjectName;
use crate::objectcache::{ObjectError, ObjectReader};

/// No token is used longer than this without asking for a new one.
const LONGEST_USE: Duration = Duration::from_secs(24 * 3600);

/// Why files cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The object is known not to exist, or lacks what is asked of it.
    #[error("{0}")]
    Missing(String),
    /// Nobody can tell at present.
    #[error("{0}")]
    Unavailable(String),
}

fn object_error(error: &ObjectError) -> GatherError {
    if error.is_not_found() {
        GatherError::Missing(error.to_string())
    } else {
        GatherError::Unavailable(error.to_string())
    }
}

/// A token that was handed out, and when to ask for the next.
#[derive(Clone)]
pub struct IssuedToken {
    data: Vec<u8>,
    /// When to ask for a new one: after 80 % of its life, at most a day.
    pub refresh_at: Instant,
    expires_at: Instant,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("refresh_at", &self.refresh_at).finish_non_exhaustive()
    }
}

/// Tokens of one volume by file path.
pub type Tokens = HashMap<String, IssuedToken>;

/// Everything a gathering needs to know of its pod.
#[derive(Clone, Copy, Debug)]
pub struct Gather<'a> {
    pub reader: &'a dyn ObjectReader,
    pub pod: &'a Pod,
    /// What downward files may show beside the pod object.
    pub fields: &'a FieldContext,
}

impl Gather<'_> {
    /// Reads every part of a volume. `tokens` keeps issued tokens between calls.
    pub async fn payload(&self, volume: &Projected, tokens: &mut Tokens) -> Result<Payload, GatherError> {
        let mut payload = Payload::new();
        let mode = volume.default_mode;
        let owner = plan::fs_user(self.pod);
        for part in &volume.parts {
            match part {
                Part::ConfigMap(object) => {
                    let found = optional(object, self.reader.config_map(&self.named(&object.name)).await)?;
                    payload::add_config_map(&mut payload, object, found.as_deref(), mode)
                        .map_err(GatherError::Missing)?;
                }
                Part::Secret(object) => {
                    let found = optional(object, self.reader.secret(&self.named(&object.name)).await)?;
                    payload::add_secret(&mut payload, object, found.as_deref(), mode).map_err(GatherError::Missing)?;
                }
                Part::Downward(items) => {
                    for item in items {
                        let text = match &item.what {
                            DownwardValue::Field(path) => fields::field(self.pod, path, self.fields),
                            DownwardValue::Resource(what) => fields::resource(self.pod, "", what, self.fields),
                        };
                        let data = text.map_err(|error| GatherError::Missing(error.to_string()))?.into_bytes();
                        let file = ProjectedFile { data, mode: item.mode.unwrap_or(mode), owner: None };
                        payload.insert(item.path.clone(), file);
                    }
                }
                Part::Token(token) => {
                    let data = self.token(token, tokens).await?;
                    let private = owner.is_some() || plan::fs_group(self.pod).is_some();
                    let mode = if private { 0o600 } else { mode };
                    payload.insert(token.path.clone(), ProjectedFile { data, mode, owner });
                }
            }
        }
        Ok(payload)
    }

    fn named(&self, name: &str) -> ObjectName {
        ObjectName::new(self.pod.metadata.namespace.as_deref().unwrap_or("default"), name)
    }

    /// The token in use while it is young enough, else a new one; an old one
    /// that is still valid does when none can be had.
    async fn token(&self, part: &TokenPart, tokens: &mut Tokens) -> Result<Vec<u8>, GatherError> {
        let now = Instant::now();
        if let Some(token) = tokens.get(&part.path).filter(|token| now < token.refresh_at) {
            return Ok(token.data.clone());
        }
        let spec = self.pod.spec.as_ref();
        let account = spec.and_then(|s| s.service_account_name.as_deref()).filter(|n| !n.is_empty());
        let account = self.named(account.unwrap_or("default"));
        match self.reader.service_account_token(&account, &self.token_spec(part)).await {
            Ok(answer) => {
                let token = issued(answer, part.expiration, now)?;
                let data = token.data.clone();
                tokens.insert(part.path.clone(), token);
                Ok(data)
            }
            Err(error) => match tokens.get_mut(&part.path).filter(|token| now < token.expires_at) {
                Some(token) => {
                    token.refresh_at = now + Duration::from_secs(30);
                    Ok(token.data.clone())
                }
                None => {
                    let text = format!("failed to fetch token: {error}");
                    Err(match object_error(&error) {
                        GatherError::Missing(_) => GatherError::Missing(text),
                        GatherError::Unavailable(_) => GatherError::Unavailable(text),
                    })
                }
            },
        }
    }

    fn token_spec(&self, part: &TokenPart) -> TokenRequestSpec {
        TokenRequestSpec {
            audiences: Some(part.audience.iter().cloned().collect()),
            expiration_seconds: Some(part.expiration),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: self.pod.metadata.name.clone(),
                uid: self.pod.metadata.uid.clone(),
            }),
        }
    }
}

fn optional<T>(part: &ObjectPart, result: Result<T, ObjectError>) -> Result<Option<T>, GatherError> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(error) if part.optional && error.is_not_found() => Ok(None),
        Err(error) => Err(object_error(&error)),
    }
}

fn issued(answer: TokenRequest, asked_seconds: i64, now: Instant) -> Result<IssuedToken, GatherError> {
    let empty = || GatherError::Unavailable("failed to fetch token: empty answer".into());
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

/// Makes the directory (a tmpfs where asked) and shows the payload in it.
/// Returns whether anything changed. Blocking.
pub fn write(dir: &Path, memory: bool, payload: &Payload, group: Option<u32>) -> Result<bool, String> {
    let fail = |error: std::io::Error| format!("prepare {}: {error}", dir.display());
    fs::create_dir_all(dir).map_err(fail)?;
    if memory {
        mounts::mount_tmpfs(dir, None, true).map_err(fail)?;
    }
    if !atomic::is_written(dir) {
        let bits = if group.is_some() { 0o2777 } else { 0o777 };
        if let Some(group) = group {
            std::os::unix::fs::chown(dir, None, Some(group)).map_err(fail)?;
        }
        fs::set_permissions(dir, Permissions::from_mode(bits)).map_err(fail)?;
    }
    atomic::write(dir, payload, group).map_err(|error| error.to_string())
}

/// Whether an earlier life of the agent left a complete set here.
pub fn is_adoptable(dir: &Path, memory: bool) -> bool {
    atomic::is_written(dir) && (!memory || mounts::is_other_filesystem(dir).unwrap_or(false))
}
