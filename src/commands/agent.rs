//! `copepod agent`: a node under any control plane.

use anyhow::{Context, Result};
use kube::Client;
use tokio::sync::watch;

use super::{make_private_dir, run_until_signalled};
use crate::cli::AgentArgs;
use crate::node::{self, Identity, NodeInputs};
use crate::sys::memory;
use crate::{doctor, files, join, kubeconfig, pidfile};

/// Runs until SIGTERM; pods run on.
///
/// # Errors
/// When the node cannot start or one of its parts fails.
pub fn run(args: &AgentArgs) -> Result<()> {
    // A node's threads allocate little and seldom: nothing waits, and what a start leaves can be given back.
    memory::one_heap();
    doctor::require(doctor::Wanted::by(&args.node))?;
    let paths = args.paths.paths();
    make_private_dir(&paths.data)?;
    make_private_dir(&paths.run)?;
    let _held = pidfile::hold(&paths.pid_file())?;
    run_until_signalled(async |tasks| {
        let identity = Identity::new(&args.node)?;
        let kubeconfig = join::credentials(&args.join, &paths, &identity.name).await?;
        let config = kubeconfig::client_config(&kubeconfig).await?;
        let client_ca = paths.kubelet().join("client-ca.pem");
        make_private_dir(&paths.kubelet())?;
        let ca = config.root_cert.clone().unwrap_or_default();
        files::replace(&client_ca, pem(&ca).as_bytes(), 0o600).context("write the authority's certificate")?;
        let client = join::kept_good(Client::try_from(config)?, &args.join, &paths, &identity.name, &tasks);
        let proxy_client = match &args.proxy_kubeconfig {
            None => client.clone(),
            Some(path) => kubeconfig::client(path).await?,
        };
        let inputs = NodeInputs {
            identity,
            paths: paths.clone(),
            net: args.net.clone(),
            node: args.node.clone(),
            client,
            proxy_client,
            proxy_client_is_chosen: args.proxy_kubeconfig.is_some(),
            client_ca,
            serving: None,
            // Who joins a cluster of ours is given one; elsewhere requests would wait
            // for an approval that is not upstream's default to give.
            asks_serving: args.join.server.is_some(),
            own_ports: Vec::new(),
        };
        let (ready, _) = watch::channel(false);
        node::start(inputs, &tasks, ready).await
    })
}

/// DER certificates as one PEM text.
fn pem(certificates: &[Vec<u8>]) -> String {
    use base64::Engine;
    let mut text = String::new();
    for der in certificates {
        let encoded = base64::engine::general_purpose::STANDARD.encode(der);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
