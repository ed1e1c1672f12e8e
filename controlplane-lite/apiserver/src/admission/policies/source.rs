//! The policies that are bound now, by name, each with its bindings (`policy/generic/policy_source.go`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::policy::{Binding, Policy, state};
use scheme::access::str_at;
use storage::Revision;
use storage::watch_cache::{Filter, ResourceCache};

/// A policy and its bindings.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub policy: Arc<Policy>,
    pub bindings: Vec<Arc<Binding>>,
}

/// Policies as of a change.
#[derive(Debug, Default)]
struct Known {
    changed: Option<(Revision, Revision)>,
    bound: Arc<[Bound]>,
}

/// The policies of one kind.
#[derive(Debug)]
pub(super) struct Source {
    policies: Arc<ResourceCache>,
    bindings: Arc<ResourceCache>,
    mutating: bool,
    known: ArcSwap<Known>,
    /// Held by whoever reads them anew.
    reading: Mutex<()>,
}

impl Source {
    pub(super) fn new(policies: Arc<ResourceCache>, bindings: Arc<ResourceCache>, mutating: bool) -> Self {
        Self { policies, bindings, mutating, known: ArcSwap::default(), reading: Mutex::default() }
    }

    fn changed(&self) -> Option<(Revision, Revision)> {
        Some((self.policies.changed(), self.bindings.changed()))
    }

    /// All policies with a binding. They are read again when one changed, and else shared.
    pub(super) fn bound(&self) -> Arc<[Bound]> {
        let known = self.known.load();
        if known.changed == self.changed() {
            return known.bound.clone();
        }
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the contents: what changes meanwhile is read the next time.
        let changed = self.changed();
        let known = self.known.load();
        if known.changed != changed {
            self.known.store(Arc::new(Known { changed, bound: self.read(&known.bound) }));
        }
        self.known.load().bound.clone()
    }

    fn read(&self, before: &[Bound]) -> Arc<[Bound]> {
        let mut bindings: HashMap<String, Vec<Arc<Binding>>> = HashMap::new();
        self.bindings.for_each(&Filter::all(), |object| {
            let binding = Binding::read(&object.value());
            bindings.entry(binding.policy.clone()).or_default().push(Arc::new(binding));
        });
        let mut bound = Vec::new();
        // In the order of keys, which is that of names.
        self.policies.for_each(&Filter::all(), |object| {
            let object = object.value();
            let Some(bindings) = bindings.remove(str_at(&object, &["metadata", "name"])) else { return };
            let now = state(&object);
            let kept = before.iter().find(|known| known.policy.state == now).map(|known| known.policy.clone());
            let policy = kept.unwrap_or_else(|| Arc::new(Policy::read(&object, self.mutating)));
            bound.push(Bound { policy, bindings });
        });
        bound.into()
    }
}
