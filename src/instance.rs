//! Which node a directory belongs to. The first start in a data directory draws an id and writes it
//! there and into the run directory; `down` removes only what bears the id. What cannot bear one
//! (directories that were missing before, the network) is listed beside it.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cri::containerd;
use netproxy::links::Owner;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::paths::Paths;
use crate::pidfile::{self, PidLock};
use crate::unmarked;

/// In the data directory: what outlives a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataStamp {
    pub id: String,
    /// The directories of the last start, as that process saw them.
    pub data: PathBuf,
    pub run: PathBuf,
    /// Directories of pods' logs that were used.
    #[serde(default)]
    pub logs: Vec<PathBuf>,
    /// Directories that were not there before the first start.
    #[serde(default)]
    pub made: Vec<PathBuf>,
}

/// In the run directory: what ends with a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStamp {
    pub id: String,
    /// The data directory that the run directory was used with.
    pub data: PathBuf,
    /// Whether links, routes and rules were made.
    #[serde(default)]
    pub network: bool,
}

/// What is known of the node in two directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub data: Option<DataStamp>,
    pub run: Option<RunStamp>,
}

impl Instance {
    /// As the mark of links and rules.
    ///
    /// # Errors
    /// When the id is damaged.
    pub fn owner(&self) -> Result<Owner> {
        let id = self.data.as_ref().map(|stamp| &stamp.id).or(self.run.as_ref().map(|stamp| &stamp.id));
        Owner::new(id.map_or("", String::as_str)).context("the node's mark is damaged")
    }

    /// Whether `directory` was made by the node.
    pub fn made(&self, directory: &Path) -> bool {
        self.data.as_ref().is_some_and(|stamp| stamp.made.iter().any(|made| made == directory))
    }

    /// Directories that containerd shares with others, and that were there before the node.
    pub fn directories_of_others(&self) -> Vec<PathBuf> {
        let shared = containerd::SHARED_DIRECTORIES.map(PathBuf::from).into_iter();
        shared.filter(|directory| !self.made(directory)).collect()
    }

    /// Directories that may hold logs of the node's pods.
    pub fn logs(&self) -> &[PathBuf] {
        self.data.as_ref().map_or(&[], |stamp| &stamp.logs)
    }
}

/// Makes the node's directories, takes its lock and marks both directories as this node's.
///
/// # Errors
/// When the node runs already, or one of the directories is another node's.
pub fn start(paths: &Paths) -> Result<PidLock> {
    if let Some(theirs) = foreign(paths) {
        bail!("{} is not copepod's: name another directory than the one it is in", theirs.display());
    }
    unmarked::refuse(paths)?;
    mark(paths)
}

/// Marks the directories of a node that did so itself never, for it to be ended.
///
/// # Errors
/// When it is somebody's who marks.
pub fn adopt_unmarked(paths: &Paths) -> Result<Instance> {
    drop(mark(paths)?);
    note_network(paths)?;
    note_logs(paths, &paths.log)?;
    let mut stamp: DataStamp = read(&paths.data_stamp())?.context("the data directory bears no mark")?;
    // It made them, and everything in them but local clusters.
    stamp.made.extend([paths.data.clone(), paths.run.clone()]);
    write(&paths.data_stamp(), &stamp)?;
    find(paths)?.context("the directories bear no mark")
}

fn mark(paths: &Paths) -> Result<PidLock> {
    let shared = containerd::SHARED_DIRECTORIES.map(PathBuf::from);
    let possible = [paths.data.clone(), paths.run.clone()].into_iter().chain(shared);
    let missing: Vec<_> = possible.filter(|path| !path.exists()).collect();
    make_private_dir(&paths.data)?;
    make_private_dir(&paths.run)?;
    let held = pidfile::hold(&paths.pid_file())?;
    let (data, run) = (read(&paths.data_stamp())?, read(&paths.run_stamp())?);
    let stamps = claim(paths, data, run).map_err(anyhow::Error::msg)?;
    let (mut data, run) = stamps;
    data.made.extend(missing.into_iter().filter(|path| !data.made.contains(path)).collect::<Vec<_>>());
    write(&paths.data_stamp(), &data)?;
    write(&paths.run_stamp(), &run)?;
    Ok(held)
}

