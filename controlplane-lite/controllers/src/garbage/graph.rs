//! Who owns whom, as the watches of all resources show it. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Unique id of an object.
pub type Uid = Arc<str>;
/// Index of a resource type in the monitors' table.
pub type ResourceId = usize;

/// Finalizer of an object that waits for its dependents to be deleted.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object that waits for its dependents to be set free.
pub const ORPHAN: &str = "orphan";

/// A reference to an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Owner's uid.
    pub uid: Uid,
    /// Group and version.
    pub api_version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Name, in the namespace of the dependent.
    pub name: Box<str>,
    /// The owner may not go before this dependent.
    pub blocks: bool,
}

impl From<&OwnerReference> for Owner {
    fn from(r: &OwnerReference) -> Self {
        Self {
            uid: r.uid.as_str().into(),
            api_version: r.api_version.as_str().into(),
            kind: r.kind.as_str().into(),
            name: r.name.as_str().into(),
            blocks: r.block_owner_deletion == Some(true),
        }
    }
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Resource type.
    pub resource: ResourceId,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// Owners.
    pub owners: Box<[Owner]>,
    /// Deletion has been asked for.
    pub deleting: bool,
    /// It waits for its dependents to be deleted.
    pub foreground: bool,
    /// It waits for its dependents to be set free.
    pub orphaning: bool,
}

impl Object {
    /// Extracts what the graph keeps.
    pub fn new(resource: ResourceId, meta: &ObjectMeta) -> Self {
        let deleting = meta.deletion_timestamp.is_some();
        let has = |name: &str| deleting && meta.finalizers.iter().flatten().any(|f| f == name);
        Self {
            resource,
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
            owners: meta.owner_references.iter().flatten().map(Owner::from).collect(),
            deleting,
            foreground: has(FOREGROUND),
            orphaning: has(ORPHAN),
        }
    }
}

/// Whether a reference names the kind of a resource type.
pub type IsKind<'a> = dyn Fn(&Owner, ResourceId) -> bool + 'a;

/// Whether an object that is known is the one that a reference of `dependent`
/// names: a uid alone is no identity, since namespace, kind and name say where
/// else everybody looks for the owner.
pub fn refers_to(dependent: &Object, owner: &Owner, known: &Object, is_kind: &IsKind<'_>) -> bool {
    known.name == owner.name
        && (known.namespace.is_empty() || known.namespace == dependent.namespace)
        && is_kind(owner, known.resource)
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Whether the object still has a reason to be.
    Delete(Uid),
    /// Set the dependents of the object free.
    Orphan(Uid),
}

/// Objects and their dependents.
#[derive(Debug, Default)]
pub struct Graph {
    objects: HashMap<Uid, Object>,
    dependents: HashMap<Uid, BTreeSet<Uid>>,
}

