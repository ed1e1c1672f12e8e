//! Volumes whose files the agent writes, all at once, and keeps current: those of ConfigMaps, Secrets,
//! the downward API, and projected ones. What a source's files are is that source's.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tokio::time::Instant;

use super::downward_api::DownwardFile;
use super::payload::{FileProjection, Keys, Payload};
use super::plugins::{Change, MounterArgs, SetUp, SetUpError, Spec, Volume};
use super::service_account_token::{TokenFile, Tokens};
use super::{atomic_writer, config_map, downward_api, mounts, secret, spec};
use crate::ids::ObjectName;
use crate::objectcache::{ObjectError, ObjectKind};

/// Where files come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    ConfigMap(Keys),
    Secret(Keys),
    DownwardApi(Vec<DownwardFile>),
    ServiceAccountToken(TokenFile),
}

/// A volume of files.
#[derive(Debug)]
pub(super) struct AtomicVolume {
    name: String,
    directory: PathBuf,
    /// Whether the files live on a tmpfs.
    memory: bool,
    /// Mode bits of files that set none.
    default_mode: u32,
    sources: Vec<Source>,
    /// Held while files are gathered, so by one set-up at a time.
    tokens: tokio::sync::Mutex<Tokens>,
    /// When the first token is due, as of the last set-up.
    due: Mutex<Option<Instant>>,
}

/// As the table of kinds wants it.
pub(super) fn boxed(volume: AtomicVolume) -> Box<dyn Volume> {
    Box::new(volume)
}

impl AtomicVolume {
    pub(super) fn new(
        spec: &Spec<'_>,
        plugin: &str,
        memory: bool,
        default_mode: Option<i32>,
        sources: Vec<Source>,
    ) -> Result<Self, String> {
        Ok(Self {
            name: spec.volume.name.clone(),
            directory: spec.directory(plugin),
            memory,
            default_mode: spec::mode(default_mode)?.unwrap_or(0o644),
            sources,
            tokens: tokio::sync::Mutex::default(),
            due: Mutex::default(),
        })
    }

    /// Reads every source.
    async fn payload(&self, args: &MounterArgs<'_>) -> Result<Payload, SetUpError> {
        let mut payload = Payload::new();
        let mut tokens = self.tokens.lock().await;
        for source in &self.sources {
            self.add(source, args, &mut tokens, &mut payload).await?;
        }
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = tokens.refresh_at();
        Ok(payload)
    }

    async fn add(
        &self,
        source: &Source,
        args: &MounterArgs<'_>,
        tokens: &mut Tokens,
        payload: &mut Payload,
    ) -> Result<(), SetUpError> {
        let (mode, pod) = (self.default_mode, args.pod);
        let named =
            |keys: &Keys| ObjectName::new(pod.metadata.namespace.as_deref().unwrap_or("default"), keys.name.as_str());
        match source {
            Source::ConfigMap(keys) => {
                let found = if_any(keys, args.reader.config_map(&named(keys)).await)?;
                config_map::add(payload, keys, found.as_deref(), mode).map_err(SetUpError::Missing)
            }
            Source::Secret(keys) => {
                let found = if_any(keys, args.reader.secret(&named(keys)).await)?;
                secret::add(payload, keys, found.as_deref(), mode).map_err(SetUpError::Missing)
            }
            Source::DownwardApi(files) => {
                downward_api::add(payload, files, pod, args.fields, mode).map_err(SetUpError::Missing)
            }
            Source::ServiceAccountToken(file) => {
                let data = tokens.token(file, pod, args.reader).await?;
                let owner = spec::fs_user(pod);
                let private = owner.is_some() || spec::fs_group(pod).is_some();
                let mode = if private { 0o600 } else { mode };
                payload.insert(file.path.clone(), FileProjection { data, mode, owner });
                Ok(())
            }
        }
    }

    /// Gathers and writes.
    async fn write(&self, args: &MounterArgs<'_>) -> Result<(), SetUpError> {
        let payload = args.ended.run_until_cancelled(self.payload(args)).await;
        let payload = payload.unwrap_or_else(|| Err(SetUpError::Unavailable(super::ENDED.to_owned())))?;
        let (directory, memory, group) = (self.directory.clone(), self.memory, spec::fs_group(args.pod));
        let written = args.jobs.run(move || write(&directory, memory, &payload, group)).await;
        written.map_err(SetUpError::Unavailable)
    }

    /// Whether an earlier agent left a complete set here.
    fn is_adoptable(&self) -> bool {
        let mounted = !self.memory || mounts::is_other_filesystem(&self.directory).unwrap_or(false);
        mounted && atomic_writer::is_written(&self.directory)
    }
}

#[async_trait]
impl Volume for AtomicVolume {
    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> &Path {
        &self.directory
    }

    fn is_managed(&self) -> bool {
        true
    }

    /// A pod that runs must not suffer from an API server that is away, nor its other volumes from an
    /// object that is gone: files that are there stay.
    async fn set_up(&self, args: &MounterArgs<'_>) -> Result<SetUp, SetUpError> {
        match self.write(args).await {
            Ok(()) => Ok(SetUp::Current),
            Err(error) if self.is_adoptable() => Ok(SetUp::Stale(error)),
            Err(error) => Err(error),
        }
    }

    fn requires_remount(&self, change: &Change<'_>) -> bool {
        let shows = |source: &Source| match (source, change) {
            (Source::DownwardApi(_), Change::Metadata) => true,
            (Source::ConfigMap(_) | Source::Secret(_), Change::Object(None)) => true,
            (Source::ConfigMap(keys), Change::Object(Some(object))) => {
                object.kind == ObjectKind::ConfigMap && *object.name.name == *keys.name
            }
            (Source::Secret(keys), Change::Object(Some(object))) => {
                object.kind == ObjectKind::Secret && *object.name.name == *keys.name
            }
            _ => false,
        };
        self.sources.iter().any(shows)
    }

    fn remount_at(&self) -> Option<Instant> {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn if_any<T>(keys: &Keys, result: Result<T, ObjectError>) -> Result<Option<T>, SetUpError> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(error) if keys.optional && error.is_not_found() => Ok(None),
        Err(error) if error.is_not_found() => Err(SetUpError::Missing(error.to_string())),
        Err(error) => Err(SetUpError::Unavailable(error.to_string())),
    }
}

/// Makes the directory (a tmpfs where asked) and shows the payload in it. Blocking.
fn write(dir: &Path, memory: bool, payload: &Payload, group: Option<u32>) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("prepare {}: {error}", dir.display());
    fs::create_dir_all(dir).map_err(fail)?;
    if memory {
        mounts::mount_tmpfs(dir, None, true).map_err(fail)?;
    }
    if !atomic_writer::is_written(dir) {
        let bits = if group.is_some() { 0o2777 } else { 0o777 };
        if let Some(group) = group {
            std::os::unix::fs::chown(dir, None, Some(group)).map_err(fail)?;
        }
        fs::set_permissions(dir, Permissions::from_mode(bits)).map_err(fail)?;
    }
    atomic_writer::write(dir, payload, group).map(drop).map_err(|error| error.to_string())
}