/// What others keep under a name that copepod would use: /var/lib has a `containerd`, too, and /run.
fn foreign(paths: &Paths) -> Option<PathBuf> {
    let own = |files: &[PathBuf]| files.iter().any(|file| file.exists());
    let data = own(&[paths.data_stamp(), paths.pki(), paths.admin_kubeconfig(), paths.node_kubeconfig()]);
    let run = own(&[paths.run_stamp(), paths.pid_file()]);
    let in_data = [paths.containerd_root(), paths.kubelet(), paths.data.join("server")].into_iter().filter(|_| !data);
    let in_run = [paths.containerd_run(), paths.cni_data()].into_iter().filter(|_| !run);
    in_data.chain(in_run).find(|directory| directory.exists())
}

/// What a start is to leave in the directories, by what is in them. Pure but for a new id.
fn claim(paths: &Paths, data: Option<DataStamp>, run: Option<RunStamp>) -> Result<(DataStamp, RunStamp), String> {
    let whole = consistent(paths, data, run)?;
    let id = match (&whole.data, &whole.run) {
        (Some(DataStamp { id, .. }), _) | (None, Some(RunStamp { id, .. })) => id.clone(),
        (None, None) => format!("{:032x}", rand::random::<u128>()),
    };
    let (logs, made) = whole.data.map(|stamp| (stamp.logs, stamp.made)).unwrap_or_default();
    let network = whole.run.is_some_and(|stamp| stamp.network);
    Ok((
        DataStamp { id: id.clone(), data: paths.data.clone(), run: paths.run.clone(), logs, made },
        RunStamp { id, data: paths.data.clone(), network },
    ))
}

/// Both stamps where they are one node's.
fn consistent(paths: &Paths, data: Option<DataStamp>, run: Option<RunStamp>) -> Result<Instance, String> {
    let other = match (&data, &run) {
        (Some(data), Some(run)) => data.id != run.id,
        // The data directory was removed by hand; the run directory says whose it was.
        (None, Some(run)) => run.data != paths.data,
        _ => false,
    };
    if let Some(run) = run.as_ref().filter(|_| other) {
        return Err(format!(
            "{} belongs to the node with --data-dir {}, not to one with {}: name its own --run-dir",
            paths.run.display(),
            run.data.display(),
            paths.data.display()
        ));
    }
    Ok(Instance { data, run })
}

/// The node of these directories, `None` where copepod never ran.
///
/// # Errors
/// When the directories are two nodes', or the node runs with another run directory.
pub fn find(paths: &Paths) -> Result<Option<Instance>> {
    let instance = consistent(paths, read(&paths.data_stamp())?, read(&paths.run_stamp())?);
    let instance = instance.map_err(anyhow::Error::msg)?;
    if let (Some(data), None) = (&instance.data, &instance.run) {
        let elsewhere = Paths { run: data.run.clone(), ..paths.clone() };
        let stamp: Option<RunStamp> = if data.run == paths.run { None } else { read(&elsewhere.run_stamp())? };
        if stamp.is_some_and(|stamp| stamp.id == data.id) {
            bail!("the node of {} uses --run-dir {}", paths.data.display(), data.run.display());
        }
    }
    Ok((instance.data.is_some() || instance.run.is_some()).then_some(instance))
}

/// The mark of the node that was started in these directories.
///
/// # Errors
/// When there is none.
pub fn owner(paths: &Paths) -> Result<Owner> {
    find(paths)?.context("the directories bear no mark")?.owner()
}

/// The stamp of a data directory.
///
/// # Errors
/// When it cannot be read.
pub fn of_data_dir(paths: &Paths) -> Result<Option<DataStamp>> {
    read(&paths.data_stamp())
}

/// Notes that pods' logs go to `directory`.
///
/// # Errors
/// When the note cannot be written.
pub fn note_logs(paths: &Paths, directory: &Path) -> Result<()> {
    let mut stamp: DataStamp = read(&paths.data_stamp())?.context("the data directory bears no mark")?;
    if stamp.logs.iter().any(|known| known == directory) {
        return Ok(());
    }
    stamp.logs.push(directory.to_owned());
    if !directory.exists() {
        stamp.made.push(directory.to_owned());
    }
    write(&paths.data_stamp(), &stamp)
}

/// Notes that links, routes and rules will be made.
///
/// # Errors
/// When the note cannot be written.
pub fn note_network(paths: &Paths) -> Result<()> {
    let mut stamp: RunStamp = read(&paths.run_stamp())?.context("the run directory bears no mark")?;
    stamp.network = true;
    write(&paths.run_stamp(), &stamp)
}

