//! The index of roles and bindings. A change of one of them costs the reading of that
//! one and the rebuilding of its namespace; the rest is shared with the index before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::authz::rbac::{Binding, PolicyRule, RbacView, Role};
use storage::watch_cache::{Filter, ResourceCache};
use storage::{Object, Revision};

type RulesByName = HashMap<String, Arc<[PolicyRule]>>;

/// Roles and bindings as they were at one moment.
#[derive(Clone, Debug, Default)]
pub struct RbacIndex {
    /// By namespace (empty for ClusterRoles) and name, aggregation resolved.
    roles: HashMap<String, Arc<RulesByName>>,
    bindings: HashMap<String, Arc<[Binding]>>,
}

/// What an index is made from, as far as it has been read.
#[derive(Debug, Default)]
pub(super) struct Sources {
    cluster_roles: Parsed<Role>,
    roles: Parsed<Role>,
    cluster_bindings: Parsed<Binding>,
    bindings: Parsed<Binding>,
}

/// Where the objects are cached: ClusterRoles, Roles, ClusterRoleBindings, RoleBindings.
pub(super) type Caches = [Option<Arc<ResourceCache>>; 4];

impl Sources {
    /// Reads what changed and returns the index that follows `before`.
    pub(super) fn refresh(&mut self, caches: &Caches, before: &RbacIndex) -> RbacIndex {
        let [cluster_roles, roles, cluster_bindings, bindings] = caches;
        let mut index = before.clone();
        if !self.cluster_roles.refresh(cluster_roles, Role::from_json).is_empty() {
            index.set_cluster_roles(self.cluster_roles.objects().collect());
        }
        let changed = self.roles.refresh(roles, Role::from_json);
        for (namespace, roles) in self.roles.of_namespaces(&changed) {
            let rules = |role: &Role| (role.name.clone(), role.rules.clone().into());
            let rules: RulesByName = roles.iter().map(|role| rules(role)).collect();
            set_or_remove(&mut index.roles, namespace, (!rules.is_empty()).then(|| Arc::new(rules)));
        }
        for (parsed, cache) in [(&mut self.cluster_bindings, cluster_bindings), (&mut self.bindings, bindings)] {
            let changed = parsed.refresh(cache, Binding::from_json);
            for (namespace, bindings) in parsed.of_namespaces(&changed) {
                let bindings: Arc<[Binding]> = bindings.into_iter().map(|binding| (**binding).clone()).collect();
                set_or_remove(&mut index.bindings, namespace, (!bindings.is_empty()).then_some(bindings));
            }
        }
        index
    }

    /// How many objects were read so far.
    #[cfg(test)]
    pub(super) fn reads(&self) -> usize {
        self.cluster_roles.reads + self.roles.reads + self.cluster_bindings.reads + self.bindings.reads
    }
}

fn set_or_remove<T>(map: &mut HashMap<String, T>, namespace: &str, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(namespace.to_owned(), value)),
        None => drop(map.remove(namespace)),
    }
}

impl RbacIndex {
    /// Resolves aggregation: a role may collect the rules of any other.
    fn set_cluster_roles(&mut self, all: Vec<&Arc<Role>>) {
        let by_name: BTreeMap<&str, &Role> = all.iter().map(|role| (role.name.as_str(), &***role)).collect();
        let rules = |role: &Role| -> Arc<[PolicyRule]> {
            if role.aggregates.is_empty() {
                return role.rules.clone().into();
            }
            let mut rules = Vec::new();
            aggregate(role, &by_name, &mut HashSet::new(), &mut rules);
            rules.into()
        };
        let resolved = all.iter().map(|role| (role.name.clone(), rules(role))).collect();
        self.roles.insert(String::new(), Arc::new(resolved));
    }
}

/// Collects the rules of the roles a role selects, through any number of steps.
fn aggregate<'r>(
    role: &'r Role,
    roles: &BTreeMap<&'r str, &'r Role>,
    seen: &mut HashSet<&'r str>,
    rules: &mut Vec<PolicyRule>,
) {
    if !seen.insert(&role.name) {
        return;
    }
    if role.aggregates.is_empty() {
        rules.extend_from_slice(&role.rules);
        return;
    }
    for other in roles.values() {
        if role.aggregates.iter().any(|selector| selector.matches(&other.labels)) {
            aggregate(other, roles, seen, rules);
        }
    }
}

