//! Volumes as real mounts, in a mount namespace of the test's own thread.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use harness::time;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec, TokenRequestStatus};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

mod lifetime;

use super::*;
use crate::ids::ObjectName;
use crate::objectcache::{ObjectError, ObjectKind, ObjectRef};

#[derive(Debug)]
pub(crate) struct FakeReader {
    maps: Mutex<BTreeMap<String, ConfigMap>>,
    secrets: Mutex<BTreeMap<String, Secret>>,
    away: Mutex<bool>,
    /// Asked, and without an answer for ever.
    hung: tokio::sync::Notify,
    hangs: std::sync::atomic::AtomicBool,
    issued: AtomicU32,
    /// How often a token was asked for.
    asked: AtomicU32,
    token_life: i64,
    changes: broadcast::Sender<ObjectRef>,
}

impl FakeReader {
    pub(crate) fn new(token_life: i64) -> Arc<Self> {
        Arc::new(Self {
            maps: Mutex::default(),
            secrets: Mutex::default(),
            away: Mutex::new(false),
            hung: tokio::sync::Notify::new(),
            hangs: false.into(),
            issued: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            token_life,
            changes: broadcast::channel(16).0,
        })
    }

    pub(crate) fn set_map(&self, name: &str, data: &[(&str, &str)]) {
        let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.maps.lock().unwrap().insert(name.into(), ConfigMap { data: Some(data), ..ConfigMap::default() });
        let _ = self.changes.send(ObjectRef { kind: ObjectKind::ConfigMap, name: ObjectName::new("ns", name) });
    }

    fn set_secret(&self, name: &str, data: &[(&str, &str)]) {
        let data = data.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec()))).collect();
        self.secrets.lock().unwrap().insert(name.into(), Secret { data: Some(data), ..Secret::default() });
    }

    /// A pull secret of a registry's password.
    pub(crate) fn set_pull_secret(&self, name: &str, uid: &str, registry: &str, password: &str) {
        let text = json!({"auths": {registry: {"username": "u", "password": password}}}).to_string();
        let secret = Secret {
            metadata: ObjectMeta { uid: Some(uid.to_owned()), name: Some(name.to_owned()), ..ObjectMeta::default() },
            type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
            data: Some([(".dockerconfigjson".to_owned(), ByteString(text.into_bytes()))].into()),
            ..Secret::default()
        };
        self.secrets.lock().unwrap().insert(name.into(), secret);
    }

    fn found<T>(&self, kind: &'static str, name: &ObjectName, value: Option<T>) -> Result<Arc<T>, ObjectError> {
        if *self.away.lock().unwrap() {
            return Err(ObjectError::Unavailable { kind, name: name.clone(), message: "connection refused".into() });
        }
        value.map(Arc::new).ok_or_else(|| ObjectError::NotFound { kind, name: name.name.clone() })
    }
}

#[async_trait]
impl ObjectReader for FakeReader {
    async fn config_map(&self, name: &ObjectName) -> Result<Arc<ConfigMap>, ObjectError> {
        if self.hangs.load(Ordering::SeqCst) {
            self.hung.notify_one();
            std::future::pending::<()>().await;
        }
        let value = self.maps.lock().unwrap().get(&*name.name).cloned();
        self.found("configmap", name, value)
    }

    async fn secret(&self, name: &ObjectName) -> Result<Arc<Secret>, ObjectError> {
        let value = self.secrets.lock().unwrap().get(&*name.name).cloned();
        self.found("secret", name, value)
    }

    async fn service_account_token(
        &self,
        name: &ObjectName,
        spec: &TokenRequestSpec,
    ) -> Result<TokenRequest, ObjectError> {
        assert!(self.asked.fetch_add(1, Ordering::SeqCst) < 1000, "without a pause");
        self.found("serviceaccount", name, Some(()))?;
        assert_eq!(spec.bound_object_ref.as_ref().unwrap().uid.as_deref(), Some("uid-1"));
        let n = self.issued.fetch_add(1, Ordering::SeqCst) + 1;
        let expires = Timestamp::now() + Duration::from_secs(self.token_life.try_into().unwrap());
        let status =
            TokenRequestStatus { token: Some(format!("token-{n}")), expiration_timestamp: Some(Time(expires)) };
        Ok(TokenRequest { spec: Some(spec.clone()), status: Some(status), ..Default::default() })
    }

