//! What is remembered of pulls, in memory and in files below the agent's directory: which image came by which
//! credentials, and which pulls may have been under way when an agent ended. Whom an image is for is
//! [`super::access`]'s to say. Upstream's pkg/kubelet/images/pullmanager.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cri::ImageRef;
use cri::images::Reference;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::access::{Admission, PullSecret, Repositories, Verification};
use crate::read;

/// Directories below the one for images, and how their files are named.
const PULLED: &str = "pulled";
const PULLING: &str = "pulling";
const PREFIX: &str = "sha256-";

/// One image that was pulled, as its file says it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pulled {
    image_ref: String,
    credential_mapping: Repositories,
    /// The count of changes when it was changed last.
    #[serde(skip)]
    changed: u64,
}

/// A pull by a name, as its file says it.
#[derive(Debug, Serialize, Deserialize)]
struct Pulling {
    image: String,
}

/// Pulls of an image by one name that have not ended, or of which nobody knows how they ended.
#[derive(Clone, Copy, Debug, Default)]
struct Intent {
    running: usize,
    unsure: bool,
}

#[derive(Debug, Default)]
struct State {
    /// By the runtime's id.
    pulled: HashMap<String, Pulled>,
    pulling: HashMap<String, Intent>,
    /// Files of images that cannot be read: such an image was pulled, and nobody knows by whom.
    damaged: HashSet<String>,
    changes: u64,
}

impl State {
    fn change(&mut self, id: &str, image: &Reference, by: Option<&PullSecret>, is_new: bool) -> bool {
        self.changes += 1;
        let pulled = self.pulled.entry(id.to_owned()).or_default();
        pulled.image_ref = id.to_owned();
        pulled.changed = self.changes;
        pulled.credential_mapping.entry(image.repository()).or_default().add(by) || is_new
    }
}

/// A moment of the records, for [`PullRecords::forget_others`].
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

/// Whether an image that is here will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// For everybody.
    Open,
    /// For who shows credentials.
    Asks,
}

/// All of it.
#[derive(Debug, Default)]
pub struct PullRecords {
    policy: Verification,
    /// None: in memory only.
    directory: Option<PathBuf>,
    state: Mutex<State>,
    /// One file is written at a time, so that the last one written says what is so.
    writes: tokio::sync::Mutex<()>,
}

