//! Mirror pods: what shows static pods at the API server.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{DesiredPods, DesiredRx};
use crate::convert::spec::{self, CONFIG_HASH, CONFIG_MIRROR};
use crate::ids::{ObjectName, PodUid, segment};
use crate::podworker::{NodeView, PodWorkers};

/// What to do at the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum MirrorAction {
    Create(Box<Pod>),
    Delete { name: ObjectName, uid: String },
}

/// The mirror of a static pod.
fn mirror_of(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let meta = &mut mirror.metadata;
    let hash = meta.annotations.as_ref().and_then(|a| a.get(CONFIG_HASH)).cloned().unwrap_or_default();
    meta.annotations.get_or_insert_default().insert(CONFIG_MIRROR.to_owned(), hash);
    meta.uid = None;
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None;
    mirror
}

/// What makes mirrors fit the static pods. `running` are those that are worked on:
/// while one ends that is not wanted any more, its mirror stays and shows it, and
/// its successor has none yet. Pure.
pub fn plan(desired: &DesiredPods, running: &HashMap<ObjectName, PodUid>, node: &Node) -> Vec<MirrorAction> {
    if !desired.ready.api {
        return Vec::new();
    }
    let wanted: BTreeMap<ObjectName, &Arc<Pod>> =
        desired.pods.values().filter(|p| p.is_static()).map(|p| (ObjectName::of_pod(&p.pod), &p.pod)).collect();
    let ends = |name: &ObjectName| running.get(name).is_some_and(|uid| !desired.pods.contains_key(uid));
    let mut out = Vec::new();
    for (name, mirror) in desired.mirrors.iter().filter(|(name, _)| !ends(name)) {
        let fits = match wanted.get(name) {
            Some(pod) => {
                spec::annotation(pod, CONFIG_HASH) == spec::annotation(mirror, CONFIG_MIRROR)
                    && mirror.metadata.deletion_timestamp.is_none()
            }
            // Its pod may be of a source that was not read yet.
            None => !desired.ready.all(),
        };
        if !fits {
            let uid = mirror.metadata.uid.clone().unwrap_or_default();
            out.push(MirrorAction::Delete { name: name.clone(), uid });
        }
    }
    let missing = wanted.iter().filter(|(name, _)| !desired.mirrors.contains_key(*name) && !ends(name));
    out.extend(missing.map(|(_, pod)| MirrorAction::Create(Box::new(mirror_of(pod, node)))));
    out
}

/// Keeps mirrors right until cancelled.
pub async fn run(
    client: kube::Client,
    mut desired: DesiredRx,
    mut node: watch::Receiver<Arc<NodeView>>,
    workers: PodWorkers,
    token: CancellationToken,
) {
    let mut ends = workers.ends();
    let mut retry: Option<Duration> = None;
    loop {
        let view = node.borrow_and_update().node.clone();
        ends.borrow_and_update();
        let now = desired.borrow_and_update().clone();
        if let Some(object) = view {
            let mut failed = false;
            for action in plan(&now, &workers.static_pods(), &object) {
                if let Err(error) = perform(&client, action).await {
                    failed = true;
                    tracing::debug!(%error, "mirror pod not written");
                }
            }
            retry = failed.then(|| retry.map_or(Duration::from_millis(500), |r| (r * 2).min(Duration::from_secs(30))));
        }
        let timer = async {
            match retry {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        // Cancel-safe: all arms only wait; the latest values are read above.
        tokio::select! {
            () = token.cancelled() => return,
            changed = desired.changed() => if changed.is_err() { return },
            changed = node.changed() => if changed.is_err() { return },
            changed = ends.changed() => if changed.is_err() { return },
            () = timer => {}
        }
    }
}

async fn perform(client: &kube::Client, action: MirrorAction) -> Result<(), kube::Error> {
    // What is to be deleted and is gone already is well; a namespace that is not there yet is waited for.
    let deletes = matches!(action, MirrorAction::Delete { .. });
    let result = match action {
        MirrorAction::Create(pod) => {
            let api: Api<Pod> = Api::namespaced(client.clone(), &ObjectName::of_pod(&pod).namespace);
            api.create(&PostParams::default(), &pod).await.map(drop)
        }
        MirrorAction::Delete { name, uid } => {
            let api: Api<Pod> = Api::namespaced(client.clone(), &name.namespace);
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
                ..DeleteParams::default()
            };
            api.delete(&segment(&name.name), &params).await.map(drop)
        }
    };
    match result {
        // It exists, or is another by now: the watch tells which.
        Err(kube::Error::Api(status)) if status.code == 409 || deletes && status.code == 404 => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::podsource::{DesiredPod, PodOrigin, SourcesReady, static_pod};

    #[test]
    fn mirrors_follow_static_pods() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: i}]}";
        let pod = Arc::new(static_pod::parse(text, PodOrigin::File, "n", "t").unwrap());
        let node: Node = serde_norway::from_str("metadata: {name: n, uid: nu}").unwrap();
        let mut desired = DesiredPods::default();
        desired.pods.insert(PodUid::of(&pod), DesiredPod { pod: pod.clone(), origin: PodOrigin::File });
        let nothing = HashMap::new();
        assert!(plan(&desired, &nothing, &node).is_empty(), "nothing before the API is known");
        desired.ready.api = true;
        let actions = plan(&desired, &nothing, &node);
        let MirrorAction::Create(mirror) = &actions[0] else { panic!("{actions:?}") };
        assert!(spec::is_mirror(mirror) && mirror.metadata.uid.is_none());
        assert_eq!(mirror.metadata.owner_references.as_ref().unwrap()[0].uid, "nu");
        let mut shown = Pod::clone(mirror);
        shown.metadata.uid = Some("m".into());
        desired.mirrors.insert(ObjectName::of_pod(&shown), Arc::new(shown.clone()));
        assert!(plan(&desired, &nothing, &node).is_empty());
        // The manifest goes or changes: its mirror stays until the pod has ended.
        let name = ObjectName::of_pod(&shown);
        let running = HashMap::from([(name.clone(), PodUid::of(&pod))]);
        let delete = MirrorAction::Delete { name: name.clone(), uid: "m".into() };
        desired.pods.clear();
        assert!(plan(&desired, &running, &node).is_empty());
        assert!(plan(&desired, &nothing, &node).is_empty(), "its source may not be read yet");
        desired.ready = SourcesReady::ALL;
        assert_eq!(plan(&desired, &nothing, &node), std::slice::from_ref(&delete));
        let changed =
            Arc::new(static_pod::parse(&text.replace("image: i", "image: j"), PodOrigin::File, "n", "t").unwrap());
        desired.pods.insert(PodUid::of(&changed), DesiredPod { pod: changed.clone(), origin: PodOrigin::File });
        assert!(plan(&desired, &running, &node).is_empty());
        assert_eq!(plan(&desired, &nothing, &node), [delete]);
        // Somebody deleted the mirror meanwhile: the successor's comes in its turn.
        desired.mirrors.clear();
        assert!(plan(&desired, &running, &node).is_empty());
        let successor = HashMap::from([(name, PodUid::of(&changed))]);
        assert!(matches!(plan(&desired, &successor, &node)[..], [MirrorAction::Create(_)]));
    }
}