/// Makes a directory for its owner alone.
pub fn make_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("make {}", path.display()))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => {
            Ok(Some(serde_json::from_slice(&text).with_context(|| format!("{} is malformed", path.display()))?))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn write(path: &Path, stamp: &impl Serialize) -> Result<()> {
    files::replace(path, &serde_json::to_vec(stamp)?, 0o600).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn paths(root: &Path, data: &str, run: &str) -> Paths {
        Paths { data: root.join(data), run: root.join(run), log: root.join("logs") }
    }

    #[test]
    fn directories_bear_the_mark_of_one_node() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (paths(root.path(), "a", "run-a"), paths(root.path(), "b", "run-b"));
        assert_eq!(find(&a).unwrap(), None, "nothing ran yet");
        drop(start(&a).unwrap());
        let first = find(&a).unwrap().unwrap();
        assert_eq!(first.data.as_ref().unwrap().id, first.run.as_ref().unwrap().id);
        assert!(first.made(&a.data) && first.made(&a.run) && !first.made(&b.data));
        drop(start(&a).unwrap());
        assert_eq!(find(&a).unwrap().unwrap(), first, "another start is the same node's");
        drop(start(&b).unwrap());
        assert_ne!(find(&b).unwrap().unwrap().data.unwrap().id, first.data.unwrap().id);
        // Directories of two nodes together are nobody's.
        let mixed = paths(root.path(), "a", "run-b");
        assert!(start(&mixed).unwrap_err().to_string().contains("belongs to the node with --data-dir"));
        assert!(find(&mixed).is_err());
        assert!(find(&paths(root.path(), "c", "run-a")).is_err(), "the run directory is that of a");
        // A node's data with a run directory where nothing ran.
        let error = find(&paths(root.path(), "a", "run-c")).unwrap_err().to_string();
        assert!(error.contains("uses --run-dir"), "{error}");
    }

    #[test]
    fn one_half_is_enough_where_the_other_is_lost() {
        let root = tempfile::tempdir().unwrap();
        let a = paths(root.path(), "a", "run");
        drop(start(&a).unwrap());
        let id = find(&a).unwrap().unwrap().data.unwrap().id;
        note_network(&a).unwrap();
        fs::remove_dir_all(&a.data).unwrap();
        assert_eq!(
            find(&a).unwrap().unwrap().run.unwrap(),
            RunStamp { id: id.clone(), data: a.data.clone(), network: true }
        );
        drop(start(&a).unwrap());
        assert_eq!(find(&a).unwrap().unwrap().data.unwrap().id, id);
        // As after a reboot.
        fs::remove_dir_all(&a.run).unwrap();
        let found = find(&a).unwrap().unwrap();
        assert_eq!((found.data.unwrap().id, found.run), (id, None));
    }

    #[test]
    fn logs_are_noted_once_and_a_directory_of_others_is_not_ours() {
        let root = tempfile::tempdir().unwrap();
        let a = paths(root.path(), "a", "run");
        let theirs = root.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        drop(start(&a).unwrap());
        for directory in [&a.log, &theirs, &a.log] {
            note_logs(&a, directory).unwrap();
        }
        let found = find(&a).unwrap().unwrap();
        assert_eq!(found.logs(), [a.log.clone(), theirs.clone()]);
        assert!(found.made(&a.log) && !found.made(&theirs));
    }

    #[test]
    fn what_others_keep_under_our_names_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        for theirs in ["a/containerd", "a/kubelet/pods", "run/containerd"] {
            let a = paths(root.path(), "a", "run");
            fs::create_dir_all(root.path().join(theirs)).unwrap();
            assert!(start(&a).unwrap_err().to_string().contains("is not copepod's"), "{theirs}");
            assert_eq!(find(&a).unwrap(), None);
            fs::remove_dir_all(root.path().join(theirs)).unwrap();
        }
    }

    #[test]
    fn a_damaged_stamp_is_named() {
        let root = tempfile::tempdir().unwrap();
        let a = paths(root.path(), "a", "run");
        drop(start(&a).unwrap());
        fs::write(a.data_stamp(), "{").unwrap();
        let error = format!("{:#}", find(&a).unwrap_err());
        assert!(error.contains("instance.json is malformed"), "{error}");
    }
}
