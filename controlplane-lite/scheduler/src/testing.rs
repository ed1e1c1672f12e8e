//! Nodes and pods for the scheduler's tests.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, NodeSpec, NodeStatus, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pod::PodInfo;

/// A node that offers so much, and 110 pods.
pub fn node(name: &str, cpu: &str, memory: &str) -> Node {
    let offer = [("cpu", cpu), ("memory", memory), ("pods", "110")];
    Node {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("kubernetes.io/hostname".to_owned(), name.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus {
            allocatable: Some(offer.map(|(k, v)| (k.to_owned(), Quantity(v.to_owned()))).into()),
            ..NodeStatus::default()
        }),
    }
}

/// A pod object that asks for CPU (or for nothing when empty).
pub fn pod_object(name: &str, cpu: &str) -> Pod {
    let mut requests = BTreeMap::new();
    if !cpu.is_empty() {
        requests.insert("cpu".to_owned(), Quantity(cpu.to_owned()));
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(format!("uid-{name}")),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "c".to_owned(),
                resources: Some(ResourceRequirements { requests: Some(requests), ..Default::default() }),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// The scheduler's view of [`pod_object`].
pub fn pod(name: &str, cpu: &str) -> PodInfo {
    PodInfo::new(pod_object(name, cpu))
}

/// The same, bound.
pub fn pod_on(name: &str, cpu: &str, node: &str) -> PodInfo {
    PodInfo { node: Some(node.to_owned()), ..pod(name, cpu) }
}
