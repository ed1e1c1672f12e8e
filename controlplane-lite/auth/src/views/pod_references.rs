//! What each pod refers to, as of its last change: kubelets ask for every object that they read, before anything limits
//! them, and a pod may be a megabyte (upstream keeps a graph of it, `plugin/pkg/auth/authorizer/node/graph.go`). Read
//! when first asked for, once for every state of a pod; what is kept of it is eight bytes a name.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::authz::node;
use crate::pod::Reference;
use storage::watch_cache::ResourceCache;
use storage::{Object, Revision};

/// Pods that may be gone and are remembered all the same, beside as many as there are.
const SPARE: usize = 16;

/// Hashes of the names that a pod refers to, sorted. Nobody knows the keys they are hashed with, so that nobody can
/// make up two names with the same hash.
type Names = Arc<OnceLock<Box<[u64]>>>;

/// The pods that were asked about, by namespace and name, and how many there may be before those that are gone are
/// looked for.
#[derive(Debug, Default)]
struct Asked {
    pods: HashMap<(Box<str>, Box<str>), (Revision, Names)>,
    bound: usize,
}

/// What pods refer to.
#[derive(Debug, Default)]
pub(super) struct PodReferences {
    keys: RandomState,
    asked: Mutex<Asked>,
    #[cfg(test)]
    reads: std::sync::atomic::AtomicUsize,
}

impl PodReferences {
    /// Whether a pod gives its node the right to an object.
    pub(super) fn has(&self, cache: &ResourceCache, pod: &Object, what: Reference, name: &str) -> bool {
        let names = self.names(cache, pod);
        // Outside the lock: others that ask about the same pod wait, those that ask about another do not.
        let names = names.get_or_init(|| self.read(pod));
        names.binary_search(&self.hash(what, name)).is_ok()
    }

    /// Where the names of this state of a pod are, or will be.
    fn names(&self, cache: &ResourceCache, pod: &Object) -> Names {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (pod.namespace().into(), pod.name().into());
        if let Some((revision, names)) = asked.pods.get(&key)
            && *revision == pod.revision()
        {
            return names.clone();
        }
        if asked.pods.len() >= asked.bound {
            asked.pods.retain(|(namespace, name), _| cache.get(namespace, name).is_some());
            asked.bound = 2 * asked.pods.len() + SPARE;
        }
        let names = Names::default();
        asked.pods.insert(key, (pod.revision(), names.clone()));
        names
    }

    fn read(&self, pod: &Object) -> Box<[u64]> {
        #[cfg(test)]
        self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut names = Vec::new();
        node::rights(&pod.value(), &mut |what, name| names.push(self.hash(what, name)));
        names.sort_unstable();
        names.dedup();
        names.into_boxed_slice()
    }

    fn hash(&self, what: Reference, name: &str) -> u64 {
        self.keys.hash_one((what, name))
    }

    /// Pods decoded so far.
    #[cfg(test)]
    pub(super) fn reads(&self) -> usize {
        self.reads.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Pods that are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).pods.len()
    }
}
