//! Removes what a pod leaves on disk once its volumes are gone: its logs and its directory.
//!
//! The directory goes last, and stays when anything else does: by it a pod that nobody knows any more is found again.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::plan::pods::{Way, log_dirs_of, orphans, way};
use super::removals::Removals;
use crate::config::Paths;
use crate::ids::PodUid;
use crate::podworker::files::{FileError, pod_dir};

/// Removes what is left of a pod, when there is a place for that among the removals.
pub async fn remove(removals: &Removals, paths: &Paths, pod: &Pod) -> Result<(), FileError> {
    let (own, of) = (paths.clone(), pod.clone());
    let removed = removals.run(move || remove_now(&own, &of)).await;
    removed.map_err(failed("remove", &paths.pod_logs)).flatten()
}

/// The pods that left a directory here and are not `alive`.
pub async fn left(paths: &Paths, alive: impl Fn(&PodUid) -> bool) -> BTreeSet<PodUid> {
    let pods = paths.root.join("pods");
    // A file system that is slow holds up this task alone.
    match tokio::task::spawn_blocking(move || directories(&pods)).await.map_err(io::Error::other).flatten() {
        Ok(found) => orphans(&found, alive),
        Err(error) => {
            tracing::warn!(%error, "directories of pods not read");
            BTreeSet::new()
        }
    }
}

/// Removes the pod's logs and its directory, one whether or not another one can be; the first error.
fn remove_now(paths: &Paths, pod: &Pod) -> Result<(), FileError> {
    let logs = remove_logs(paths, pod);
    let Some(dir) = pod_dir(paths, &PodUid::of(pod)) else { return logs };
    let entries = names(&dir).map_err(failed("read", &dir));
    let removed = entries.and_then(|entries| {
        first_error(entries.iter().map(|name| match way(name) {
            Way::Whole => remove_tree(&dir.join(name)),
            Way::Empty => remove_empty(&dir.join(name)),
        }))
    });
    logs.and(removed)?;
    remove_empty(&dir)
}

/// Several nodes may share one directory of logs: only what bears the pod's name or UID goes.
fn remove_logs(paths: &Paths, pod: &Pod) -> Result<(), FileError> {
    let all = names(&paths.pod_logs).map_err(failed("read", &paths.pod_logs))?;
    first_error(log_dirs_of(pod, &all).into_iter().map(|name| remove_tree(&paths.pod_logs.join(name))))
}

/// Goes through all, whatever becomes of one.
fn first_error(results: impl Iterator<Item = Result<(), FileError>>) -> Result<(), FileError> {
    results.fold(Ok(()), Result::and)
}

/// Removes a file, or a directory with all that is in it; never what is mounted, nor where a link leads.
fn remove_tree(path: &Path) -> Result<(), FileError> {
    cri::dirtree::remove(path).map_err(failed("remove", path))
}

fn remove_empty(directory: &Path) -> Result<(), FileError> {
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", directory)(error)),
        _ => Ok(()),
    }
}

/// What is in a directory; nothing if there is none. A name that is no text is nobody's here.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    listed(directory, |_| true)
}

/// The same of directories alone: what is a link leads elsewhere.
fn directories(directory: &Path) -> io::Result<Vec<String>> {
    listed(directory, |entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
}

fn listed(directory: &Path, take: impl Fn(&std::fs::DirEntry) -> bool) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if take(&entry) {
            found.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(found)
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { op, path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::mount::{MsFlags, mount};

    use super::*;
    use crate::volume::tests::in_mount_namespace;

    /// Directories of a node, with what is to be there.
    fn node(left: &[&str]) -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths =
            Paths { pod_logs: dir.path().join("logs"), root: dir.path().join("root"), ..Paths::below(dir.path()) };
        for path in left {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        (dir, paths)
    }

    fn with_uid(uid: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.uid = Some(uid.to_owned());
        pod
    }

    #[tokio::test]
    async fn all_of_one_pod_goes_and_nothing_of_another() {
        let (dir, paths) = node(&[
            "logs/ns_p_u/a",
            "logs/ns_p_v/a",
            "root/pods/u/containers/a",
            "root/pods/u/plugins",
            "root/pods/u/volumes",
            "root/pods/u/made-by-another-version/x",
            "root/pods/v/containers",
            "elsewhere",
        ]);
        fs::write(dir.path().join("root/pods/u/etc-hosts"), "x").unwrap();
        symlink(dir.path().join("elsewhere"), dir.path().join("root/pods/u/link")).unwrap();
        remove(&Removals::default(), &paths, &with_uid("u")).await.unwrap();
        remove(&Removals::default(), &paths, &with_uid("u")).await.unwrap();
        assert_eq!(names(&paths.pod_logs).unwrap(), ["ns_p_v"]);
        assert_eq!(names(&paths.root.join("pods")).unwrap(), ["v"]);
        assert!(dir.path().join("elsewhere").exists());
        remove(&Removals::default(), &paths, &with_uid("../../elsewhere")).await.unwrap();
        assert!(dir.path().join("elsewhere").exists());
    }

    #[test]
    fn what_cannot_be_removed_keeps_the_directory_and_nothing_else() {
        in_mount_namespace(|| async {
            let (dir, paths) = node(&["logs/ns_p_u/a", "logs/ns_q_u/a", "root/pods/u/containers/a"]);
            let logs = dir.path().join("logs/ns_p_u/a");
            mount(Some("tmpfs"), &logs, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            let removals = Removals::default();
            let error = remove(&removals, &paths, &with_uid("u")).await.unwrap_err();
            assert!(error.to_string().contains("still mounted"), "{error}");
            assert!(paths.root.join("pods/u").exists(), "by it the logs are found again");
            assert_eq!(names(&paths.root.join("pods/u")).unwrap(), Vec::<String>::new());
            assert_eq!(names(&paths.pod_logs).unwrap(), ["ns_p_u"]);
            nix::mount::umount(&logs).unwrap();
            remove(&removals, &paths, &with_uid("u")).await.unwrap();
            assert!(!logs.exists() && !paths.root.join("pods/u").exists());
        });
    }

    /// What is in a volume is its owner's, also when nobody knows how it came to be there.
    #[tokio::test]
    async fn what_is_in_a_volume_stays() {
        let (dir, paths) = node(&["root/pods/u/volumes/x/data", "root/pods/u/containers/a"]);
        remove(&Removals::default(), &paths, &with_uid("u")).await.unwrap_err();
        assert!(dir.path().join("root/pods/u/volumes/x/data").exists());
        assert!(!dir.path().join("root/pods/u/containers").exists(), "all else went");
    }

    #[tokio::test]
    async fn only_directories_are_left_by_pods() {
        let (dir, paths) = node(&["root/pods/u", "root/pods/v", "elsewhere"]);
        fs::write(dir.path().join("root/pods/file"), "x").unwrap();
        symlink(dir.path().join("elsewhere"), dir.path().join("root/pods/link")).unwrap();
        let alive = PodUid::new("v");
        assert_eq!(left(&paths, |uid| *uid == alive).await, BTreeSet::from([PodUid::new("u")]));
    }
}
