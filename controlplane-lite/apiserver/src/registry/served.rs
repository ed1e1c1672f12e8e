//! What is served at one moment: the kinds and, with them, the resources that hold their objects and the documents
//! that describe them. It never changes, so whoever holds one sees all of a change or nothing of it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::Resource;
use crate::documents::Documents;
use scheme::{Kind, Scheme};

/// One state of what is served.
#[derive(Debug)]
pub struct Served {
    /// The kinds.
    pub scheme: Arc<Scheme>,
    /// By group and plural.
    resources: Vec<Arc<Resource>>,
    pub(crate) documents: Documents,
}

impl Served {
    pub(super) fn new(scheme: Arc<Scheme>, mut resources: Vec<Arc<Resource>>, documents: Documents) -> Self {
        resources.sort_by(|a, b| place(a).cmp(&place(b)));
        Self { scheme, resources, documents }
    }

    /// The state with another scheme: `added` holds the objects of what is new, resources of which the scheme knows
    /// nothing go, and documents in which nothing changed stay.
    pub(super) fn with(&self, scheme: Scheme, added: Option<Arc<Resource>>) -> Self {
        let known = places(&scheme);
        let stays = |resource: &&Arc<Resource>| known.contains(&Arc::as_ptr(&resource.kind));
        let resources = self.resources.iter().filter(stays).cloned().chain(added).collect();
        let changed = changed(&self.scheme, &scheme);
        let documents = self.documents.but(|group, version| changed.contains(&(group, version)));
        Self::new(Arc::new(scheme), resources, documents)
    }

    /// The resource that holds objects served as `kind`.
    pub fn resource(&self, kind: &Kind) -> Option<&Arc<Resource>> {
        self.get(kind.storage_group(), kind.storage_plural())
    }

    /// The resource stored as `group/plural`.
    pub fn get(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        let found = self.resources.binary_search_by(|resource| place(resource).cmp(&(group, plural))).ok()?;
        Some(&self.resources[found])
    }
}

fn place(resource: &Resource) -> (&str, &str) {
    (&resource.kind.group, &resource.kind.plural)
}

/// Where the kinds are, which tells one from another of the same names.
fn places(scheme: &Scheme) -> HashSet<*const Kind> {
    scheme.kinds().map(Arc::as_ptr).collect()
}

/// The groups and versions in which two schemes differ.
fn changed<'s>(before: &'s Scheme, after: &'s Scheme) -> BTreeSet<(&'s str, &'s str)> {
    let only_in = |one: &'s Scheme, other: &'s Scheme| {
        let known = places(other);
        let kinds = one.kinds().filter(|kind| !known.contains(&Arc::as_ptr(kind)));
        kinds.map(|kind| (&*kind.group, &*kind.version)).collect::<Vec<_>>()
    };
    only_in(before, after).into_iter().chain(only_in(after, before)).collect()
}
