//! Merges the sources into one desired set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::{DesiredPod, DesiredPods, DesiredRx, PodOrigin, SourcesReady};
use crate::convert::spec;
use crate::ids::{ObjectName, PodUid};

#[derive(Debug, Default)]
struct Sources {
    /// `None` until the source was read in full.
    api: Option<BTreeMap<PodUid, Arc<Pod>>>,
    file: Option<BTreeMap<PodUid, Arc<Pod>>>,
    url: Option<BTreeMap<PodUid, Arc<Pod>>>,
    /// Of the API server: there, and never readable so far.
    unreadable: BTreeSet<PodUid>,
}

/// Collects what the sources say. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Merger {
    sources: Arc<Mutex<Sources>>,
    out: Arc<watch::Sender<Arc<DesiredPods>>>,
}

/// The set all sources make together: each adds what it has, whatever the others
/// are waited for (pkg/kubelet/config/config.go: `Merge`). Of two static pods of
/// one name the file's counts. Pure.
fn merged(sources: &Sources) -> DesiredPods {
    let Sources { api, file, url, unreadable } = sources;
    let ready = SourcesReady { api: api.is_some(), file: file.is_some(), url: url.is_some() };
    let mut out = DesiredPods { ready, unreadable: unreadable.clone(), ..DesiredPods::default() };
    let mut names = BTreeSet::new();
    for (list, origin) in [(file, PodOrigin::File), (url, PodOrigin::Url)] {
        for (uid, pod) in list.iter().flatten().filter(|(_, pod)| names.insert(ObjectName::of_pod(pod))) {
            out.pods.insert(uid.clone(), DesiredPod { pod: pod.clone(), origin });
        }
    }
    for (uid, pod) in api.iter().flatten() {
        if spec::is_mirror(pod) {
            out.mirrors.insert(ObjectName::of_pod(pod), pod.clone());
        } else {
            out.pods.insert(uid.clone(), DesiredPod { pod: pod.clone(), origin: PodOrigin::Api });
        }
    }
    out
}

/// The pod with its true source: what an annotation of an API pod claims makes no
/// static pod of it. (A mirror pod repeats its static pod's annotations.)
fn marked(origin: PodOrigin, mut pod: Arc<Pod>, before: Option<&Arc<Pod>>) -> Arc<Pod> {
    // A pod that runs would seem to be gone, and with it every protection of its end.
    if origin == PodOrigin::Api && spec::is_mirror(&pod) && before.is_some_and(|before| !spec::is_mirror(before)) {
        Arc::make_mut(&mut pod).metadata.annotations.get_or_insert_default().remove(spec::CONFIG_MIRROR);
    }
    let claimed = spec::annotation(&pod, spec::CONFIG_SOURCE);
    if origin == PodOrigin::Api && claimed.is_some_and(|c| c != origin.as_str()) && !spec::is_mirror(&pod) {
        let annotations = Arc::make_mut(&mut pod).metadata.annotations.get_or_insert_default();
        annotations.insert(spec::CONFIG_SOURCE.to_owned(), origin.as_str().to_owned());
    }
    pod
}

impl Merger {
    /// A merger that waits for the sources it is told of. Sources that do not
    /// exist count as read and empty.
    pub fn new(has_api: bool, has_file: bool, has_url: bool) -> (Self, DesiredRx) {
        let (tx, rx) = watch::channel(Arc::new(DesiredPods::default()));
        let none = |has: bool| if has { None } else { Some(BTreeMap::new()) };
        let unreadable = BTreeSet::new();
        let sources = Sources { api: none(has_api), file: none(has_file), url: none(has_url), unreadable };
        tx.send_replace(Arc::new(merged(&sources)));
        (Self { sources: Arc::new(Mutex::new(sources)), out: Arc::new(tx) }, rx)
    }

