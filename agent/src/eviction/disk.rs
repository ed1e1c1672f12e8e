//! What pods have on the node's disk beside their containers' layers. A tree may take minutes to walk, and who decides
//! does not wait for it: each is walked in a task of its own, and looked up (upstream's
//! pkg/kubelet/server/stats/volume_stat_calculator.go).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cri::dirtree;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::config::Paths;
use crate::convert::sandbox::log_directory;
use crate::ids::PodUid;
use crate::plan::eviction::rank::Space;
use crate::podworker::files::pod_dir;

/// How many pods are measured at the same time.
const AT_ONCE: usize = 4;
/// How old a figure may be before it is taken anew: so many times what it took, and within these.
const REST: u32 = 10;
const LEAST_AGE: Duration = Duration::from_secs(10);
const GREATEST_AGE: Duration = Duration::from_secs(60);
/// What nobody has asked for this long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// How long a pod nothing is known of keeps others from being judged.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one pod has on the node's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    pub all: Space,
    /// Bytes by container.
    pub logs: BTreeMap<String, u64>,
    /// Bytes by volume.
    pub volumes: BTreeMap<String, u64>,
}

impl Files {
    /// Walks the pod's logs and volumes, and what else it writes to. Blocking.
    fn measure(paths: &Paths, pod: &Pod) -> Self {
        let mut out = Self::default();
        let Some(dir) = pod_dir(paths, &PodUid::of(pod)) else { return out };
        for (name, space) in spaces_in(&dir.join("volumes/kubernetes.io~empty-dir")) {
            out.all += space;
            out.volumes.insert(name, space.bytes);
        }
        for (name, space) in spaces_in(&paths.pod_logs.join(log_directory(pod))) {
            out.all += space;
            out.logs.insert(name, space.bytes);
        }
        // Its /etc/hosts, and the files of its containers' last words.
        for own in ["etc-hosts", "containers"] {
            out.all += dirtree::space(&dir.join(own));
        }
        out
    }
}

/// What the entries of a directory take, those on its own file system.
fn spaces_in(directory: &Path) -> Vec<(String, Space)> {
    let Ok(device) = fs::symlink_metadata(directory).map(|m| m.dev()) else { return Vec::new() };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let own = entries.filter(|e| e.metadata().is_ok_and(|m| m.dev() == device));
    own.map(|e| (e.file_name().to_string_lossy().into_owned(), dirtree::space(&e.path()))).collect()
}

#[derive(Debug)]
struct Known {
    files: Option<Arc<Files>>,
    /// When the last walk that ended was begun: what came later is not in its figures.
    began: Option<Instant>,
    /// When the walk under way was begun; one that waits for its turn was not.
    walking: Option<Instant>,
    /// From when on it is to be measured anew.
    due: Instant,
    busy: bool,
    first_asked: Instant,
    asked: Instant,
}

impl Known {
    fn new(now: Instant) -> Self {
        Self { files: None, began: None, walking: None, due: now, busy: false, first_asked: now, asked: now }
    }

    /// Whether what is known is new enough for who asks at `called`.
    fn is_new(&self, called: Instant) -> bool {
        self.began.is_some_and(|began| began + LEAST_AGE >= called)
    }
}

#[derive(Debug)]
struct Shared {
    known: Mutex<HashMap<PodUid, Known>>,
    places: Semaphore,
    /// Changes whenever a pod was measured.
    measured: watch::Sender<()>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The latest figures of pods.
#[derive(Clone, Debug)]
pub(super) struct DiskUsage {
    paths: Paths,
    shared: Arc<Shared>,
}

impl DiskUsage {
    /// Of pods whose files are in these places; none is known yet.
    pub fn new(paths: Paths) -> Self {
        let (places, measured) = (Semaphore::new(AT_ONCE), watch::channel(()).0);
        Self { paths, shared: Arc::new(Shared { known: Mutex::default(), places, measured }) }
    }

