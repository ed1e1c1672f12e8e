//! `copepod cluster …`: local clusters.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::cli::ClusterCommand;
use crate::cluster::{self, CreateOptions};
use crate::{doctor, kubeconfig};

/// Where a node sees its data directory: the default one, bound over.
const NODE_DATA_DIR: &str = "/var/lib/copepod";

/// Carries a command out.
///
/// # Errors
/// What the command reports.
pub fn run(command: ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Create(args) => {
            for lack in doctor::require(doctor::Wanted::LOCAL_CLUSTER)? {
                eprintln!("warn  {lack}");
            }
            cluster::create(&CreateOptions {
                name: args.name,
                nodes: args.nodes,
                api_port: args.api_port,
                data_dir: args.dir.data_dir,
                node_data_dir: NODE_DATA_DIR.into(),
                wait: Duration::from_secs(args.wait),
                kubeconfig: if args.no_merge { None } else { users_kubeconfig() },
                extra_args: args.extra,
            })
        }
        ClusterCommand::List(args) => cluster::list(&args.data_dir),
        ClusterCommand::Delete(args) => cluster::delete(&args.dir.data_dir, &args.name, users_kubeconfig().as_deref()),
    }
}

fn users_kubeconfig() -> Option<PathBuf> {
    let named = std::env::var("KUBECONFIG").ok();
    let home = std::env::var_os("HOME");
    kubeconfig::users_file(named.as_deref(), home.as_deref().map(Path::new))
}