    fn changes(&self) -> broadcast::Receiver<ObjectRef> {
        self.changes.subscribe()
    }
}

/// Runs a test on a thread of its own with a private mount namespace, so that
/// nothing is left behind whatever happens.
pub(crate) fn in_mount_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    in_mount_namespace_on(|builder| builder, test);
}

fn in_mount_namespace_on<F: Future<Output = ()>>(
    with: fn(&mut tokio::runtime::Builder) -> &mut tokio::runtime::Builder,
    test: impl FnOnce() -> F + Send + 'static,
) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("volume tests need root: they mount in a namespace of their own");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        with(builder.enable_all()).build().unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn set_at(dir: &Path, reader: &Arc<FakeReader>) -> Arc<VolumeManager> {
    let config = VolumeConfig { pods_root: dir.join("pods"), fields: FieldContext::default() };
    let (events, receiver) = EventRecorder::channel(64);
    // The receiver only has to stay open.
    std::mem::forget(receiver);
    VolumeManager::new(config, reader.clone(), events, Arc::new(|_| {}))
}

/// What the agent runs beside its pod workers, until it is dropped.
struct Agent(CancellationToken);

impl Agent {
    fn on(set: &Arc<VolumeManager>) -> Self {
        let token = CancellationToken::new();
        let (set, ended) = (set.clone(), token.clone());
        tokio::spawn(async move { set.run(ended).await });
        Self(token)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn pod(spec: serde_json::Value) -> Arc<Pod> {
    let metadata = json!({"name": "p", "namespace": "ns", "uid": "uid-1", "labels": {"a": "1"}});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

async fn eventually(what: &str, check: impl Fn() -> bool) {
    time::eventually_true(what, async || check()).await.unwrap();
}

#[test]
fn every_kind_comes_up_and_goes_away() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        reader.set_map("cm", &[("k", "v")]);
        reader.set_secret("sec", &[("user", "me"), ("pass", "word")]);
        let set = set_at(dir.path(), &reader);
        let host = dir.path().join("host");
        let pod = pod(json!({
            "serviceAccountName": "sa", "securityContext": {"fsGroup": 2000},
            "containers": [{"name": "c"}],
            "volumes": [
                {"name": "disk", "emptyDir": {}},
                {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "host", "hostPath": {"path": host, "type": "DirectoryOrCreate"}},
                {"name": "cm", "configMap": {"name": "cm"}},
                {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
                {"name": "all", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                    {"configMap": {"name": "cm", "items": [{"key": "k", "path": "x/k"}]}},
                    {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
                {"name": "opt", "secret": {"secretName": "none", "optional": true}}]}));
        let mounted = set.set_up(&pod).await.unwrap();
        let path = |name: &str| mounted.host_paths[name].clone();
        assert_eq!(mode(&path("disk")), 0o2777);
        assert_eq!(fs::metadata(path("disk")).unwrap().gid(), 2000);
        let size = nix::sys::statvfs::statvfs(&path("mem")).unwrap();
        assert_eq!(size.blocks() * size.fragment_size(), 1 << 20);
        assert!(host.is_dir());
        assert_eq!(fs::read_to_string(path("cm").join("k")).unwrap(), "v");
        assert_eq!(mode(&path("sec").join("user")), 0o440);
        assert!(mounts::is_other_filesystem(&path("sec")).unwrap(), "secrets stay in memory");
        assert_eq!(fs::read_to_string(path("all").join("token")).unwrap(), "token-1");
        assert_eq!(mode(&path("all").join("token")), 0o640);
        assert_eq!(fs::read_to_string(path("all").join("labels")).unwrap(), "a=\"1\"");
        assert_eq!(fs::read_to_string(path("all").join("x/k")).unwrap(), "v");
        assert!(!path("opt").join("user").exists());

        // Again, and again by an agent that was killed: nothing changes.
        fs::write(path("mem").join("data"), "kept").unwrap();
        assert!(Arc::ptr_eq(&set.set_up(&pod).await.unwrap(), &mounted));
        let reborn = set_at(dir.path(), &reader);
        assert_eq!(*reborn.set_up(&pod).await.unwrap(), *mounted);
        assert_eq!(fs::read_to_string(path("mem").join("data")).unwrap(), "kept");
        assert_eq!(reborn.pods_on_disk(), [PodUid::new("uid-1")]);

        fs::write(host.join("precious"), "x").unwrap();
        set_at(dir.path(), &reader).tear_down(&PodUid::new("uid-1")).await.unwrap();
        assert!(!dir.path().join("pods/uid-1/volumes").exists());
        assert!(mounts::mounts_below(dir.path()).unwrap().is_empty());
        assert!(host.join("precious").exists());
    });
}

#[test]
fn files_follow_their_objects() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        reader.set_map("cm", &[("k", "1")]);
        let set = set_at(dir.path(), &reader);
        let _agent = Agent::on(&set);
        let first = pod(json!({"containers": [], "volumes": [
            {"name": "cm", "configMap": {"name": "cm"}},
            {"name": "down", "downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}));
        let mounted = set.set_up(&first).await.unwrap();
        let file = mounted.host_paths["cm"].join("k");
        reader.set_map("cm", &[("k", "2"), ("l", "x")]);
        eventually("the changed file is seen", || fs::read_to_string(&file).is_ok_and(|text| text == "2")).await;
        assert!(mounted.host_paths["cm"].join("l").exists());

        // An object that vanishes leaves the files.
        reader.maps.lock().unwrap().clear();
        let _ = reader.changes.send(ObjectRef { kind: ObjectKind::ConfigMap, name: ObjectName::new("ns", "cm") });
        reader.set_map("other", &[]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "2");

        let mut changed = Pod::clone(&first);
        changed.metadata.labels = Some([("b".to_owned(), "2".to_owned())].into());
        set.set_up(&Arc::new(changed)).await.unwrap();
        let labels = mounted.host_paths["down"].join("labels");
        eventually("the labels", || fs::read_to_string(&labels).is_ok_and(|text| text == "b=\"2\"")).await;
        set.tear_down(&PodUid::new("uid-1")).await.unwrap();
    });
}

#[test]
fn a_pod_that_waits_hears_when_its_object_comes() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        let (heard_tx, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let config = VolumeConfig { pods_root: dir.path().join("pods"), fields: FieldContext::default() };
        let sink: ChangeSink = Arc::new(move |uid: &PodUid| heard_tx.send(uid.clone()).unwrap());
        let set = VolumeManager::new(config, reader.clone(), EventRecorder::channel(1).0, sink);
        let _agent = Agent::on(&set);
        let pod = pod(json!({"containers": [], "volumes": [{"name": "cm", "configMap": {"name": "late"}}]}));
        set.set_up(&pod).await.unwrap_err();
        reader.set_map("other", &[("k", "1")]);
        reader.set_map("late", &[("k", "1")]);
        let first = time::within("the change", heard.recv()).await.unwrap();
        assert_eq!(first, Some(PodUid::of(&pod)));
        set.set_up(&pod).await.unwrap();
    });
}

/// A data directory behind a link: the kernel's table shows other paths than
/// ours, and a mount that was overlooked would take the host's files along.
#[test]
fn mounts_are_found_behind_links_and_never_entered() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (real, linked, host) = (dir.path().join("real"), dir.path().join("linked"), dir.path().join("host"));
        fs::create_dir(&real).unwrap();
        fs::create_dir_all(host.join("sub")).unwrap();
        fs::write(host.join("sub/precious"), "x").unwrap();
        std::os::unix::fs::symlink(&real, &linked).unwrap();
        let set = set_at(&linked, &FakeReader::new(3600));
        let pod = pod(json!({
            "containers": [{"name": "c", "volumeMounts": [{"name": "h", "mountPath": "/h", "subPath": "sub"}]}],
            "volumes": [{"name": "h", "hostPath": {"path": host}}, {"name": "m", "emptyDir": {"medium": "Memory"}}]}));
        let volumes = set.set_up(&pod).await.unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mounted = set.container_mounts(&pod, container, &[], &volumes).await.unwrap();
        assert_eq!(set.container_mounts(&pod, container, &[], &volumes).await.unwrap(), mounted);
        // Removal alone refuses to go in.
        let error = cri::dirtree::remove(&linked.join("pods/uid-1/volume-subpaths")).unwrap_err();
        assert!(error.to_string().contains("still mounted"), "{error}");
        set.tear_down(&PodUid::of(&pod)).await.unwrap();
        assert!(!real.join("pods/uid-1/volume-subpaths").exists() && !real.join("pods/uid-1/volumes").exists());
        assert!(host.join("sub/precious").exists());
        assert!(mounts::mounts_below(&real).unwrap().is_empty());
    });
}

