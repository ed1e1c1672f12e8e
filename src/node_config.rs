//! Upstream's configuration files: which documents there are, and for whom. What they mean is known
//! by the agent (`KubeletConfiguration`) and the service proxy (`KubeProxyConfiguration`).

use std::path::{Path, PathBuf};

use agent::config::{AgentConfig, apply_kubelet_document};
use anyhow::{Context, Result};
use netproxy::config::apply_kube_proxy_configuration;
use netproxy::services::ServiceProxyConfig;
use serde_json::Value;

use crate::node::UsageError;

/// What the files say that is no setting of agent or proxy.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AppliedFiles {
    /// Credentials for the service proxy.
    pub proxy_kubeconfig: Option<PathBuf>,
    /// Fields that are set and have no effect here.
    pub ignored: Vec<String>,
    /// Those of them that ask for a protection.
    pub unprotected: Vec<String>,
}

/// Reads `files`, documents separated by `---`, and applies them to the configurations.
///
/// # Errors
/// A file that cannot be read, or every problem of all of them at once.
pub fn apply_files(files: &[PathBuf], agent: &mut AgentConfig, proxy: &mut ServiceProxyConfig) -> Result<AppliedFiles> {
    let mut texts = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        texts.push((file.as_path(), text));
    }
    let applied = apply_texts(&texts, agent, proxy).map_err(|problems| UsageError(problems.join("\n")))?;
    for field in &applied.unprotected {
        tracing::warn!(field, "a protection that the configuration file asks for is not built: it has no effect");
    }
    for field in applied.ignored.iter().filter(|field| !applied.unprotected.contains(field)) {
        tracing::warn!(field, "a setting of the configuration file has no effect here");
    }
    Ok(applied)
}

/// Checks configuration files that others will read.
///
/// # Errors
/// Every problem of all of them at once.
pub fn check(texts: &[(&Path, String)]) -> Result<(), Vec<String>> {
    let (mut agent, mut proxy) = (AgentConfig::new("", ""), ServiceProxyConfig::new("", Vec::new()));
    apply_texts(texts, &mut agent, &mut proxy).map(drop)
}

fn apply_texts(
    texts: &[(&Path, String)],
    agent: &mut AgentConfig,
    proxy: &mut ServiceProxyConfig,
) -> Result<AppliedFiles, Vec<String>> {
    let (mut applied, mut problems, mut seen) = (AppliedFiles::default(), Vec::new(), Vec::new());
    for (file, text) in texts {
        let mut documents = Vec::new();
        for document in gojson::yaml::documents(text) {
            match document {
                Ok(Value::Null) => {}
                Ok(document) => documents.push(document),
                Err(error) => {
                    problems.push(format!("{}: {error}", file.display()));
                    // What follows broken text cannot be told apart.
                    break;
                }
            }
        }
        for document in documents {
            let kind = document["kind"].as_str().unwrap_or_default().to_owned();
            let found = if seen.contains(&kind) {
                Err(vec!["there is one already".to_owned()])
            } else {
                apply_document(&kind, document, agent, proxy, &mut applied)
            };
            let name = if kind.is_empty() { "a document without kind" } else { &kind };
            problems.extend(found.err().into_iter().flatten().map(|p| format!("{}: {name}: {p}", file.display())));
            seen.push(kind);
        }
    }
    if problems.is_empty() { Ok(applied) } else { Err(problems) }
}

fn apply_document(
    kind: &str,
    document: Value,
    agent: &mut AgentConfig,
    proxy: &mut ServiceProxyConfig,
    applied: &mut AppliedFiles,
) -> Result<(), Vec<String>> {
    match kind {
        "KubeletConfiguration" => {
            let kubelet = apply_kubelet_document(agent, document).map_err(|error| error.problems)?;
            applied.ignored.extend(kubelet.ignored);
            applied.unprotected.extend(kubelet.unprotected);
        }
        netproxy::config::KIND => {
            let kube_proxy = apply_kube_proxy_configuration(proxy, document)?;
            applied.ignored.extend(kube_proxy.ignored);
            applied.proxy_kubeconfig = kube_proxy.kubeconfig;
        }
        _ => return Err(vec!["only KubeletConfiguration and KubeProxyConfiguration are known".to_owned()]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    const PROXY: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

    fn read(texts: &[&str]) -> Result<(AgentConfig, ServiceProxyConfig, AppliedFiles), Vec<String>> {
        let (mut agent, mut proxy) = (AgentConfig::new("n", "/d"), ServiceProxyConfig::new("n", Vec::new()));
        let texts: Vec<_> = texts.iter().map(|text| (Path::new("f"), (*text).to_owned())).collect();
        apply_texts(&texts, &mut agent, &mut proxy).map(|applied| (agent, proxy, applied))
    }

    #[test]
    fn documents_find_their_reader_in_one_file_or_two() {
        let kubelet = format!("{KUBELET}maxPods: 7\nprotectKernelDefaults: true\n");
        let proxy = format!("{PROXY}nftables: {{masqueradeAll: true}}\nclientConnection: {{kubeconfig: /k, qps: 5}}\n");
        let one = format!("---\n{kubelet}---\n# nothing\n---\n{proxy}");
        for texts in [&[one.as_str()][..], &[&proxy, &kubelet]] {
            let (agent, proxy, applied) = read(texts).unwrap();
            assert_eq!((agent.node.max_pods, proxy.masquerade_all), (7, true));
            assert_eq!(applied.proxy_kubeconfig, Some("/k".into()));
            assert!(applied.unprotected.contains(&"protectKernelDefaults".to_owned()), "{applied:?}");
            assert!(applied.ignored.contains(&"clientConnection.qps".to_owned()), "{:?}", applied.ignored);
        }
        assert_eq!(read(&[]).unwrap().2, AppliedFiles::default());
    }

    #[test]
    fn problems_of_all_documents_come_at_once() {
        let kubelet = format!("{KUBELET}maxPods: many\n");
        let proxy = format!("{PROXY}mode: ipvs\nodd: 1\n---\n{PROXY}---\nkind: Pod\n---\n- 1\n---\n{{");
        let all = read(&[&kubelet, &proxy]).unwrap_err().join("\n");
        for line in [
            "f: KubeletConfiguration: maxPods",
            "f: KubeProxyConfiguration: mode: ipvs",
            "f: KubeProxyConfiguration: odd: unknown field",
            "f: KubeProxyConfiguration: there is one already",
            "f: Pod: only",
            "f: a document without kind: only",
        ] {
            assert!(all.contains(line), "{line} is not in\n{all}");
        }
        for garbage in ["\u{0}", "a: b: c", "3", "[", "kind: [KubeProxyConfiguration]"] {
            assert!(read(&[garbage]).is_err(), "{garbage:?}");
        }
    }
}
