//! Workers with real volumes, in a mount namespace of the test's own: what they
//! do in every sync is all that keeps files current.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::harness::{Node, pod};
use crate::contract::{ChangeSink, PodVolumes};
use crate::convert::fields::FieldContext;
use crate::events::EventRecorder;
use crate::ids::PodUid;
use crate::volume::tests::{FakeReader, in_mount_namespace};
use crate::volume::{VolumeConfig, VolumeManager};

const POD: &str = "  containers: [{name: a}]
  volumes:
  - {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: map, configMap: {name: cm}}
  - name: all
    projected:
      sources:
      - downwardAPI: {items: [{path: notes, fieldRef: {fieldPath: metadata.annotations}}]}
      - configMap: {name: cm}";

/// Puts real volumes below `dir` into the node, and runs them as the agent does.
fn put_volumes(node: &Node, dir: &Path, reader: &Arc<FakeReader>, token: &CancellationToken) {
    let config = VolumeConfig { pods_root: dir.join("pods"), fields: FieldContext::default() };
    let workers = node.workers.clone();
    let sink: ChangeSink = Arc::new(move |uid: &PodUid| workers.wake(uid));
    let set = VolumeManager::new(config, reader.clone(), EventRecorder::channel(64).0, sink);
    *node.volumes.real.lock().unwrap() = Some(set.clone() as Arc<dyn PodVolumes>);
    let token = token.clone();
    tokio::spawn(async move { set.run(token).await });
}

#[test]
fn files_of_a_running_pod_follow_also_after_a_restart() {
    in_mount_namespace(|| async {
        let (dir, reader) = (tempfile::tempdir().unwrap(), FakeReader::new(3600));
        reader.set_map("cm", &[("k", "1")]);
        let shows = |volume: &str, file: &str, text: &str| {
            let path = dir.path().join("pods/u/volumes").join(volume).join(file);
            std::fs::read_to_string(path).is_ok_and(|found| found == text)
        };
        let (down, map, all) =
            ("kubernetes.io~downward-api/down", "kubernetes.io~configmap/map", "kubernetes.io~projected/all");
        let labelled = |label: &str, note: &str| {
            let mut p = pod(POD);
            p.metadata.labels = Some([("a".to_owned(), label.to_owned())].into());
            p.metadata.annotations = Some([("n".to_owned(), note.to_owned())].into());
            p
        };
        let node = Node::start().await;
        let life = CancellationToken::new();
        put_volumes(&node, dir.path(), &reader, &life);
        let first = labelled("1", "x");
        node.want(std::slice::from_ref(&first));
        node.until("ready", |n| n.is_ready(&first)).await;
        assert!(shows(down, "labels", "a=\"1\"") && shows(map, "k", "1") && shows(all, "notes", "n=\"x\""));

        let second = labelled("2", "y");
        node.want(std::slice::from_ref(&second));
        node.until("labels", |_| shows(down, "labels", "a=\"2\"") && shows(all, "notes", "n=\"y\"")).await;

        // Another agent; meanwhile everything changed.
        life.cancel();
        reader.set_map("cm", &[("k", "2")]);
        let node = node.restart().await;
        let life = CancellationToken::new();
        put_volumes(&node, dir.path(), &reader, &life);
        let third = labelled("3", "z");
        node.want(std::slice::from_ref(&third));
        node.until("what changed meanwhile", |_| shows(down, "labels", "a=\"3\"") && shows(map, "k", "2")).await;
        reader.set_map("cm", &[("k", "3")]);
        node.until("what changes later", |_| shows(map, "k", "3") && shows(all, "k", "3")).await;
        let fourth = labelled("4", "z");
        node.want(std::slice::from_ref(&fourth));
        node.until("labels again", |_| shows(down, "labels", "a=\"4\"")).await;
        assert_eq!(node.runtime.containers().len(), 1, "nothing was started for that");
        node.want(&[]);
        node.until("gone", |_| !dir.path().join("pods/u/volumes").exists()).await;
        life.cancel();
    });
}
