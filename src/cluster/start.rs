//! What a node's start comes to, and what is asked of it before: arguments are tried and
//! configuration files read where they are typed, not in a log of a node.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};

use super::init;
use super::state::{ClusterDir, NodeState};
use crate::cli::{self, Cli, Command};
use crate::node::UsageError;
use crate::status::{self, Phase};
use crate::{flags, node_config, paths, ready, unmarked};

/// A `KubeletConfiguration` of the nodes. The machine's disk is not the nodes' own: how full it is
/// says nothing about them, and images that were loaded by hand could not be pulled again.
fn kubelet_defaults() -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
    })
}

/// Arguments for nodes, apart from files with their configuration.
///
/// # Errors
/// When a `--config` names no file.
pub fn split_config(extra: &[String]) -> Result<(Vec<String>, Vec<PathBuf>), UsageError> {
    let (mut rest, mut files) = (Vec::new(), Vec::new());
    let mut words = extra.iter();
    while let Some(word) = words.next() {
        if let Some(file) = word.strip_prefix("--config=") {
            files.push(PathBuf::from(file));
        } else if word == "--config" {
            let file = words.next().ok_or_else(|| UsageError("--config: a file is needed".to_owned()))?;
            files.push(PathBuf::from(file));
        } else {
            rest.push(word.clone());
        }
    }
    Ok((rest, files))
}

/// The nodes' configuration: what `files` say, over the defaults of local clusters. `serving` is where the kubelet
/// finds its serving certificate and key.
///
/// # Errors
/// Every problem of the files.
pub fn node_config(files: &[PathBuf], serving: Option<&(PathBuf, PathBuf)>) -> Result<String> {
    let mut texts = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        texts.push((file.as_path(), text));
    }
    node_config::check(&texts).map_err(|problems| UsageError(problems.join("\n")))?;
    let mut kubelet = kubelet_defaults();
    if let Some((cert, key)) = serving {
        kubelet["tlsCertFile"] = json!(cert);
        kubelet["tlsPrivateKeyFile"] = json!(key);
    }
    Ok(over_defaults(kubelet, texts.iter().map(|(_, text)| text.as_str()))?)
}

/// The documents of `texts`, the kubelet's laid over the defaults.
fn over_defaults<'t>(mut kubelet: Value, texts: impl Iterator<Item = &'t str>) -> serde_norway::Result<String> {
    let mut documents = Vec::new();
    for text in texts {
        for document in gojson::yaml::documents(text) {
            match document? {
                Value::Object(fields) if fields.get("kind") == Some(&kubelet["kind"]) => {
                    for (name, value) in fields {
                        kubelet[name] = value;
                    }
                }
                Value::Null => {}
                other => documents.push(other),
            }
        }
    }
    documents.insert(0, kubelet);
    let documents: serde_norway::Result<Vec<_>> = documents.iter().map(serde_norway::to_string).collect();
    Ok(documents?.join("---\n"))
}

/// Arguments for nodes in the one form in which they can be compared.
///
/// # Errors
/// When they are no arguments of a node.
pub fn typed(extra: &[String]) -> Result<Vec<String>, UsageError> {
    let words = ["copepod", "up"].into_iter().chain(extra.iter().map(String::as_str));
    Ok(cli::typed_flags(&Cli::command().try_get_matches_from(words).map_err(|error| refused(&error))?))
}

fn refused(error: &clap::Error) -> UsageError {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    UsageError(format!("arguments after --: {}", first.strip_prefix("error: ").unwrap_or(first)))
}

/// Tries the arguments of a node.
///
/// # Errors
/// What the node's copepod would say of them.
pub fn try_arguments(arguments: &[String]) -> Result<(), UsageError> {
    let words = std::iter::once("copepod").chain(arguments.iter().map(String::as_str));
    let parsed = Cli::try_parse_from(words).map_err(|error| refused(&error))?;
    match parsed.command {
        Command::Up(args) => flags::up(&args),
        Command::Agent(args) => flags::agent(&args),
        _ => Ok(()),
    }
}

/// Waits until the node's copepod serves pods.
///
/// # Errors
/// What it said when it failed, or that `timeout` has passed.
pub fn wait(dir: &ClusterDir, node: &NodeState, timeout: Duration) -> Result<()> {
    let name = &node.plan.name;
    let log = dir.node_log(name).join("copepod.log");
    let look = || look(dir, node, &log).with_context(|| format!("{name} does not start"));
    ready::wait_until(timeout, look).with_context(|| format!("{name} is not ready; its log is {}", log.display()))
}