impl RbacView for RbacIndex {
    fn cluster_role(&self, name: &str) -> Option<Arc<[PolicyRule]>> {
        self.role("", name)
    }

    fn role(&self, namespace: &str, name: &str) -> Option<Arc<[PolicyRule]>> {
        self.roles.get(namespace)?.get(name).cloned()
    }

    fn cluster_role_bindings(&self) -> Arc<[Binding]> {
        self.role_bindings("")
    }

    fn role_bindings(&self, namespace: &str) -> Arc<[Binding]> {
        self.bindings.get(namespace).cloned().unwrap_or_default()
    }
}

/// Namespace and name.
type Key = (Box<str>, Box<str>);

/// The objects of one resource; `None` for what cannot be read.
#[derive(Debug)]
struct Parsed<T> {
    objects: HashMap<Key, (Revision, Option<Arc<T>>)>,
    reads: usize,
}

impl<T> Default for Parsed<T> {
    fn default() -> Self {
        Self { objects: HashMap::new(), reads: 0 }
    }
}

impl<T> Parsed<T> {
    /// Reads what has another revision than before. Returns the namespaces where something is different.
    fn refresh<E: std::error::Error>(
        &mut self,
        cache: &Option<Arc<ResourceCache>>,
        parse: impl Fn(&[u8]) -> Result<T, E>,
    ) -> HashSet<String> {
        let mut changed = HashSet::new();
        let mut seen = HashMap::with_capacity(self.objects.len());
        let mut take = |object: &Arc<Object>| {
            let key: Key = (object.namespace().into(), object.name().into());
            let known = self.objects.remove(&key).filter(|(revision, _)| *revision == object.revision());
            let value = known.unwrap_or_else(|| {
                changed.insert(object.namespace().to_owned());
                self.reads += 1;
                (object.revision(), read(object, &parse))
            });
            seen.insert(key, value);
        };
        if let Some(cache) = cache {
            cache.for_each(&Filter::all(), |object| take(object));
        }
        // What was not seen again is gone.
        changed.extend(self.objects.keys().map(|(namespace, _)| namespace.to_string()));
        self.objects = seen;
        changed
    }

    fn objects(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.values().filter_map(|(_, object)| object.as_ref())
    }

    /// The objects of some namespaces, in one pass; none for a namespace that has none.
    fn of_namespaces<'s>(&'s self, wanted: &'s HashSet<String>) -> HashMap<&'s str, Vec<&'s Arc<T>>> {
        let mut found: HashMap<&str, Vec<_>> = wanted.iter().map(|namespace| (namespace.as_str(), vec![])).collect();
        for ((namespace, _), (_, object)) in &self.objects {
            if let (Some(list), Some(object)) = (found.get_mut(&**namespace), object) {
                list.push(object);
            }
        }
        found
    }
}

fn read<T, E: std::error::Error>(object: &Object, parse: impl Fn(&[u8]) -> Result<T, E>) -> Option<Arc<T>> {
    match parse(object.json_bytes()) {
        Ok(parsed) => Some(Arc::new(parsed)),
        // It grants nothing, which is the safe side.
        Err(error) => {
            tracing::error!(?object, error = error.to_string(), "RBAC object cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn roles_that_collect_each_other_end() {
        let role = |name: &str, label: &str| {
            Arc::new(Role {
                name: name.into(),
                labels: BTreeMap::from([("l".to_owned(), name.to_owned())]),
                aggregates: vec![serde_json::from_value(json!({"matchLabels": {"l": label}})).unwrap()],
                ..Role::default()
            })
        };
        let mut index = RbacIndex::default();
        index.set_cluster_roles(vec![&role("a", "b"), &role("b", "a")]);
        assert_eq!(index.cluster_role("a").unwrap().len(), 0);
    }
}