    fn change(&self, f: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut sources);
        self.out.send_replace(Arc::new(merged(&sources)));
    }

    /// Replaces everything the API server has. Of those that cannot be read what was known stays: to act on an old
    /// state is mended by the next one, and to end a pod is not.
    pub fn replace_listed(&self, pods: BTreeMap<PodUid, Arc<Pod>>, unreadable: BTreeSet<PodUid>) {
        self.change(|s| {
            let before = s.api.take().unwrap_or_default();
            let readable = pods.into_iter().map(|(uid, pod)| {
                let pod = marked(PodOrigin::Api, pod, before.get(&uid));
                (uid, pod)
            });
            let mut pods: BTreeMap<_, _> = readable.collect();
            s.unreadable.clear();
            for uid in unreadable {
                match before.get(&uid) {
                    Some(known) => _ = pods.insert(uid, known.clone()),
                    None => _ = s.unreadable.insert(uid),
                }
            }
            s.api = Some(pods);
        });
    }

    /// A pod of the API server is new or different, and cannot be read.
    pub fn unreadable(&self, uid: PodUid) {
        self.change(|s| {
            if !s.api.as_ref().is_some_and(|known| known.contains_key(&uid)) {
                s.unreadable.insert(uid);
            }
        });
    }

    /// Replaces everything a source has.
    pub fn replace(&self, origin: PodOrigin, pods: BTreeMap<PodUid, Arc<Pod>>) {
        self.change(|s| {
            let slot = s.slot(origin);
            let before = slot.take().unwrap_or_default();
            let marked = |(uid, pod)| {
                let pod = marked(origin, pod, before.get(&uid));
                (uid, pod)
            };
            *slot = Some(pods.into_iter().map(marked).collect());
        });
    }

    /// One pod of a source that was read in full before is new or different.
    pub fn apply(&self, origin: PodOrigin, pod: Arc<Pod>) {
        self.change(|s| {
            let uid = PodUid::of(&pod);
            s.unreadable.remove(&uid);
            let slot = s.slot(origin).get_or_insert_default();
            let pod = marked(origin, pod, slot.get(&uid));
            slot.insert(uid, pod);
        });
    }

    /// One pod of a source is gone.
    pub fn remove(&self, origin: PodOrigin, uid: &PodUid) {
        self.change(|s| {
            s.unreadable.remove(uid);
            s.slot(origin).get_or_insert_default().remove(uid);
        });
    }
}