fn look(dir: &ClusterDir, node: &NodeState, log: &Path) -> Result<Option<()>> {
    let Some(run) = run_dir(dir, node)? else {
        bail!("it ended; its last words:\n{}", ready::last_lines(log));
    };
    let of_node = paths::Paths { data: dir.node_data(&node.plan.name), run, log: PathBuf::new() };
    match status::read(&of_node.status_file()) {
        // It tells nothing, and never will.
        None if is_own_run(node) && unmarked::is_here(&of_node) => {
            let pid = node.init.map_or(0, |init| init.pid);
            bail!(
                "it runs with an earlier copepod: kill {pid} ends it and keeps its data, then create the cluster again"
            )
        }
        // Before it has a /run of its own, the machine's is seen there.
        Some(told) if is_own_run(node) => match told.phase {
            Phase::Starting | Phase::Stopping => Ok(None),
            Phase::Ready => Ok(Some(())),
            Phase::Failed => bail!("{}", told.message),
        },
        _ => Ok(None),
    }
}

/// The run directory of a node that runs, as the machine sees it.
///
/// # Errors
/// When it is not known how the node was started.
pub fn run_dir(dir: &ClusterDir, node: &NodeState) -> Result<Option<PathBuf>> {
    let Some(init) = node.init.filter(|init| init.is_alive()) else { return Ok(None) };
    let spec = init::read_spec(&dir.node_spec(&node.plan.name))?;
    Ok(Some(PathBuf::from(format!("/proc/{}/root{}", init.pid, run_dir_asked(&spec.args).display()))))
}

/// The run directory that a node is started with.
fn run_dir_asked(arguments: &[String]) -> PathBuf {
    let words = std::iter::once("copepod").chain(arguments.iter().map(String::as_str));
    match Cli::try_parse_from(words).map(|cli| cli.command) {
        Ok(Command::Up(args)) => args.paths.directories.run_dir,
        Ok(Command::Agent(args)) => args.paths.directories.run_dir,
        // Tried before they were written.
        _ => cli::RUN_DIR.into(),
    }
}

/// Whether the node has a /run of its own already.
fn is_own_run(node: &NodeState) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    node.init.is_some_and(|init| {
        let own = device(Path::new(&format!("/proc/{}/root/run", init.pid)));
        own.is_some() && own != device(Path::new("/run"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn arguments_are_tried_before_anything_is_made() {
        assert!(try_arguments(&words(&["up", "--node-ip=10.89.0.2", "--port=1"])).is_ok());
        let told = |arguments: &[&str]| try_arguments(&words(arguments)).unwrap_err().0;
        assert!(told(&["up", "--nope"]).contains("unexpected argument '--nope'"), "{}", told(&["up", "--nope"]));
        assert!(told(&["agent", "--kubeconfig=/k", "--node-labels=x"]).contains("--node-labels=x"));
    }

    #[test]
    fn nodes_are_looked_for_in_the_run_directory_that_they_are_given() {
        for command in [&["up"][..], &["agent", "--kubeconfig=/k"]] {
            let asked = |more: &[&str]| run_dir_asked(&words(&[command, more].concat()));
            assert_eq!(asked(&[]), Path::new("/run/copepod"));
            assert_eq!(asked(&["--run-dir=/run/x", "--port=1"]), Path::new("/run/x"));
            assert_eq!(asked(&["--run-dir", "/run/x"]), Path::new("/run/x"));
        }
    }

    #[test]
    fn configuration_files_are_set_apart() {
        let (rest, files) = split_config(&words(&["--config", "/a", "--port=1", "--config=/b"])).unwrap();
        assert_eq!((rest, files), (words(&["--port=1"]), vec!["/a".into(), "/b".into()]));
        assert!(split_config(&words(&["--config"])).is_err());
    }

    #[test]
    fn what_is_configured_wins_over_the_defaults() {
        let kubelet = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nmaxPods: 7\nimageGCHighThresholdPercent: 90\n";
        let proxy = "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1alpha1\n";
        let text = over_defaults(kubelet_defaults(), [&format!("{kubelet}---\n{proxy}") as &str].into_iter()).unwrap();
        let documents: Vec<Value> = gojson::yaml::documents(&text).map(Result::unwrap).collect();
        assert_eq!(documents[0]["maxPods"], 7);
        assert_eq!(documents[0]["imageGCHighThresholdPercent"], 90);
        assert_eq!(documents[0]["evictionHard"]["nodefs.available"], "0%");
        assert_eq!(documents[1]["kind"], "KubeProxyConfiguration");
        node_config::check(&[(Path::new("f"), text)]).unwrap();
    }

    #[test]
    fn a_bad_configuration_is_told_where_it_was_typed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k.yaml");
        fs::write(&file, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: many\n")
            .unwrap();
        let told = format!("{:#}", node_config(&[file], None).unwrap_err());
        assert!(told.contains("k.yaml: KubeletConfiguration: maxPods"), "{told}");
        assert!(node_config(&[dir.path().join("none")], None).is_err());
    }
}