impl PullRecords {
    /// Those that an agent before left in `directory`. Blocking.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn load(policy: Verification, directory: PathBuf) -> io::Result<Arc<Self>> {
        let mut state = State::default();
        for part in [PULLED, PULLING] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory.join(part))?;
        }
        for (file, text) in files(&directory.join(PULLED))? {
            match serde_json::from_slice::<Pulled>(&text) {
                Ok(pulled) if file_name(&pulled.image_ref) == file => {
                    state.pulled.insert(pulled.image_ref.clone(), pulled);
                }
                _ => {
                    state.damaged.insert(file);
                }
            }
        }
        for (_, text) in files(&directory.join(PULLING))? {
            if let Ok(Pulling { image }) = serde_json::from_slice(&text) {
                state.pulling.insert(image, Intent { running: 0, unsure: true });
            }
        }
        Ok(Arc::new(Self { policy, directory: Some(directory), state: Mutex::new(state), ..Self::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an image that is here under this id is for every pod that names it so.
    pub fn look(&self, name: &str, image: &Reference, id: &ImageRef) -> Look {
        let state = self.lock();
        let is_known = state.pulled.contains_key(id.as_str()) || state.damaged.contains(&file_name(id.as_str()));
        if self.policy.asks(image, is_known || state.pulling.contains_key(name)) { Look::Asks } else { Look::Open }
    }

    /// Whether a pod may use it that has these credentials for it.
    pub async fn admits(&self, image: &Reference, id: &ImageRef, shown: &[PullSecret]) -> bool {
        let changed = {
            let mut state = self.lock();
            let access = state.pulled.get(id.as_str()).and_then(|p| p.credential_mapping.get(&image.repository()));
            match access.map_or(Admission::Refused, |access| access.admit(shown)) {
                Admission::Granted => false,
                Admission::Noted(secret) => state.change(id.as_str(), image, Some(secret), false),
                Admission::Refused => return false,
            }
        };
        if changed {
            self.save(id.as_str()).await;
        }
        true
    }

    /// Notes that an image is about to be pulled by a name; what comes of it is for the [`Pull`]. Should the agent end
    /// meanwhile, the image is one that was pulled.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub async fn begin(self: &Arc<Self>, name: &str) -> io::Result<Pull> {
        let intent = Pulling { image: name.to_owned() };
        self.write(PULLING, name, move || serde_json::to_vec(&intent).map_err(Into::into)).await?;
        self.lock().pulling.entry(name.to_owned()).or_default().running += 1;
        Ok(Pull { records: self.clone(), name: name.to_owned(), ended: false })
    }

    /// The records as they are now.
    pub fn moment(&self) -> Moment {
        Moment(self.lock().changes)
    }

    /// Forgets images that were not there when the runtime was asked, which was not before `moment`.
    pub async fn forget_others(&self, there: &HashSet<&str>, moment: Moment) {
        let gone: Vec<String> = {
            let mut state = self.lock();
            let others = state.pulled.values().filter(|p| p.changed <= moment.0 && !there.contains(&*p.image_ref));
            let gone: Vec<String> = others.map(|pulled| pulled.image_ref.clone()).collect();
            gone.iter().for_each(|id| drop(state.pulled.remove(id)));
            gone
        };
        for id in gone {
            self.remove(PULLED, &id).await;
        }
    }

    /// Writes down what is known of an image. Without a file the next agent asks for credentials again, or takes the
    /// image for one that nobody pulled: the intent stays, then.
    async fn save(&self, id: &str) -> bool {
        let snapshot = || {
            let state = self.lock();
            serde_json::to_vec(state.pulled.get(id).unwrap_or(&Pulled::default())).map_err(io::Error::from)
        };
        let written = self.write(PULLED, id, snapshot).await;
        if let Err(error) = &written {
            tracing::warn!(image = id, %error, "who may use an image cannot be written down");
        }
        written.is_ok()
    }

    async fn write(&self, part: &str, key: &str, text: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let _one = self.writes.lock().await;
        let (path, text) = (directory.join(part).join(file_name(key)), text()?);
        tokio::task::spawn_blocking(move || replace(&path, &text)).await.map_err(io::Error::other)?
    }

    async fn remove(&self, part: &str, key: &str) {
        let Some(directory) = &self.directory else { return };
        let _one = self.writes.lock().await;
        let path = directory.join(part).join(file_name(key));
        let removed = tokio::task::spawn_blocking(move || fs::remove_file(path)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(image = key, %error, "what is remembered of a pull cannot be removed");
        }
    }
}

/// A pull that goes on. One that is dropped may succeed all the same.
#[derive(Debug)]
pub struct Pull {
    records: Arc<PullRecords>,
    name: String,
    ended: bool,
}

impl Pull {
    /// It succeeded, with a secret's credential or without any.
    pub async fn succeeded(mut self, image: &Reference, id: &ImageRef, by: Option<&PullSecret>) {
        let is_new = {
            let mut state = self.records.lock();
            let file = file_name(id.as_str());
            let is_new = state.damaged.remove(&file) || !state.pulled.contains_key(id.as_str());
            state.change(id.as_str(), image, by, is_new)
        };
        if !is_new || self.records.save(id.as_str()).await {
            self.end(true).await;
        }
    }

    /// It did not.
    pub async fn failed(mut self) {
        self.end(false).await;
    }

    async fn end(&mut self, known: bool) {
        self.ended = true;
        let over = {
            let mut state = self.records.lock();
            let Some(intent) = state.pulling.get_mut(&self.name) else { return };
            intent.running = intent.running.saturating_sub(1);
            intent.unsure &= !known;
            let over = intent.running == 0 && !intent.unsure;
            if over {
                state.pulling.remove(&self.name);
            }
            over
        };
        if over {
            self.records.remove(PULLING, &self.name).await;
        }
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        if !self.ended
            && let Some(intent) = self.records.lock().pulling.get_mut(&self.name)
        {
            intent.running = intent.running.saturating_sub(1);
            intent.unsure = true;
        }
    }
}

fn file_name(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().fold(PREFIX.to_owned(), |name, byte| name + &format!("{byte:02x}"))
}

/// The files of a directory that are whole.
fn files(directory: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && !name.ends_with(".tmp") {
            // One that cannot be read says that there was a pull.
            found.push((name, read::bytes(entry.path(), read::MUCH).unwrap_or_default()));
        }
    }
    Ok(found)
}

/// Readers see the old file or the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // It may not be there.
        let _ = fs::remove_file(&temporary);
    }
    written
}
