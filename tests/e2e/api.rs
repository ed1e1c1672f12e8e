//! The API's semantics over the wire: watches, pages, access.

use anyhow::{Context, Result, ensure};
use harness::{program, time};
use serde_json::Value;

use crate::support::cluster::Cluster;

pub fn watches_and_pages(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace();
    for index in 0..7 {
        cluster.kubectl(&["create", "configmap", &format!("page-{index}")])?;
    }
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let raw = |path: &str| -> Result<Value> { Ok(serde_json::from_str(&cluster.kubectl(&["get", "--raw", path])?)?) };
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = raw(&format!("{path}?limit=3&continue={token}"))?;
        let items = page["items"].as_array().context("items")?;
        ensure!(items.len() <= 3, "a page of {}", items.len());
        seen.extend(items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()));
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
    }
    ensure!(seen.len() == 8, "seven and the authority's certificate: {seen:?}");
    let selected = raw(&format!("{path}?fieldSelector=metadata.name%3Dpage-3"))?;
    ensure!(selected["items"].as_array().is_some_and(|items| items.len() == 1), "{selected}");
    // A watch from a list's revision sees what came after it, to the last bookmark.
    let start = raw(&path)?["metadata"]["resourceVersion"].as_str().context("a revision")?.to_owned();
    cluster.kubectl(&["delete", "configmap", "page-0"])?;
    let frames =
        cluster.kubectl(&["get", "--raw", &format!("{path}?watch=1&resourceVersion={start}&timeoutSeconds=1")])?;
    let first: Value = serde_json::from_str(frames.lines().next().context("an event")?)?;
    ensure!(first["type"] == "DELETED" && first["object"]["metadata"]["name"] == "page-0", "{first}");
    let expired = cluster.kubectl(&["get", "--raw", &format!("{path}?watch=1&resourceVersion=1&timeoutSeconds=1")]);
    // Revision 1 is compacted only in long-lived clusters; here it may replay.
    if let Ok(frames) = expired {
        ensure!(frames.contains("page-6"), "{frames}");
    }
    Ok(())
}

pub fn access_is_controlled(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace();
    cluster.kubectl(&["create", "serviceaccount", "reader"])?;
    cluster.kubectl(&["create", "role", "pods", "--verb=get,list", "--resource=pods"])?;
    let account = format!("{namespace}:reader");
    cluster.kubectl(&["create", "rolebinding", "pods", "--role=pods", &format!("--serviceaccount={account}")])?;
    let user = format!("--as=system:serviceaccount:{account}");
    let can = |verb: &str, kind: &str| -> Result<String> {
        let output = cluster.kubectl_output(&["auth", "can-i", verb, kind, &user], None)?;
        Ok(output.stdout.trim().to_owned())
    };
    time::until("the role's effect", || {
        ensure!(can("list", "pods")? == "yes");
        Ok(())
    })?;
    for (verb, kind) in [("delete", "pods"), ("get", "secrets"), ("list", "nodes")] {
        ensure!(can(verb, kind)? == "no", "{verb} {kind} is allowed");
    }
    let token = cluster.kubectl(&["create", "token", "reader"])?;
    let with_token = |arguments: &[&str]| {
        let config: Value = serde_norway::from_str(&std::fs::read_to_string(cluster.kubeconfig())?)?;
        let server = config["clusters"][0]["cluster"]["server"].as_str().context("a server")?.to_owned();
        let mut command = std::process::Command::new("kubectl");
        command.args(["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", "--server", &server]);
        command.args(["--token", token.trim(), "--namespace", &namespace]).args(arguments);
        program::run(&mut command, None)
    };
    ensure!(with_token(&["get", "pods"])?.status.success(), "the token does not work");
    let refused = with_token(&["get", "secrets"])?;
    let message = refused.stderr;
    let expected = format!(
        "secrets is forbidden: User \"system:serviceaccount:{account}\" cannot list resource \"secrets\" in API group \"\" in the namespace \"{namespace}\""
    );
    ensure!(message.contains(&expected), "{message}");
    let mut wrong = std::process::Command::new("kubectl");
    wrong.args(["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", "--token=nonsense", "--server"]);
    wrong.arg(server_of(cluster)?).args(["get", "pods"]);
    let message = program::run(&mut wrong, None)?.stderr;
    ensure!(message.contains("Unauthorized") || message.contains("must be logged in"), "{message}");
    Ok(())
}

fn server_of(cluster: &Cluster) -> Result<String> {
    let config: Value = serde_norway::from_str(&std::fs::read_to_string(cluster.kubeconfig())?)?;
    Ok(config["clusters"][0]["cluster"]["server"].as_str().context("a server")?.to_owned())
}