impl Graph {
    /// An object.
    pub fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// Uids of the objects that name this one as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = (&Uid, &Object)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|u| self.objects.get_key_value(u))
    }

    /// Whether the object has dependents.
    pub fn has_dependents(&self, uid: &str) -> bool {
        self.dependents.get(uid).is_some_and(|d| !d.is_empty())
    }

    /// A new or changed object; what to look at because of it. `is_kind` compares kinds.
    ///
    /// A reference whose uid is known by another name, namespace or kind names no owner that anybody else would find,
    /// so its holder is looked at (upstream: `addDependentToOwners` in
    /// pkg/controller/garbagecollector/graph_builder.go).
    pub fn observe(&mut self, uid: &Uid, object: Object, is_kind: &IsKind<'_>) -> Vec<Work> {
        let mut work = Vec::new();
        let before = self.objects.insert(uid.clone(), object.clone());
        if before.as_ref() == Some(&object) {
            return work;
        }
        for owner in before.iter().flat_map(|b| &*b.owners) {
            let kept = object.owners.iter().find(|o| o.uid == owner.uid);
            if kept.is_none() {
                self.unlink(&owner.uid, uid);
            }
            // An owner may have waited for just this reference.
            let unblocked = owner.blocks && kept.is_none_or(|o| !o.blocks);
            if unblocked && self.objects.get(&owner.uid).is_some_and(|o| o.foreground) {
                work.push(Work::Delete(owner.uid.clone()));
            }
        }
        for owner in &*object.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            let known = self.objects.get(&owner.uid);
            if known.is_none_or(|o| o.foreground || !refers_to(&object, owner, o, is_kind)) {
                work.push(Work::Delete(uid.clone()));
            }
        }
        if object.orphaning {
            work.push(Work::Orphan(uid.clone()));
        }
        if object.foreground {
            work.push(Work::Delete(uid.clone()));
            work.extend(self.dependents(uid).map(|(u, _)| Work::Delete(u.clone())));
        }
        // An owner in foreground deletion waits for dependents being deleted, too.
        work.dedup();
        work
    }

    /// An object is gone; what to look at because of it.
    pub fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some(object) = self.objects.remove(uid) else { return Vec::new() };
        let mut work: Vec<Work> = self.dependents(uid).map(|(u, _)| Work::Delete(u.clone())).collect();
        for owner in &*object.owners {
            self.unlink(&owner.uid, uid);
            if self.objects.get(&owner.uid).is_some_and(|o| o.foreground) {
                work.push(Work::Delete(owner.uid.clone()));
            }
        }
        work
    }

    /// Uids of all objects of a resource type.
    pub fn of_resource(&self, resource: ResourceId) -> Vec<Uid> {
        self.objects.iter().filter(|(_, o)| o.resource == resource).map(|(u, _)| u.clone()).collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(dependent);
            if set.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn object(name: &str, owners: &[(&str, bool)]) -> Object {
        let owner = |(uid, blocks): &(&str, bool)| Owner {
            uid: (*uid).into(),
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: (*uid).into(),
            blocks: *blocks,
        };
        Object {
            resource: 0,
            namespace: "ns".into(),
            name: name.into(),
            owners: owners.iter().map(owner).collect(),
            deleting: false,
            foreground: false,
            orphaning: false,
        }
    }

    pub fn same_kind(_: &Owner, _: ResourceId) -> bool {
        true
    }

    pub fn delete(uid: &str) -> Work {
        Work::Delete(uid.into())
    }

    #[test]
    fn a_dependent_of_an_unknown_owner_is_looked_at() {
        let mut g = Graph::default();
        assert_eq!(g.observe(&"a".into(), object("a", &[]), &same_kind), []);
        assert_eq!(g.observe(&"b".into(), object("b", &[("a", false)]), &same_kind), []);
        assert_eq!(g.observe(&"c".into(), object("c", &[("x", false)]), &same_kind), [delete("c")]);
        assert_eq!(g.observe(&"c".into(), object("c", &[("x", false)]), &same_kind), [], "nothing changed");
    }

    #[test]
    fn a_dependent_that_names_another_object_is_looked_at() {
        let dependent = object("b", &[("a", false)]);
        let named = Object { name: "a".into(), ..object("a", &[]) };
        let looked_at = |owner: Object, kind: bool| {
            let mut g = Graph::default();
            g.observe(&"a".into(), owner, &same_kind);
            g.observe(&"b".into(), dependent.clone(), &|_, _| kind)
        };
        assert_eq!(looked_at(named.clone(), true), []);
        assert_eq!(looked_at(Object { namespace: "".into(), ..named.clone() }, true), [], "a cluster-scoped owner");
        assert_eq!(looked_at(named.clone(), false), [delete("b")], "another kind");
        assert_eq!(looked_at(Object { name: "c".into(), ..named.clone() }, true), [delete("b")]);
        assert_eq!(looked_at(Object { namespace: "other".into(), ..named }, true), [delete("b")]);
    }

    #[test]
    fn the_end_of_an_owner_concerns_its_dependents() {
        let mut g = Graph::default();
        g.observe(&"a".into(), object("a", &[]), &same_kind);
        g.observe(&"b".into(), object("b", &[("a", false)]), &same_kind);
        g.observe(&"c".into(), object("c", &[("b", false)]), &same_kind);
        assert_eq!(g.remove("a"), [delete("b")]);
        assert_eq!(g.remove("b"), [delete("c")]);
        assert_eq!(g.remove("b"), []);
        assert!(g.has_dependents("b") && !g.has_dependents("a"));
    }

    #[test]
    fn foreground_concerns_both_sides() {
        let mut g = Graph::default();
        g.observe(&"a".into(), object("a", &[]), &same_kind);
        g.observe(&"b".into(), object("b", &[("a", true)]), &same_kind);
        let waiting = Object { deleting: true, foreground: true, ..object("a", &[]) };
        assert_eq!(g.observe(&"a".into(), waiting, &same_kind), [delete("a"), delete("b")]);
        assert_eq!(g.observe(&"b".into(), object("b", &[("a", false)]), &same_kind), [delete("a"), delete("b")]);
        assert_eq!(g.remove("b"), [delete("a")]);
    }

    #[test]
    fn orphaning_is_noticed() {
        let mut g = Graph::default();
        let waiting = Object { deleting: true, orphaning: true, ..object("a", &[]) };
        assert_eq!(g.observe(&"a".into(), waiting, &same_kind), [Work::Orphan("a".into())]);
    }
}
