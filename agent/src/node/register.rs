//! Making the node object exist, with this node's labels.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::facts::MachineInfo;
use crate::config::NodeSettings;

/// Labels every node carries, and the configured ones.
pub fn labels(settings: &NodeSettings, machine: &MachineInfo) -> BTreeMap<String, String> {
    let own = [
        ("beta.kubernetes.io/arch", machine.architecture.as_str()),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", machine.architecture.as_str()),
        ("kubernetes.io/hostname", settings.hostname.as_str()),
        ("kubernetes.io/os", "linux"),
    ];
    let mut out: BTreeMap<String, String> = own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    out.extend(settings.labels.clone());
    out
}

/// The node object as first created.
pub fn node_object(settings: &NodeSettings, machine: &MachineInfo, status: &NodeStatus) -> Node {
    let taints: Vec<Taint> = settings.taints.clone();
    Node {
        metadata: ObjectMeta {
            name: Some(settings.name.clone()),
            labels: Some(labels(settings, machine)),
            annotations: Some(
                [("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())].into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!taints.is_empty()).then_some(taints),
            provider_id: settings.provider_id.clone(),
            ..NodeSpec::default()
        }),
        status: Some(status.clone()),
    }
}

/// The patch that gives an existing node the labels it lacks, or `None`. Taints
/// are for registration only: what an operator changed later stays.
pub fn labels_patch(node: &Node, settings: &NodeSettings, machine: &MachineInfo) -> Option<Value> {
    let have = node.metadata.labels.as_ref();
    let missing: BTreeMap<String, String> = labels(settings, machine)
        .into_iter()
        .filter(|(key, value)| have.and_then(|h| h.get(key)) != Some(value))
        .collect();
    (!missing.is_empty()).then(|| json!({"metadata": {"labels": missing}}))
}

/// Creates the node, or gives an existing one its labels. Returns the object.
pub async fn register(
    api: &Api<Node>,
    settings: &NodeSettings,
    machine: &MachineInfo,
    status: &NodeStatus,
) -> Result<Node, kube::Error> {
    if let Some(node) = api.get_opt(&settings.name).await? {
        let Some(patch) = labels_patch(&node, settings, machine) else { return Ok(node) };
        return api.patch(&settings.name, &PatchParams::default(), &Patch::Merge(patch)).await;
    }
    match api.create(&PostParams::default(), &node_object(settings, machine, status)).await {
        // Somebody was faster: theirs is as good.
        Err(kube::Error::Api(error)) if error.code == 409 => api.get(&settings.name).await,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_are_added_and_others_stay() {
        let mut settings = crate::config::AgentConfig::new("n1", "/d").node;
        settings.labels.insert("disk".into(), "ssd".into());
        let machine = MachineInfo { architecture: "amd64".into(), ..MachineInfo::default() };
        let mut node = node_object(&settings, &machine, &NodeStatus::default());
        assert_eq!(labels_patch(&node, &settings, &machine), None);
        let labels = node.metadata.labels.as_mut().unwrap();
        labels.insert("own".into(), "x".into());
        labels.insert("disk".into(), "hdd".into());
        let patch = labels_patch(&node, &settings, &machine).unwrap();
        assert_eq!(patch, json!({"metadata": {"labels": {"disk": "ssd"}}}));
    }
}
