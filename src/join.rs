//! A node's way to credentials: those that are there, or new ones by a bootstrap
//! kubeconfig or a token. Decides nothing about certificates itself.

use std::path::PathBuf;

use agent::bootstrap::client::Switch;
use agent::bootstrap::discovery::{self, Cluster};
use agent::bootstrap::{self, Credentials, Token};
use anyhow::{Context, Result, bail};
use kube::Client;
use serde_json::{Value, json};

use crate::cli::JoinArgs;
use crate::kubeconfig;
use crate::node::UsageError;
use crate::paths::Paths;
use crate::tasks::Tasks;

/// Name of the cluster, user and context in the kubeconfig that is written.
const NAME: &str = "default";

/// The kubeconfig to use, with credentials that are good now.
///
/// # Errors
/// When there are none and none can be had.
pub async fn credentials(args: &JoinArgs, paths: &Paths, node: &str) -> Result<PathBuf> {
    let path = kubeconfig_path(args, paths);
    let files = files(args, paths);
    let current = files.current();
    let written = kubeconfig::read(&path)?;
    // Credentials of somebody else's making are not ours to judge.
    let foreign = !written.is_null() && written["users"][0]["user"]["client-certificate"] != json!(current);
    let asks = args.server.is_some() || args.bootstrap_kubeconfig.is_some();
    let good = !written.is_null() && files.is_good(node, jiff::Timestamp::now());
    if foreign || good || !asks {
        return Ok(path);
    }
    let base = match (&args.server, &args.bootstrap_kubeconfig) {
        (Some(server), _) => join(args, server, &files, node).await?,
        (None, Some(file)) => {
            let client = kubeconfig::client(file).await?;
            bootstrap::ensure(&files, node, &client).await.context("join")?;
            kubeconfig::read(file)?
        }
        (None, None) => bail!("no way to join"),
    };
    // The last step: a kubeconfig that is there leads to a certificate.
    kubeconfig::write(&path, &own(&base, &current.display().to_string())?)?;
    Ok(path)
}

/// Joins the cluster of `server`; the cluster's part of a kubeconfig.
async fn join(args: &JoinArgs, server: &str, files: &Credentials, node: &str) -> Result<Value> {
    let text = args.token.as_deref().unwrap_or_default();
    let token: Token = text.parse().map_err(|error| UsageError(format!("--token: {error}")))?;
    if let Some(bad) = args.ca_cert_hash.iter().find(|hash| !is_hash(hash)) {
        bail!(UsageError(format!("--ca-cert-hash={bad}: sha256: and 64 hexadecimal digits are needed")));
    }
    if !server.starts_with("https://") {
        bail!(UsageError(format!("--server={server}: https://host:port is needed")));
    }
    let hashes: Vec<String> = args.ca_cert_hash.iter().map(|hash| hash.to_ascii_lowercase()).collect();
    let cluster = discovery::discover(server, &token, &hashes).await.context("join")?;
    bootstrap::ensure(files, node, &cluster.client(&token)?).await.context("join")?;
    let Cluster { server, ca_pem } = &cluster;
    Ok(kubeconfig::anonymous(server, ca_pem))
}

fn is_hash(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A kubeconfig for the cluster that `base` speaks of, with the certificate at `current`.
fn own(base: &Value, current: &str) -> Result<Value> {
    let wanted = base["current-context"].as_str().unwrap_or_default();
    let list = |section: &str| base[section].as_array().cloned().unwrap_or_default();
    let context = list("contexts").into_iter().find(|context| context["name"] == wanted);
    let name = context.map(|context| context["context"]["cluster"].clone());
    let cluster = list("clusters").into_iter().find(|c| name.as_ref().is_none_or(|name| c["name"] == *name));
    let cluster = cluster.context("the bootstrap kubeconfig names no cluster")?;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster["cluster"]}],
        "users": [{"name": NAME, "user": {"client-certificate": current, "client-key": current}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
        "current-context": NAME,
        "preferences": {},
    }))
}

fn kubeconfig_path(args: &JoinArgs, paths: &Paths) -> PathBuf {
    args.kubeconfig.clone().unwrap_or_else(|| paths.node_kubeconfig())
}

fn files(args: &JoinArgs, paths: &Paths) -> Credentials {
    Credentials::client(args.cert_dir.clone().unwrap_or_else(|| paths.node_pki()))
}

/// The client for the node, whose certificate is renewed in time where it is one
/// that the node asked for.
pub fn kept_good(client: Client, args: &JoinArgs, paths: &Paths, node: &str, tasks: &Tasks) -> Client {
    let (path, files) = (kubeconfig_path(args, paths), files(args, paths));
    let user = kubeconfig::read(&path).map(|written| written["users"][0]["user"]["client-certificate"].clone());
    if user.ok() != Some(json!(files.current())) {
        return client;
    }
    let (switch, client) = Switch::new(client);
    let (asking, node) = (client.clone(), node.to_owned());
    tasks.spawn("certificate rotation", |token| async move {
        let reload = || async { kubeconfig::client(&path).await.map_err(|error| format!("{error:#}")) };
        bootstrap::rotate::client(files, node, asking, switch, reload, token).await;
        Ok(())
    });
    client
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_bootstrap_kubeconfigs_own_cluster_is_kept() {
        let base = json!({
            "clusters": [{"name": "a", "cluster": {"server": "https://a"}}, {"name": "b", "cluster": {"server": "https://b"}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "c", "context": {"cluster": "b", "user": "u"}}], "current-context": "c",
        });
        let own = own(&base, "/pki/current.pem").unwrap();
        assert_eq!(own["clusters"][0]["cluster"]["server"], "https://b");
        assert_eq!(own["users"][0]["user"]["client-key"], "/pki/current.pem");
        assert!(!own.to_string().contains("secret"));
        assert!(super::own(&json!({}), "x").is_err() && super::own(&json!({"clusters": 3}), "x").is_err());
    }

    #[test]
    fn hashes_have_one_form() {
        assert!(is_hash(&format!("sha256:{}", "0a".repeat(32))));
        for bad in
            ["", "sha256:", "sha256:00", &format!("sha512:{}", "0a".repeat(32)), &format!("sha256:{}", "0g".repeat(32))]
        {
            assert!(!is_hash(bad), "{bad}");
        }
    }
}
