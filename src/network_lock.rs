//! Links, routes and Service rules belong to a network namespace, and there to one node: a lock named
//! by the namespace, in a directory that is root's alone.
//!
//! A node in another mount namespace has another such directory; it is found among the processes.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::doctor::neighbours;
use crate::pidfile::{self, PidLock};

/// Not below a run directory: those are several, and go with their nodes.
const DIRECTORY: &str = "/run/copepod.network";

/// The right to make links, routes and rules in this network namespace; it ends with the process.
#[derive(Debug)]
pub struct NetworkLock {
    held: PidLock,
    directory: PathBuf,
}

impl NetworkLock {
    /// Gives the right up, and leaves nothing of it behind.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn remove(self) -> Result<()> {
        self.held.remove()?;
        match fs::remove_dir(&self.directory) {
            // Those of other network namespaces.
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => {
                Err(error).with_context(|| format!("remove {}", self.directory.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Takes the network namespace; the process of the node that has it where there is one.
///
/// # Errors
/// When the lock cannot be made.
pub fn try_take() -> Result<Result<NetworkLock, String>> {
    let taken = take_in(Path::new(DIRECTORY))?;
    let Ok(lock) = taken else { return Ok(taken) };
    match neighbours::other_copepod() {
        Some(pid) => Ok(Err(pid.to_string())),
        None => Ok(Ok(lock)),
    }
}

/// Takes the network namespace.
///
/// # Errors
/// Names the node that has it.
pub fn take() -> Result<NetworkLock> {
    match try_take().context("take the network namespace")? {
        Ok(lock) => Ok(lock),
        Err(pid) => bail!(
            "process {pid} is a copepod node in this network namespace already: pods' network and Service rules \
             are one node's; end it with copepod down and its --data-dir and --run-dir"
        ),
    }
}

fn take_in(directory: &Path) -> Result<Result<NetworkLock, String>> {
    let named = || format!("the directory {}", directory.display());
    DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(named)?;
    let metadata = fs::symlink_metadata(directory).with_context(named)?;
    let is_private = metadata.is_dir() && metadata.mode() & 0o077 == 0;
    ensure!(
        is_private && metadata.uid() == nix::unistd::geteuid().as_raw(),
        "{} can be entered by others: remove it",
        directory.display()
    );
    let namespace = fs::metadata("/proc/self/ns/net").context("find the network namespace")?;
    let held = pidfile::try_hold(&directory.join(namespace.ino().to_string()))?;
    Ok(held.map(|held| NetworkLock { held, directory: directory.to_owned() }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_network_namespace_has_one_master() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("network");
        let lock = take_in(&directory).unwrap().unwrap();
        assert_eq!(take_in(&directory).unwrap().unwrap_err(), std::process::id().to_string());
        drop(lock);
        let again = take_in(&directory).unwrap().unwrap();
        again.remove().unwrap();
        assert!(!directory.exists(), "nothing is left");
    }

    #[test]
    fn a_directory_of_others_is_no_place_for_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("network");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(take_in(&directory).unwrap_err().to_string().contains("can be entered by others"));
        fs::remove_dir(&directory).unwrap();
        std::os::unix::fs::symlink(root.path(), &directory).unwrap();
        assert!(take_in(&directory).is_err());
    }
}
