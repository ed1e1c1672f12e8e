//! `copepod image …`: images into the node's runtime.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cri::CriClient;

use crate::cli::{ImageCommand, ImageLoadArgs};
use crate::paths::Paths;
use crate::progress::step;
use crate::{cluster, instance, runtime};

/// Carries a command out.
///
/// # Errors
/// When the runtime does not answer or the archive is no image.
pub fn run(command: &ImageCommand) -> Result<()> {
    let ImageCommand::Load(args) = command;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for (node, socket) in targets(args)? {
        let whither = node.map(|node| format!(" into {node}")).unwrap_or_default();
        let loading = step(format!("load {}{whither}", args.file.display()));
        let names = tokio.block_on(load(socket, &args.file));
        let names = names.with_context(|| format!("load {}{whither}", args.file.display()))?;
        loading.done();
        for name in names {
            println!("{name}");
        }
    }
    Ok(())
}

async fn load(socket: PathBuf, file: &Path) -> Result<Vec<String>> {
    // The client's error would not say that it is a matter of rights.
    if let Err(error) = tokio::net::UnixStream::connect(&socket).await
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        return Err(error).with_context(|| format!("connect to {}", socket.display()));
    }
    Ok(cri::images::import_tar(&CriClient::connect(socket), file, None).await?)
}

/// The sockets to load into, with the nodes' names where there are several.
fn targets(args: &ImageLoadArgs) -> Result<Vec<(Option<String>, PathBuf)>> {
    let paths = args.data.paths();
    if let Some(endpoint) = &args.container_runtime_endpoint {
        return Ok(vec![(None, runtime::socket_of(endpoint)?)]);
    }
    if let Some(cluster) = &args.cluster {
        let nodes = cluster::run_dirs(&paths.data, cluster)?;
        let sockets =
            nodes.into_iter().map(|(node, run)| (Some(node), runtime::socket(&Paths { run, ..paths.clone() })));
        return Ok(sockets.collect());
    }
    let run = match &args.run_dir {
        Some(run) => run.clone(),
        None => run_dir_of(&paths)?,
    };
    Ok(vec![(None, runtime::socket(&Paths { run, ..paths }))])
}

/// The run directory of the node that has this data directory.
fn run_dir_of(paths: &Paths) -> Result<PathBuf> {
    match instance::of_data_dir(paths)? {
        // A node of a local cluster has its directories elsewhere in its own view.
        Some(stamp) if !same(&stamp.data, &paths.data) => {
            bail!("{} is the data directory of a local cluster's node: use --cluster NAME", paths.data.display())
        }
        Some(stamp) => Ok(stamp.run),
        None => bail!("no node ran with {}; for a local cluster there is --cluster NAME", paths.data.display()),
    }
}

fn same(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok().is_some_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}
