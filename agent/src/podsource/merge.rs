//! Merges the sources into one desired set.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::{DesiredPod, DesiredPods, DesiredRx, PodOrigin};
use crate::convert::spec;
use crate::ids::{ObjectName, PodUid};

#[derive(Debug, Default)]
struct Sources {
    /// `None` until the source was read in full.
    api: Option<BTreeMap<PodUid, Arc<Pod>>>,
    file: Option<BTreeMap<PodUid, Arc<Pod>>>,
    url: Option<BTreeMap<PodUid, Arc<Pod>>>,
}

/// Collects what the sources say. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Merger {
    sources: Arc<Mutex<Sources>>,
    out: Arc<watch::Sender<Arc<DesiredPods>>>,
}

/// The set all sources make together. Pure.
fn merged(sources: &Sources) -> DesiredPods {
    let mut out = DesiredPods { api_synced: sources.api.is_some(), ..DesiredPods::default() };
    for (list, origin) in [(&sources.file, PodOrigin::File), (&sources.url, PodOrigin::Url)] {
        for (uid, pod) in list.iter().flatten() {
            out.pods.insert(uid.clone(), DesiredPod { pod: pod.clone(), origin });
        }
    }
    for (uid, pod) in sources.api.iter().flatten() {
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
        let sources = Sources { api: none(has_api), file: none(has_file), url: none(has_url) };
        (Self { sources: Arc::new(Mutex::new(sources)), out: Arc::new(tx) }, rx)
    }

    fn change(&self, f: impl FnOnce(&mut Sources)) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut sources);
        // A static pod whose source is not read yet must not look unwanted.
        if sources.file.is_some() && sources.url.is_some() {
            self.out.send_replace(Arc::new(merged(&sources)));
        }
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
            let (slot, uid) = (s.slot(origin).get_or_insert_default(), PodUid::of(&pod));
            let pod = marked(origin, pod, slot.get(&uid));
            slot.insert(uid, pod);
        });
    }

    /// One pod of a source is gone.
    pub fn remove(&self, origin: PodOrigin, uid: &PodUid) {
        self.change(|s| {
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
    fn nothing_before_files_are_read_and_mirrors_stand_apart() {
        let (merger, rx) = Merger::new(true, true, false);
        let mirror = &format!("metadata: {{name: s-n, namespace: d, uid: m, {MIRROR}}}");
        merger.replace(PodOrigin::Api, [pod("metadata: {uid: a}"), pod(mirror)].into());
        assert!(!rx.borrow().api_synced, "a static pod's absence would be believed");
        merger.replace(PodOrigin::File, [pod("metadata: {uid: s}")].into());
        let now = rx.borrow().clone();
        assert!(now.api_synced);
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
        assert!(!rx.borrow().api_synced);
        assert_eq!(rx.borrow().pods.len(), 1);
    }
}
