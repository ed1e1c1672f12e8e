//! Files of a pod outside its volumes: its directory, /etc/hosts, logs'
//! directories and the files termination messages are written to. They go when
//! [`crate::retention::pods`] says so.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::types::Mount;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::deps::WorkerSettings;
use crate::config::Paths;
use crate::convert::{container, dns, hosts, sandbox, spec};
use crate::ids::{FileName, PodUid};
use crate::read;

/// A file or directory that could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("{op} {path}: {source}")]
pub struct FileError {
    pub op: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { op, path, source }
}

/// A name as one element of a path below `dir`.
fn plain<'a>(dir: &Path, name: &'a str) -> Result<FileName<'a>, FileError> {
    FileName::new(name).map_err(|why| failed("create a file in", dir)(io::Error::new(io::ErrorKind::InvalidInput, why)))
}

/// The directory of a pod below the kubelet's root; `None` for a UID that is no
/// file name.
pub fn pod_dir(paths: &Paths, uid: &PodUid) -> Option<PathBuf> {
    uid.file_name().map(|name| paths.root.join("pods").join(name))
}

/// The directory of a pod's logs.
pub fn log_dir(paths: &Paths, pod: &Pod) -> PathBuf {
    paths.pod_logs.join(sandbox::log_directory(pod))
}

/// Makes the pod's directories. Again is fine.
pub fn make_pod_dirs(paths: &Paths, pod: &Pod) -> Result<(), FileError> {
    let uid = PodUid::of(pod);
    let Some(dir) = pod_dir(paths, &uid) else {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "the pod's UID is no file name");
        return Err(FileError { op: "create", path: PathBuf::from(uid.as_str()), source });
    };
    let logs = sandbox::log_directory(pod);
    let logs = paths.pod_logs.join(plain(&paths.pod_logs, &logs)?);
    for path in [dir.join("volumes"), dir.join("plugins"), logs] {
        std::fs::create_dir_all(&path).map_err(failed("create", &path))?;
    }
    Ok(())
}

/// Makes the files that a container gets beside its volumes, and returns their mounts. The pod may have made of those
/// that it had before what it likes: that holds up nobody else.
pub async fn own_mounts(
    settings: &WorkerSettings,
    pod: &Arc<Pod>,
    target: &Container,
    pod_ips: &[String],
) -> Result<Vec<Mount>, FileError> {
    let (settings, pod, target, pod_ips) = (settings.clone(), pod.clone(), target.clone(), pod_ips.to_vec());
    let root = settings.paths.root.clone();
    let work = move || {
        let mut mounts = Vec::new();
        mounts.extend(hosts_mount(&settings, &pod, &target, &pod_ips)?);
        mounts.extend(termination_mount(&settings, &pod, &target)?);
        make_log_dir(&settings.paths, &pod, &target)?;
        Ok(mounts)
    };
    let made = tokio::task::spawn_blocking(work).await;
    made.unwrap_or_else(|lost| Err(failed("create files below", &root)(io::Error::other(lost))))
}

/// Writes the pod's /etc/hosts and returns its mount, unless the container
/// brings its own. The file is rewritten only when its text differs, so that
/// what a container added stays as long as nothing changed.
fn hosts_mount(
    settings: &WorkerSettings,
    pod: &Pod,
    target: &Container,
    pod_ips: &[String],
) -> Result<Option<Mount>, FileError> {
    if container::mounts_at(target, "/etc/hosts") {
        return Ok(None);
    }
    let Some(dir) = pod_dir(&settings.paths, &PodUid::of(pod)) else { return Ok(None) };
    let path = dir.join("etc-hosts");
    let aliases = spec::spec(pod).host_aliases.as_deref().unwrap_or_default();
    let text = if spec::host_network(pod) {
        let node = read::text("/etc/hosts", read::MUCH).unwrap_or_default();
        hosts::host_network_hosts(&node, aliases)
    } else {
        hosts::managed_hosts(pod_ips, &dns::host_name(pod, &settings.dns.domain), aliases)
    };
    // As long as what it is to be, it is read at all.
    let known = read::text(&path, u64::try_from(text.len()).unwrap_or(read::MUCH));
    if known.ok().as_deref() != Some(&text) {
        overwrite(&path, &text).map_err(failed("write", &path))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).map_err(failed("chmod", &path))?;
    }
    Ok(Some(Mount {
        container_path: "/etc/hosts".to_owned(),
        host_path: path.to_string_lossy().into_owned(),
        readonly: target.security_context.as_ref().and_then(|s| s.read_only_root_filesystem).unwrap_or(false),
        ..Mount::default()
    }))
}