    /// What is known of a pod; it is measured beside that when it is time.
    pub fn latest(&self, pod: &Arc<Pod>) -> Option<Arc<Files>> {
        self.look(pod, |_| true).0
    }

    /// What is known of a pod, and whether that `will_do`. It is measured anew when it does not, or when it is time.
    fn look(&self, pod: &Arc<Pod>, will_do: impl Fn(&Known) -> bool) -> (Option<Arc<Files>>, bool) {
        let (now, uid) = (Instant::now(), PodUid::of(pod));
        let mut all = self.shared.lock();
        all.retain(|_, known| known.busy || now.duration_since(known.asked) < FORGOTTEN);
        let known = all.entry(uid.clone()).or_insert_with(|| Known::new(now));
        known.asked = now;
        let does = will_do(known);
        if !known.busy && (!does || known.due <= now) {
            known.busy = true;
            tokio::spawn(measure(self.paths.clone(), pod.clone(), uid, self.shared.clone()));
        }
        (known.files.clone(), does)
    }

    /// Waits, but not for long, until what is known of every one of these is of now. Who takes longer keeps the figures
    /// there are. Returns those nothing is known of because they take that long to walk; `None` as long as it is too
    /// early to say so.
    pub async fn settled(&self, pods: &[Arc<Pod>], limit: Duration) -> Option<HashSet<PodUid>> {
        let (called, mut measured) = (Instant::now(), self.shared.measured.subscribe());
        let is_old = |pod: &&Arc<Pod>| !self.look(pod, |known| known.is_new(called)).1;
        // Each is asked for, whoever is still old.
        let all = async { while pods.iter().filter(is_old).count() > 0 && measured.changed().await.is_ok() {} };
        // What is known by then has to do.
        let _ = tokio::time::timeout(limit, all).await;
        self.unmeasured(pods, called)
    }

