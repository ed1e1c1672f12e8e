//! Waiting for conditions: files, nodes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use crate::kubeconfig;

/// Pause between two looks at a condition that announces nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Looks until `condition` yields a value.
///
/// # Errors
/// What `condition` reports, or that `timeout` has passed.
pub fn wait_until<T>(timeout: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    // A time that no clock counts to is never over.
    let deadline = Instant::now().checked_add(timeout);
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            bail!("not within {} s", timeout.as_secs());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The end of a log.
pub fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Waits until the cluster of the kubeconfig at `path` has `count` Ready nodes.
///
/// # Errors
/// When the kubeconfig is no use or `timeout` has passed.
pub fn wait_for_nodes(path: &Path, count: usize, timeout: Duration) -> Result<()> {
    wait_for_nodes_while(path, count, timeout, || true).map(drop)
}

/// The same while `served`, whether somebody is there to make them Ready; `false` when nobody is any more.
///
/// # Errors
/// When the kubeconfig is no use or `timeout` has passed.
pub fn wait_for_nodes_while(path: &Path, count: usize, timeout: Duration, served: impl Fn() -> bool) -> Result<bool> {
    let gone = async {
        while served() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = kubeconfig::client(path).await?;
        let ready = async {
            tokio::select! {
                ready = nodes_ready(client, count) => ready.map(|()| served()),
                () = gone => Ok(false),
            }
        };
        let ready = tokio::time::timeout(timeout, ready).await;
        ready.unwrap_or_else(|_| bail!("{count} node(s) are not Ready within {} s", timeout.as_secs()))
    })
}

/// Ends when `count` nodes are Ready; the watch reconnects by itself.
async fn nodes_ready(client: Client, count: usize) -> Result<()> {
    let nodes = Api::<Node>::all(client);
    let mut ready = std::collections::BTreeSet::new();
    let mut changes = watcher(nodes, watcher::Config::default()).default_backoff().applied_objects().boxed();
    loop {
        match changes.try_next().await {
            Ok(Some(node)) => {
                let name = node.metadata.name.clone().unwrap_or_default();
                if is_ready(&node) {
                    ready.insert(name)
                } else {
                    ready.remove(&name)
                };
                if ready.len() >= count {
                    return Ok(());
                }
            }
            Ok(None) => bail!("the watch of nodes ended"),
            // Refused connections while the server starts: the back-off paces us.
            Err(error) => tracing::debug!(%error, "nodes cannot be watched yet"),
        }
    }
}

/// Whether the node's `Ready` condition is `True`.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_may_wait_for_as_long_as_there_are_numbers() {
        let looks = std::cell::Cell::new(0);
        let second = || Ok((looks.replace(looks.get() + 1) > 0).then_some("seen"));
        assert_eq!(wait_until(Duration::MAX, second).unwrap(), "seen");
        assert!(wait_until(Duration::ZERO, || Ok(None::<()>)).is_err());
    }
}