#[test]
fn missing_objects_and_unknown_volumes_are_named() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        reader.set_secret("s", &[("a", "1")]);
        let set = set_at(dir.path(), &reader);
        for (volume, expect) in [
            (json!({"name": "v", "configMap": {"name": "x"}}), "configmap \"x\" not found"),
            (
                json!({"name": "v", "secret": {"secretName": "s", "items": [{"key": "b", "path": "b"}]}}),
                "references non-existent secret key: b",
            ),
            (
                json!({"name": "v", "hostPath": {"path": "/nonexistent-dir", "type": "Directory"}}),
                "hostPath type check failed: /nonexistent-dir is not a directory",
            ),
            (json!({"name": "v", "csi": {"driver": "d"}}), "csi volumes are not supported by this node"),
        ] {
            let pod = pod(json!({"containers": [], "volumes": [volume]}));
            let error = set.set_up(&pod).await.unwrap_err().to_string();
            assert_eq!(error, format!("MountVolume.SetUp failed for volume \"v\" : {expect}"));
            set.tear_down(&PodUid::of(&pod)).await.unwrap();
        }
        let evil: Pod = serde_json::from_value(json!({"metadata": {"uid": "../../etc"}})).unwrap();
        assert!(set.set_up(&Arc::new(evil)).await.is_err());
        set.tear_down(&PodUid::new("../../etc")).await.unwrap();
    });
}