impl Sources {
    fn slot(&mut self, origin: PodOrigin) -> &mut Option<BTreeMap<PodUid, Arc<Pod>>> {
        match origin {
            PodOrigin::Api => &mut self.api,
            PodOrigin::File => &mut self.file,
            PodOrigin::Url => &mut self.url,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(text: &str) -> (PodUid, Arc<Pod>) {
        let pod: Pod = serde_norway::from_str(text).unwrap();
        (PodUid::of(&pod), Arc::new(pod))
    }

    #[test]
    fn each_source_counts_at_once_and_mirrors_stand_apart() {
        let (merger, rx) = Merger::new(true, true, false);
        assert_eq!(rx.borrow().ready, SourcesReady { url: true, ..SourcesReady::default() }, "there is no URL");
        let mirror = &format!("metadata: {{name: s-n, namespace: d, uid: m, {MIRROR}}}");
        merger.replace(PodOrigin::Api, [pod("metadata: {uid: a}"), pod(mirror)].into());
        assert!(rx.borrow().pods.contains_key(&PodUid::new("a")), "whatever the files are waited for");
        assert!(rx.borrow().ready.api && !rx.borrow().ready.all(), "a static pod's absence would be believed");
        merger.replace(PodOrigin::File, [pod("metadata: {name: s, uid: s}")].into());
        let now = rx.borrow().clone();
        assert!(now.ready.all());
        assert_eq!(now.pods.keys().map(PodUid::as_str).collect::<Vec<_>>(), ["a", "s"]);
        assert!(now.mirrors.contains_key(&ObjectName::new("d", "s-n")));
        merger.remove(PodOrigin::Api, &PodUid::new("a"));
        merger.apply(PodOrigin::Api, pod("metadata: {uid: b}").1);
        assert_eq!(rx.borrow().pods.keys().map(PodUid::as_str).collect::<Vec<_>>(), ["b", "s"]);
    }

    /// What a mirror pod has beyond others.
    const MIRROR: &str = "annotations: {kubernetes.io/config.mirror: h}, ownerReferences: [\
                          {apiVersion: v1, kind: Node, name: n, uid: u, controller: true}]";

    #[test]
    fn an_annotation_makes_no_mirror_of_a_pod() {
        let (merger, rx) = Merger::new(true, false, false);
        let runs = |uid: &str| rx.borrow().pods.contains_key(&PodUid::new(uid));
        merger.replace(PodOrigin::Api, [pod("metadata: {uid: a}"), pod("metadata: {uid: b}")].into());
        // Without its Node as owner it is an ordinary pod with an annotation.
        merger.apply(PodOrigin::Api, pod("metadata: {uid: c, annotations: {kubernetes.io/config.mirror: h}}").1);
        assert!(runs("c"));
        // A pod that runs becomes none, not even with an owner.
        merger.apply(PodOrigin::Api, pod(&format!("metadata: {{uid: a, {MIRROR}}}")).1);
        assert!(runs("a") && rx.borrow().mirrors.is_empty());
        let all = ["a", "b"].map(|uid| pod(&format!("metadata: {{uid: {uid}, {MIRROR}}}")));
        merger.replace(PodOrigin::Api, all.into());
        assert!(runs("a") && runs("b") && rx.borrow().mirrors.is_empty());
    }

    #[test]
    fn an_annotation_makes_no_static_pod() {
        let (merger, rx) = Merger::new(true, false, false);
        let claims = "metadata: {uid: a, name: p, annotations: {kubernetes.io/config.source: file, x: y}}";
        let is_static = |uid: &str| {
            let desired = rx.borrow().clone();
            let found = &desired.pods[&PodUid::new(uid)];
            (found.is_static(), spec::is_static(&found.pod), spec::is_critical(&found.pod))
        };
        merger.replace(PodOrigin::Api, [pod(claims)].into());
        assert_eq!(is_static("a"), (false, false, false));
        assert_eq!(spec::annotation(&rx.borrow().pods[&PodUid::new("a")].pod, "x"), Some("y"));
        merger.apply(PodOrigin::Api, pod(&claims.replace("uid: a", "uid: b")).1);
        assert_eq!(is_static("b"), (false, false, false));
        merger.apply(PodOrigin::File, pod(&claims.replace("uid: a", "uid: c")).1);
        assert_eq!(is_static("c"), (true, true, true));
    }

    #[test]
    fn static_pods_run_before_the_api_is_known() {
        let (merger, rx) = Merger::new(true, true, false);
        merger.replace(PodOrigin::File, [pod("metadata: {uid: s}")].into());
        assert!(!rx.borrow().ready.api);
        assert_eq!(rx.borrow().pods.len(), 1);
    }

    #[test]
    fn one_name_is_one_static_pod() {
        let (merger, rx) = Merger::new(false, true, true);
        let uids = || rx.borrow().pods.keys().map(ToString::to_string).collect::<Vec<_>>();
        merger.replace(PodOrigin::Url, [pod("metadata: {name: s, uid: a}"), pod("metadata: {name: t, uid: b}")].into());
        merger.replace(PodOrigin::File, [pod("metadata: {name: s, uid: c}")].into());
        assert_eq!(uids(), ["b", "c"]);
        merger.replace(PodOrigin::File, BTreeMap::new());
        assert_eq!(uids(), ["a", "b"], "the other one's turn");
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_was_known() {
        let (merger, rx) = Merger::new(true, false, false);
        let uid = |name: &'static str| PodUid::new(name);
        let labels = |name: &'static str| rx.borrow().pods[&uid(name)].pod.metadata.labels.clone();
        merger.replace_listed([pod("metadata: {uid: a, labels: {v: '1'}}")].into(), [uid("odd")].into());
        assert!(rx.borrow().ready.api && rx.borrow().wants(&uid("odd")) && !rx.borrow().pods.contains_key(&uid("odd")));
        let before = labels("a");
        merger.unreadable(uid("a"));
        merger.unreadable(uid("b"));
        assert_eq!((labels("a"), rx.borrow().unreadable.clone()), (before.clone(), [uid("b"), uid("odd")].into()));
        merger.replace_listed(BTreeMap::new(), [uid("a"), uid("odd")].into());
        assert_eq!((labels("a"), rx.borrow().unreadable.clone()), (before, [uid("odd")].into()));
        // What can be read again, and what is gone.
        merger.apply(PodOrigin::Api, pod("metadata: {uid: odd}").1);
        merger.remove(PodOrigin::Api, &uid("a"));
        assert!(rx.borrow().unreadable.is_empty() && !rx.borrow().wants(&uid("a")) && rx.borrow().wants(&uid("odd")));
        merger.unreadable(uid("b"));
        merger.remove(PodOrigin::Api, &uid("b"));
        assert!(!rx.borrow().wants(&uid("b")));
    }
}
