//! `copepod agent`: a node under any control plane.

use std::time::Duration;

use agent::answers::bounded;
use agent::bootstrap::patience;
use anyhow::{Context, Result};
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::run_until_signalled;
use crate::cli::AgentArgs;
use crate::node::{self, Identity, NodeInputs};
use crate::paths::Paths;
use crate::status::Reporter;
use crate::sys::memory;
use crate::{cluster_net, doctor, errors, files, flags, instance, join, kubeconfig, network_lock};

/// How long to wait before an API server that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Runs until SIGTERM; pods run on.
///
/// # Errors
/// When the node cannot start or one of its parts fails.
pub fn run(args: &AgentArgs, typed: Vec<String>) -> Result<()> {
    flags::agent(args)?;
    // A node's threads allocate little and seldom: nothing waits, and what a start leaves can be given back.
    memory::one_heap();
    for lack in doctor::require(doctor::Wanted::by(&args.node))? {
        tracing::warn!("{lack}");
    }
    let paths = args.paths.paths();
    let _held = instance::start(&paths)?;
    let reporter = Reporter::new(&paths, typed.clone());
    let result = serve(args, &paths, &reporter, &typed);
    reporter.ended(&result);
    result
}

fn serve(args: &AgentArgs, paths: &Paths, reporter: &Reporter, typed: &[String]) -> Result<()> {
    let _network = network_lock::take()?;
    run_until_signalled(async |tasks| {
        let identity = Identity::find(&args.node, &tasks, reporter).await?;
        let kubeconfig = join::credentials(&args.join, paths, &identity.name).await?;
        let config = kubeconfig::client_config(&kubeconfig).await?;
        let client_ca = paths.kubelet().join("client-ca.pem");
        instance::make_private_dir(&paths.kubelet())?;
        let url = config.cluster_url.to_string();
        let ca = config.root_cert.clone().unwrap_or_default();
        files::replace(&client_ca, pem(&ca).as_bytes(), 0o600).context("write the authority's certificate")?;
        let client = join::kept_good(Client::try_from(config)?, &args.join, paths, &identity.name, &tasks);
        let proxy_client = match &args.proxy_kubeconfig {
            // Upstream's nodes may not read EndpointSlices.
            None => patience::patient(bounded(client.clone()), "credentials that may be given with --proxy-kubeconfig"),
            Some(path) => bounded(kubeconfig::client(path).await?),
        };
        let asking = bounded(client.clone());
        tasks.keep("API server", move |token| report_reachability(asking.clone(), url.clone(), token));
        let net = cluster_net::resolve(&args.net, typed, &proxy_client, &paths.cluster_net()).await?;
        let inputs = NodeInputs {
            identity,
            paths: paths.clone(),
            net,
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
        node::start(inputs, &tasks, reporter.clone()).await
    })
}

/// Says once that the API server does not answer, and once that it does. All others try again in silence.
async fn report_reachability(client: Client, url: String, token: CancellationToken) -> Result<()> {
    if token.run_until_cancelled(until_it_answers(client, &url)).await.is_some() {
        token.cancelled().await;
    }
    Ok(())
}

async fn until_it_answers(client: Client, url: &str) {
    let mut told = false;
    loop {
        match client.apiserver_version().await {
            // Whatever it answers, it answers.
            Ok(_) | Err(kube::Error::Api(_)) => {
                if told {
                    tracing::info!(server = url, "the API server answers");
                }
                return;
            }
            Err(error) if !told => {
                told = true;
                let cause = errors::one_line(&error.into());
                tracing::warn!(server = url, cause, "the API server does not answer; trying again until it does");
            }
            Err(_) => {}
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A server that is silent holds no end up.
    #[tokio::test(start_paused = true)]
    async fn who_asks_whether_the_server_answers_ends_with_the_rest() {
        let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        });
        let token = CancellationToken::new();
        let asking = report_reachability(Client::new(silent, "default"), "url".to_owned(), token.clone());
        let mut asking = std::pin::pin!(asking);
        assert!(tokio::time::timeout(ASK_AGAIN * 3, asking.as_mut()).await.is_err());
        token.cancel();
        tokio::time::timeout(ASK_AGAIN, asking).await.expect("it ends").unwrap();
    }
}
