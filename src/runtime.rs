//! The container runtime of a node: a private containerd, or one that is
//! already there, with copepod's own images in it.

use std::path::{Path, PathBuf};

use agent::config::CgroupDriver;
use anyhow::{Context, Result, bail};
use cri::containerd::{self, Containerd, Options};
use cri::{CriClient, CriError, RuntimeService as _, types};
use netproxy::cni;

use crate::cli::NodeArgs;
use crate::node::{NodeInputs, UsageError};
use crate::paths::Paths;
use crate::tasks::Tasks;
use crate::{open_files, sys};

/// The driver that a foreign runtime makes cgroups with, over what is configured.
/// A private runtime does as it is told, and old ones do not know the question.
///
/// # Errors
/// When the runtime does not answer.
pub async fn cgroup_driver(node: &NodeArgs, configured: Option<CgroupDriver>) -> Result<Option<CgroupDriver>> {
    let Some(endpoint) = &node.container_runtime_endpoint else { return Ok(configured) };
    let answer = CriClient::connect(socket_of(endpoint)?).cgroup_driver().await;
    prefer(answer, configured).with_context(|| format!("ask {endpoint} for its cgroup driver"))
}

/// What to use, by the runtime's answer.
fn prefer(
    answer: Result<Option<types::CgroupDriver>, CriError>,
    configured: Option<CgroupDriver>,
) -> Result<Option<CgroupDriver>, CriError> {
    match answer {
        Ok(Some(types::CgroupDriver::Cgroupfs)) => Ok(Some(CgroupDriver::Cgroupfs)),
        Ok(Some(types::CgroupDriver::Systemd)) => Ok(Some(CgroupDriver::Systemd)),
        Ok(None) | Err(CriError::Unimplemented { .. }) => Ok(configured),
        Err(error) => Err(error),
    }
}

/// Starts or adopts the runtime, which is to leave cgroups to `driver`, and sees
/// that copepod's images are in it.
///
/// # Errors
/// When containerd is missing, does not start or refuses the images.
pub async fn start(inputs: &NodeInputs, driver: CgroupDriver, tasks: &Tasks) -> Result<CriClient> {
    // Work for a processor while the runtime is waited for.
    let builtin = tokio::task::spawn_blocking(cri::images::Builtin::make);
    let client = match &inputs.node.container_runtime_endpoint {
        Some(endpoint) => CriClient::connect(socket_of(endpoint)?),
        None => start_private(inputs, driver, tasks).await?,
    };
    let builtin = builtin.await?.context("unpack copepod's own images")?;
    builtin.import(&client).await.context("import copepod's own images")?;
    Ok(client)
}

async fn start_private(inputs: &NodeInputs, driver: CgroupDriver, tasks: &Tasks) -> Result<CriClient> {
    let program = sys::process::own_path().context("find this program")?;
    cni::install_plugin(&inputs.paths.cni_bin(), &program).context("install the CNI plugin")?;
    let options = options(&inputs.paths, driver == CgroupDriver::Systemd);
    let running = Containerd::start(options, tasks.token().child_token()).await?;
    let client = running.client();
    tasks.spawn("containerd", |token| async move {
        token.cancelled().await;
        // Pods run on, and so does what they need; the next start adopts it.
        Ok(running.shutdown(containerd::Shutdown::LeaveRunning).await?)
    });
    Ok(client)
}

/// How the private containerd of a node is set up, where `systemd` makes
/// cgroups or nobody but us.
pub fn options(paths: &Paths, systemd: bool) -> Options {
    let mut options = Options::new(&paths.data, &paths.run);
    if systemd {
        options.cgroup_driver = types::CgroupDriver::Systemd;
    }
    options.root = paths.containerd_root();
    options.state = paths.containerd_run();
    options.cni_bin_dir = paths.cni_bin();
    options.cni_conf_dir = paths.cni_conf();
    options.open_files = open_files::former();
    options
}

/// The socket of the private containerd.
pub fn socket(paths: &Paths) -> PathBuf {
    options(paths, false).socket()
}

/// The socket's path in an endpoint such as `unix:///run/containerd/containerd.sock`.
pub fn socket_of(endpoint: &str) -> Result<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !Path::new(path).is_absolute() {
        bail!(UsageError(format!("--container-runtime-endpoint={endpoint}: a path or unix:///path is needed")));
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn containerd_leaves_cgroups_to_whom_the_agent_does() {
        let paths = Paths { data: "/d".into(), run: "/r".into(), log: "/l".into() };
        assert_eq!(options(&paths, true).cgroup_driver, types::CgroupDriver::Systemd);
        assert_eq!(options(&paths, false).cgroup_driver, types::CgroupDriver::Cgroupfs);
    }

    #[test]
    fn a_foreign_runtime_that_answers_is_believed() {
        use CgroupDriver::{Cgroupfs, Systemd};
        let unimplemented = || Err(CriError::Unimplemented { op: "RuntimeConfig", message: String::new() });
        for (answer, configured, expect) in [
            (Ok(Some(types::CgroupDriver::Systemd)), Some(Cgroupfs), Some(Systemd)),
            (Ok(Some(types::CgroupDriver::Cgroupfs)), None, Some(Cgroupfs)),
            (Ok(None), Some(Systemd), Some(Systemd)),
            (unimplemented(), Some(Systemd), Some(Systemd)),
            (unimplemented(), None, None),
        ] {
            assert_eq!(prefer(answer.clone(), configured).unwrap(), expect, "{answer:?}");
        }
        let gone = CriError::Unavailable { op: "RuntimeConfig", object: String::new(), message: "gone".to_owned() };
        assert!(prefer(Err(gone), Some(Cgroupfs)).is_err());
    }

    #[test]
    fn endpoints_are_paths_with_or_without_a_scheme() {
        assert_eq!(socket_of("unix:///run/c.sock").unwrap(), Path::new("/run/c.sock"));
        assert_eq!(socket_of("/run/c.sock").unwrap(), Path::new("/run/c.sock"));
        assert!(socket_of("tcp://1.2.3.4:5").is_err());
        assert!(socket_of("").is_err());
    }
}