#[test]
fn an_absent_api_server_does_not_take_adopted_files() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        reader.set_map("cm", &[("k", "1")]);
        let pod = pod(json!({"containers": [], "volumes": [{"name": "cm", "configMap": {"name": "cm"}}]}));
        set_at(dir.path(), &reader).set_up(&pod).await.unwrap();
        *reader.away.lock().unwrap() = true;
        let set = set_at(dir.path(), &reader);
        let mounted = set.set_up(&pod).await.unwrap();
        let file = mounted.host_paths["cm"].join("k");
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
        // Once it is back, the files catch up by themselves.
        *reader.away.lock().unwrap() = false;
        reader.maps.lock().unwrap().insert(
            "cm".into(),
            ConfigMap { data: Some([("k".to_owned(), "2".to_owned())].into()), ..ConfigMap::default() },
        );
        let _agent = Agent::on(&set);
        eventually("the files catch up", || fs::read_to_string(&file).is_ok_and(|text| text == "2")).await;
    });
}

/// The same with time that passes when nothing else is to be done.
fn in_mount_namespace_paused<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    in_mount_namespace_on(|builder| builder.start_paused(true), test);
}

#[test]
fn tokens_are_renewed_at_four_fifths_of_their_life() {
    in_mount_namespace_paused(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(1000);
        let set = set_at(dir.path(), &reader);
        let _agent = Agent::on(&set);
        let pod = pod(json!({"containers": [], "volumes": [{"name": "t", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token"}}]}}]}));
        let file = set.set_up(&pod).await.unwrap().host_paths["t"].join("token");
        assert_eq!(fs::read_to_string(&file).unwrap(), "token-1");
        tokio::time::sleep(Duration::from_secs(780)).await;
        assert_eq!(fs::read_to_string(&file).unwrap(), "token-1");
        eventually("a new token", || fs::read_to_string(&file).is_ok_and(|text| text == "token-2")).await;
    });
}

/// The API server is away for longer than a token lives; the pod runs on, and another one waits for what it lacks.
#[test]
fn a_token_that_cannot_be_renewed_is_asked_for_with_pauses() {
    in_mount_namespace_paused(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(1000);
        let set = set_at(dir.path(), &reader);
        let _agent = Agent::on(&set);
        let token = json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}});
        let runs = pod(json!({"containers": [], "volumes": [token]}));
        let file = set.set_up(&runs).await.unwrap().host_paths["t"].join("token");
        let mut waits = Pod::clone(&pod(
            json!({"containers": [], "volumes": [token, {"name": "c", "configMap": {"name": "none"}}]}),
        ));
        waits.metadata.name = Some("waits".into());
        let waits = Arc::new(waits);
        let other = VolumeConfig { pods_root: dir.path().join("others"), fields: FieldContext::default() };
        let other = VolumeManager::new(other, reader.clone(), EventRecorder::channel(1).0, Arc::new(|_| {}));
        let _other_agent = Agent::on(&other);
        other.set_up(&waits).await.unwrap_err();
        *reader.away.lock().unwrap() = true;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let asked = reader.asked.load(Ordering::SeqCst);
        assert!((4..100).contains(&asked), "{asked}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "token-1", "what there is stays");
        *reader.away.lock().unwrap() = false;
        // Longer than any pause.
        tokio::time::sleep(Duration::from_secs(180)).await;
        eventually("a new token", || fs::read_to_string(&file).is_ok_and(|text| text == "token-3")).await;
    });
}

#[test]
fn sub_paths_are_bound_safely() {
    in_mount_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let reader = FakeReader::new(3600);
        reader.set_map("cm", &[("k", "1")]);
        let set = set_at(dir.path(), &reader);
        let _agent = Agent::on(&set);
        let pod = pod(json!({
            "containers": [{"name": "c", "volumeMounts": [
                {"name": "e", "mountPath": "/a", "subPath": "x/y"},
                {"name": "e", "mountPath": "b", "subPathExpr": "$(POD)", "readOnly": true,
                    "mountPropagation": "HostToContainer"},
                {"name": "cm", "mountPath": "/etc/k", "subPath": "k"},
                {"name": "cm", "mountPath": "/cm"}]}],
            "volumes": [{"name": "e", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "cm"}}]}));
        let volumes = set.set_up(&pod).await.unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        let env = [("POD".to_owned(), "p-0".to_owned())];
        let mounts = set.container_mounts(&pod, &container, &env, &volumes).await.unwrap();
        assert_eq!(mounts[1].container_path, "/b");
        assert!(mounts[1].readonly && !mounts[0].readonly && mounts[3].readonly);
        assert_eq!(mounts[1].propagation, MountPropagation::HostToContainer);
        fs::write(Path::new(&mounts[0].host_path).join("f"), "through").unwrap();
        assert_eq!(fs::read_to_string(volumes.host_paths["e"].join("x/y/f")).unwrap(), "through");
        assert_eq!(fs::read_to_string(&mounts[2].host_path).unwrap(), "1");
        let count = mounts::mounts_below(dir.path()).unwrap().len();

        // The same container again gets the same mounts, and new content of a file.
        reader.set_map("cm", &[("k", "2")]);
        let shown = volumes.host_paths["cm"].join("k");
        eventually("the changed file is seen", || fs::read_to_string(&shown).is_ok_and(|text| text == "2")).await;
        let again = set.container_mounts(&pod, &container, &env, &volumes).await.unwrap();
        assert_eq!(again, mounts);
        assert_eq!(fs::read_to_string(&mounts[2].host_path).unwrap(), "2");
        assert_eq!(mounts::mounts_below(dir.path()).unwrap().len(), count);

        // A link planted by the container leads nowhere.
        std::os::unix::fs::symlink("/etc", volumes.host_paths["e"].join("evil")).unwrap();
        let mut evil = container.clone();
        evil.volume_mounts.as_mut().unwrap()[0].sub_path = Some("evil".into());
        let error = set.container_mounts(&pod, &evil, &env, &volumes).await.unwrap_err().to_string();
        assert!(error.contains("outside the volume"), "{error}");
        assert!(error.starts_with("failed to prepare subPath for volumeMount \"e\" of container \"c\""), "{error}");
        let error = set.container_mounts(&pod, &container, &[], &volumes).await.unwrap_err().to_string();
        assert!(error.contains("missing value for \"POD\""), "{error}");

        set.tear_down(&PodUid::of(&pod)).await.unwrap();
        assert!(mounts::mounts_below(dir.path()).unwrap().is_empty());
        assert!(!dir.path().join("pods/uid-1/volume-subpaths").exists());
    });
}
