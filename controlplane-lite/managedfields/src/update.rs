//! Who owns what after a write, and what a configuration makes of an object (`structured-merge-diff/merge/update.go`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::Versions;
use crate::conflict::Conflicts;
use crate::managed::{Manager, Managers, Owned};
use crate::set::Set;
use crate::typed::{self, Comparison};

/// A write in the terms of one version of its kind.
pub struct Updater<'a> {
    /// The versions of the kind.
    pub versions: &'a dyn Versions,
    /// The one that is written.
    pub version: &'a str,
}

impl Updater<'_> {
    /// Owners after `new` took the place of `live`: `manager` owns what it changed or added, and nobody what is gone.
    pub fn update(&self, live: &Value, new: &Value, mut managers: Managers, manager: &Manager) -> Managers {
        self.reconcile(&mut managers);
        let (compared, conflicts) = self.compare(live, new, &mut managers, manager);
        give_up(&mut managers, &conflicts);
        let before = managers.remove(manager);
        let set = before.map(|owned| owned.set).unwrap_or_default();
        let set = set.difference(&compared.removed).union(compared.changed);
        let set = self.versions.ownable().of(set);
        if !set.is_empty() {
            managers.insert(manager.clone(), Owned { set, version: self.version.to_owned(), time: None });
        }
        managers
    }

    /// The object that `config` makes of `live`, and its owners.
    ///
    /// # Errors
    /// Fields of other managers that it would change, unless it is forced to.
    pub fn apply(
        &self,
        live: &Value,
        config: &Value,
        mut managers: Managers,
        manager: &Manager,
        force: bool,
    ) -> Result<(Value, Managers), Conflicts> {
        self.reconcile(&mut managers);
        let Some(at) = self.versions.place(self.version) else { return Ok((live.clone(), managers)) };
        let merged = typed::merge(live, config, at);
        let set = self.versions.ownable().of(typed::field_set(config, at));
        let time = managers.get(manager).and_then(|owned| owned.time.clone());
        let last = managers.insert(manager.clone(), Owned { set, version: self.version.to_owned(), time });
        let new = self.prune(merged, &managers, last.as_ref());
        let (_, conflicts) = self.compare(live, &new, &mut managers, manager);
        if !force && !conflicts.is_empty() {
            return Err(Conflicts::of(conflicts));
        }
        give_up(&mut managers, &conflicts);
        managers.retain(|_, owned| !owned.set.is_empty());
        Ok((new, managers))
    }

    /// What `manager` changes, and which of that others own. Nobody owns any longer what the change removes, nor fields
    /// of a version that is served no more.
    fn compare(
        &self,
        live: &Value,
        new: &Value,
        managers: &mut Managers,
        manager: &Manager,
    ) -> (Comparison, BTreeMap<Manager, Set>) {
        let mut compared: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        let ours = self.compared(live, new, self.version).unwrap_or_default();
        let mut conflicts = BTreeMap::new();
        managers.retain(|other, owned| {
            if other == manager {
                return true;
            }
            let theirs = if owned.version == self.version {
                Some(&ours)
            } else {
                let compare = || self.compared(live, new, &owned.version);
                compared.entry(owned.version.clone()).or_insert_with(compare).as_ref()
            };
            let Some(theirs) = theirs else { return false };
            let conflict = owned.set.intersection(&theirs.changed);
            if !conflict.is_empty() {
                conflicts.insert(other.clone(), conflict);
            }
            if !theirs.removed.is_empty() {
                owned.set = std::mem::take(&mut owned.set).difference(&theirs.removed);
            }
            true
        });
        managers.retain(|other, owned| other == manager || !owned.set.is_empty());
        (ours, conflicts)
    }

    fn compared(&self, live: &Value, new: &Value, version: &str) -> Option<Comparison> {
        let at = self.versions.place(version)?;
        let (live, new) = (self.convert(live, version)?, self.convert(new, version)?);
        Some(typed::compare(&live, &new, at).of(self.versions.ownable()))
    }

    /// An object of the version that is written, in another. None for a version that is not served.
    fn convert<'v>(&self, object: &'v Value, version: &str) -> Option<Cow<'v, Value>> {
        if version == self.version {
            return Some(Cow::Borrowed(object));
        }
        self.versions.convert(object, self.version, version).map(Cow::Owned)
    }

    /// Owners in terms of how the types merge now.
    fn reconcile(&self, managers: &mut Managers) {
        for owned in managers.values_mut() {
            let at = self.versions.place(&owned.version);
            if let Some(set) = at.and_then(|at| typed::reconcile(&owned.set, at)) {
                owned.set = set;
            }
        }
    }

    /// The merged object without what the manager applied the last time and does not now, and nobody else owns.
    fn prune(&self, merged: Value, managers: &Managers, last: Option<&Owned>) -> Value {
        let Some(last) = last.filter(|last| !last.set.is_empty()) else { return merged };
        let Some(at) = self.versions.place(&last.version) else { return merged };
        let Some(before) = self.convert(&merged, &last.version).map(Cow::into_owned) else { return merged };
        let pruned = typed::remove(&before, &last.set.with_named_fields(at), at);
        let Some(pruned) = self.add_owned(&before, pruned, &last.version, managers) else { return merged };
        let Some(pruned) = self.add_dangling(&before, &pruned, last) else { return merged };
        self.versions.convert(&pruned, &last.version, self.version).unwrap_or(merged)
    }

    /// Puts back what others own, or the manager's own new configuration does: first in the version that was pruned,
    /// whose fields a conversion may need.
    fn add_owned(&self, merged: &Value, pruned: Value, version: &str, managers: &Managers) -> Option<Value> {
        let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
        for other in managers.values() {
            owned.entry(&other.version).or_default().extend(&other.set);
        }
        let (mut pruned, mut at_version) = (pruned, version.to_owned());
        let first = owned.remove_entry(version);
        for (other, owned) in first.into_iter().chain(owned) {
            let Some(at) = self.versions.place(other) else { continue };
            let whole = self.versions.convert(merged, version, other);
            let less = self.versions.convert(&pruned, &at_version, other);
            let (Some(whole), Some(less)) = (whole, less) else { continue };
            let all = typed::field_set(&whole, at).with_named_fields(at);
            let kept = typed::field_set(&less, at).with_named_fields(at).union(owned.with_named_fields(at));
            pruned = typed::remove(&whole, &all.difference(&kept), at);
            at_version = other.to_owned();
        }
        self.versions.convert(&pruned, &at_version, version)
    }

    /// Puts back what was removed though the manager never owned it.
    fn add_dangling(&self, merged: &Value, pruned: &Value, last: &Owned) -> Option<Value> {
        let at = self.versions.place(&last.version)?;
        let less = typed::field_set(pruned, at).with_named_fields(at);
        let all = typed::field_set(merged, at).with_named_fields(at);
        let gone = all.difference(&less).intersection(&last.set.with_named_fields(at));
        Some(typed::remove(merged, &gone, at))
    }
}

/// Takes from each manager what another took over.
fn give_up(managers: &mut Managers, conflicts: &BTreeMap<Manager, Set>) {
    for (manager, set) in conflicts {
        if let Some(owned) = managers.get_mut(manager) {
            owned.set = std::mem::take(&mut owned.set).difference(set);
        }
    }
    managers.retain(|_, owned| !owned.set.is_empty());
}
