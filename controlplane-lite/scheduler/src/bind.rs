//! Performs what the engine decides: bindings, conditions, events.

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::engine::Input;
use super::pod::PodInfo;
use client::events::{EventType, Recorder};

/// Binds a pod and says how it went.
pub async fn bind(client: &Client, events: &Recorder, pod: &PodInfo, node: &str) -> Input {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.0.to_string()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let answer: Result<kube::core::Status, _> =
        api.create_subresource("binding", &pod.name, &PostParams::default(), &binding).await;
    let uid = pod.uid.clone();
    match answer {
        Ok(_) => {
            let text = format!("Successfully assigned {} to {node}", pod.key());
            events.event_on(reference(pod), EventType::Normal, "Scheduled", text);
            Input::Bound(uid)
        }
        Err(error) => {
            // Gone, or bound by someone else: the watch will tell.
            let gone = matches!(&error, kube::Error::Api(status) if status.code == 404);
            if !gone {
                tracing::debug!(pod = %pod.key(), node, %error, "binding refused");
                let text = format!("binding rejected: running Bind plugin \"DefaultBinder\": {error}");
                events.event_on(reference(pod), EventType::Warning, "FailedScheduling", text);
            }
            Input::BindFailed { uid, retry: !gone }
        }
    }
}

/// Writes why a pod waits: an event each time, the condition when it changed.
pub async fn report(client: &Client, events: &Recorder, pod: &PodInfo, message: &str, now: jiff::Timestamp) {
    events.event_on(reference(pod), EventType::Warning, "FailedScheduling", message);
    if pod.unschedulable_message.as_deref() == Some(message) {
        return;
    }
    let condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": Time(now),
    });
    let patch = json!({"metadata": {"uid": &*pod.uid.0}, "status": {"conditions": [condition]}});
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    if let Err(error) = api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
        tracing::debug!(pod = %pod.key(), %error, "condition not written");
    }
}

fn reference(pod: &PodInfo) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name.clone()),
        namespace: Some(pod.namespace.clone()),
        uid: Some(pod.uid.0.to_string()),
        resource_version: pod.resource_version.clone(),
        ..ObjectReference::default()
    }
}
