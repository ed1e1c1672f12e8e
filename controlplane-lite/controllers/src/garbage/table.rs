//! The resources that the collector knows, and what a discovery changes of that, as upstream's `resyncMonitors`
//! (pkg/controller/garbagecollector/garbagecollector.go). Pure.

use super::graph::ResourceId;
use crate::namespace::{Discovered, Resource};

/// Resources by their number. One that is withdrawn keeps its own: its objects are in the graph until it is there
/// again.
#[derive(Debug, Default)]
pub struct Table(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    resource: Resource,
    served: bool,
}

/// What is to be done after a discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The resource is new, there again, or there in another version or with other verbs: it is to be followed as it is
    /// now.
    Follow(ResourceId, Resource),
    /// It is served no longer.
    Leave(ResourceId),
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

impl Table {
    /// A resource, served or not.
    pub fn get(&self, id: ResourceId) -> Option<&Resource> {
        self.0.get(id).map(|entry| &entry.resource)
    }

    /// A resource that is served.
    pub fn served(&self, id: ResourceId) -> Option<&Resource> {
        self.0.get(id).filter(|entry| entry.served).map(|entry| &entry.resource)
    }

    /// The resource that serves a kind, in whatever version.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        let is_it = |entry: &&Entry| entry.served && is_kind(&entry.resource, api_version, kind);
        self.0.iter().find(is_it).map(|entry| &entry.resource)
    }

    /// Whether a resource is of a kind, in whatever version.
    pub fn is_kind(&self, id: ResourceId, api_version: &str, kind: &str) -> bool {
        self.get(id).is_some_and(|resource| is_kind(resource, api_version, kind))
    }

    /// Takes in what was found. What a group that did not answer serves is not known: it stays as it was.
    pub fn learn(&mut self, found: &Discovered) -> Vec<Change> {
        let mut changes = Vec::new();
        if found.resources.is_empty() {
            // Of a server that answers nothing else is asked, either.
            return changes;
        }
        let failed = |api_version: &str| found.failures.iter().any(|(failed, _)| failed == api_version);
        let failed_group = |group: &str| found.failures.iter().any(|(failed, _)| group_of(failed) == group);
        let same = |a: &Resource, b: &Resource| a.api.group == b.api.group && a.api.plural == b.api.plural;
        for (id, entry) in self.0.iter_mut().enumerate().filter(|(_, entry)| entry.served) {
            let is_there = found.resources.iter().any(|resource| same(resource, &entry.resource));
            if !is_there && !failed_group(&entry.resource.api.group) {
                entry.served = false;
                changes.push(Change::Leave(id));
            }
        }
        for resource in &found.resources {
            let known = self.0.iter_mut().enumerate().find(|(_, entry)| same(&entry.resource, resource));
            let Some((id, entry)) = known else {
                changes.push(Change::Follow(self.0.len(), resource.clone()));
                self.0.push(Entry { resource: resource.clone(), served: true });
                continue;
            };
            let unclear = entry.served && failed(&entry.resource.api.api_version);
            if unclear || (entry.served && entry.resource == *resource) {
                continue;
            }
            *entry = Entry { resource: resource.clone(), served: true };
            changes.push(Change::Follow(id, resource.clone()));
        }
        changes
    }
}

fn is_kind(resource: &Resource, api_version: &str, kind: &str) -> bool {
    resource.api.group == group_of(api_version) && resource.api.kind == kind
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use kube::core::discovery::ApiResource;

    fn resource(api_version: &str, plural: &str, kind: &str) -> Resource {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let api = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        Resource { api, namespaced: true, verbs: vec!["list".to_owned()] }
    }

    fn found(resources: &[&Resource], failures: &[&str]) -> Discovered {
        Discovered {
            resources: resources.iter().map(|&resource| resource.clone()).collect(),
            failures: failures.iter().map(|failed| ((*failed).to_owned(), "no".to_owned())).collect(),
        }
    }

    #[test]
    fn resources_come_go_and_come_back() {
        let [pods, one, two] =
            [("v1", "pods", "Pod"), ("x/v1", "ws", "W"), ("x/v2", "ws", "W")].map(|(a, b, c)| resource(a, b, c));
        let mut table = Table::default();
        let follow = |id, resource: &Resource| vec![Change::Follow(id, resource.clone())];
        assert_eq!(table.learn(&found(&[&pods], &[])), follow(0, &pods));
        assert_eq!(table.learn(&found(&[&pods, &one], &[])), follow(1, &one));
        assert_eq!(table.learn(&found(&[&pods, &one], &[])), [], "nothing new");
        assert_eq!(table.learn(&found(&[&pods], &["x/v1"])), [], "nobody knows");
        assert_eq!(table.learn(&found(&[&pods, &two], &["x/v1"])), [], "of this version neither");
        assert_eq!(table.learn(&found(&[], &[])), []);
        assert_eq!(table.find("x/v9", "W"), Some(&one));
        assert_eq!(table.learn(&found(&[&pods], &[])), [Change::Leave(1)]);
        assert_eq!((table.served(1), table.get(1), table.find("x/v1", "W")), (None, Some(&one), None));
        assert!(table.is_kind(1, "x/v1", "W") && !table.is_kind(1, "v1", "W"));
        assert_eq!(table.learn(&found(&[&pods], &[])), [], "it is gone");
        assert_eq!(table.learn(&found(&[&pods, &two], &[])), follow(1, &two));
        assert_eq!((table.served(1), table.find("x/v1", "W")), (Some(&two), Some(&two)));
        assert_eq!(table.learn(&found(&[&pods, &one], &[])), follow(1, &one), "another is preferred");
        let more = Resource { verbs: vec!["list".to_owned(), "watch".to_owned()], ..one.clone() };
        assert_eq!(table.learn(&found(&[&pods, &more], &[])), follow(1, &more));
    }
}