    fn unmeasured(&self, pods: &[Arc<Pod>], called: Instant) -> Option<HashSet<PodUid>> {
        let (now, mut out) = (Instant::now(), HashSet::new());
        let all = self.shared.lock();
        for uid in pods.iter().map(|pod| PodUid::of(pod)) {
            let Some(known) = all.get(&uid).filter(|known| known.files.is_none()) else { continue };
            if now.duration_since(known.first_asked) < PATIENCE {
                return None;
            }
            // One whose turn did not come may be small.
            if known.walking.is_some_and(|began| began < called) {
                out.insert(uid);
            }
        }
        Some(out)
    }
}

async fn measure(paths: Paths, pod: Arc<Pod>, uid: PodUid, shared: Arc<Shared>) {
    let place = shared.places.acquire().await;
    let began = Instant::now();
    if let Some(known) = shared.lock().get_mut(&uid) {
        known.walking = Some(began);
    }
    let walk = tokio::task::spawn_blocking(move || Files::measure(&paths, &pod)).await;
    drop(place);
    let rest = (began.elapsed() * REST).clamp(LEAST_AGE, GREATEST_AGE);
    if let Some(known) = shared.lock().get_mut(&uid) {
        (known.busy, known.due) = (false, Instant::now() + rest);
        (known.began, known.walking) = (Some(began), None);
        known.files = walk.ok().map(Arc::new).or(known.files.take());
    }
    shared.measured.send_replace(());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testutil::{pod, worker_settings};

    #[test]
    fn entries_of_a_directory_are_measured_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), vec![1; 100_000]).unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        let found: BTreeMap<String, u64> =
            spaces_in(dir.path()).into_iter().map(|(name, space)| (name, space.inodes)).collect();
        assert_eq!(found, [("d".to_owned(), 2), ("f".to_owned(), 1)].into());
        assert!(spaces_in(&dir.path().join("none")).is_empty());
    }

    /// All that a pod can write to counts.
    #[test]
    fn nothing_of_a_pod_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, pod) = (worker_settings(dir.path()).paths, pod("  containers: [{name: a}]"));
        let own = pod_dir(&paths, &PodUid::of(&pod)).unwrap();
        let places = [
            own.join("volumes/kubernetes.io~empty-dir/v/f"),
            paths.pod_logs.join(log_directory(&pod)).join("a/0.log"),
            own.join("etc-hosts"),
            own.join("containers/a/1"),
        ];
        let mut before = Files::measure(&paths, &pod).all.bytes;
        for place in places {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, vec![1; 1 << 20]).unwrap();
            let now = Files::measure(&paths, &pod).all.bytes;
            assert!(now >= before + (1 << 20), "{}", place.display());
            before = now;
        }
        let found = Files::measure(&paths, &pod);
        assert!(found.volumes["v"] >= 1 << 20 && found.logs["a"] >= 1 << 20);
    }

    #[tokio::test(start_paused = true)]
    async fn figures_are_taken_aside_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let paths = worker_settings(dir.path()).paths;
        let pods = ["0", "1", "2", "3", "4", "5"].map(|uid| {
            let mut pod = pod("  containers: [{name: a}]");
            pod.metadata.uid = Some(uid.to_owned());
            Arc::new(pod)
        });
        let usage = DiskUsage::new(paths.clone());
        assert_eq!(usage.latest(&pods[0]), None, "nobody waits for it");
        assert_eq!(usage.settled(&pods, Duration::from_secs(3600)).await, Some(HashSet::new()));
        assert!(pods.iter().all(|pod| usage.latest(pod).is_some()));
        // They hold for some time.
        let file = pod_dir(&paths, &PodUid::of(&pods[0])).unwrap().join("etc-hosts");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        assert_eq!(usage.latest(&pods[0]).unwrap().all, Space::default());
        let mut measured = usage.shared.measured.subscribe();
        tokio::time::advance(LEAST_AGE).await;
        usage.latest(&pods[0]);
        measured.changed().await.unwrap();
        assert!(usage.latest(&pods[0]).unwrap().all.bytes >= 1 << 20);
    }

    /// A walk that does not end holds up nobody who asks.
    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_waited_for_only_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let usage = DiskUsage::new(worker_settings(dir.path()).paths);
        let _all = usage.shared.places.acquire_many(u32::try_from(AT_ONCE).unwrap()).await.unwrap();
        let pods = [Arc::new(pod("  containers: [{name: a}]"))];
        let began = Instant::now();
        let limit = Duration::from_secs(5);
        assert_eq!(usage.settled(&pods, limit).await, None, "it may come to light soon");
        assert_eq!((began.elapsed(), usage.latest(&pods[0])), (limit, None));
        tokio::time::advance(PATIENCE).await;
        assert_eq!(usage.settled(&pods, limit).await, Some(HashSet::new()), "its turn did not come");
        let uid = PodUid::of(&pods[0]);
        usage.shared.lock().get_mut(&uid).unwrap().walking = Some(began);
        assert_eq!(usage.settled(&pods, limit).await, Some(HashSet::from([uid])), "it is large");
    }

    /// Whoever is to decide on them does not get figures of earlier.
    #[tokio::test(start_paused = true)]
    async fn what_grew_since_it_was_measured_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let paths = worker_settings(dir.path()).paths;
        let (usage, pods) = (DiskUsage::new(paths.clone()), [Arc::new(pod("  containers: [{name: a}]"))]);
        let limit = Duration::from_secs(3600);
        let settled = async || usage.settled(&pods, limit).await.map(|_| usage.latest(&pods[0]).unwrap().all.bytes);
        assert_eq!(settled().await, Some(0));
        // It was walked slowly, and rests.
        usage.shared.lock().get_mut(&PodUid::of(&pods[0])).unwrap().due += GREATEST_AGE;
        let file = pod_dir(&paths, &PodUid::of(&pods[0])).unwrap().join("etc-hosts");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        assert_eq!(settled().await, Some(0), "nobody walks all the time");
        tokio::time::advance(LEAST_AGE + Duration::from_secs(1)).await;
        let grown = settled().await.unwrap();
        assert!(grown >= 1 << 20, "{grown}");
    }
}