/// Makes the text all that is in the file. It is never empty on the way: containers of a pod start at the same time.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))
}

/// A fresh file for the container's last words, and its mount.
fn termination_mount(settings: &WorkerSettings, pod: &Pod, target: &Container) -> Result<Option<Mount>, FileError> {
    let Some(dir) = pod_dir(&settings.paths, &PodUid::of(pod)) else { return Ok(None) };
    let dir = dir.join("containers");
    let dir = dir.join(plain(&dir, &target.name)?);
    std::fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
    let path = dir.join(format!("{:08x}", rand::random::<u32>()));
    std::fs::write(&path, "").map_err(failed("create", &path))?;
    // Any user inside may write, whatever the umask here is.
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).map_err(failed("chmod", &path))?;
    Ok(Some(Mount {
        container_path: container::termination_path(target).to_owned(),
        host_path: path.to_string_lossy().into_owned(),
        ..Mount::default()
    }))
}

/// Makes the directory of a container's logs.
fn make_log_dir(paths: &Paths, pod: &Pod, target: &Container) -> Result<(), FileError> {
    let dir = log_dir(paths, pod);
    let dir = dir.join(plain(&dir, &target.name)?);
    std::fs::create_dir_all(&dir).map_err(failed("create", &dir))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Whatever a pod made of its own /etc/hosts, the next container finds it as it is to be.
    #[tokio::test]
    async fn hosts_are_put_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let node = crate::testutil::worker_settings(dir.path());
        let pod = Arc::new(crate::testutil::pod("  containers: [{name: a}]"));
        make_pod_dirs(&node.paths, &pod).unwrap();
        let target = &spec::containers(&pod)[0];
        let mounts = async || own_mounts(&node, &pod, target, &["192.0.2.1".to_owned()]).await.unwrap();
        let hosts = PathBuf::from(&mounts().await[0].host_path);
        let first = std::fs::read_to_string(&hosts).unwrap();
        assert!(first.contains("192.0.2.1"), "{first}");
        let file = || std::fs::OpenOptions::new().append(true).open(&hosts).unwrap();
        let changes: [&dyn Fn(); 3] =
            [&|| file().set_len(1 << 40).unwrap(), &|| file().write_all(b"192.0.2.9 mine\n").unwrap(), &|| {
                file().set_len(0).unwrap()
            }];
        for change in changes {
            change();
            assert_eq!(mounts().await.len(), 2);
            assert_eq!(std::fs::metadata(&hosts).unwrap().len(), first.len() as u64);
            assert_eq!(std::fs::read_to_string(&hosts).unwrap(), first);
        }
    }

    /// A name in a pod makes nothing outside the pod's own directories.
    #[test]
    fn names_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { pod_logs: dir.path().join("logs/pods"), ..Paths::below(dir.path()) };
        let mut pod = Pod::default();
        pod.metadata.uid = Some("u".into());
        pod.metadata.name = Some("web".into());
        pod.metadata.namespace = Some("ns".into());
        make_pod_dirs(&paths, &pod).unwrap();
        let target = |name: &str| Container { name: name.to_owned(), ..Container::default() };
        make_log_dir(&paths, &pod, &target("c")).unwrap();
        for name in ["../x", "../../../x", "..", ".", "a/b", "../ns_other_v/c", ""] {
            assert!(make_log_dir(&paths, &pod, &target(name)).is_err(), "{name:?}");
        }
        pod.metadata.name = Some("../../x".into());
        assert!(make_pod_dirs(&paths, &pod).is_err());
        let logs: Vec<_> = std::fs::read_dir(&paths.pod_logs).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(logs, ["ns_web_u"]);
        let here: Vec<_> =
            std::fs::read_dir(paths.pod_logs.join("ns_web_u")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(here, ["c"]);
    }
}
