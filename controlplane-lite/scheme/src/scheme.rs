//! The kinds that are served at one moment, found by the names of a path or a body. A scheme never changes: one with
//! another kind more or less is made of it, and shares the kinds.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use super::kind::Kind;
use super::strategy::Strategy;

/// The set of kinds a server knows, in discovery order.
#[derive(Debug, Clone)]
pub struct Scheme {
    /// Those of the table as they stand there; then the others by group, the preferred version first.
    kinds: Vec<Arc<Kind>>,
    /// How many are the table's, which stay.
    fixed: usize,
    /// Places of those with a path of their own, by group, version and plural.
    by_path: Vec<usize>,
    /// Places of all, by group, version and kind.
    by_kind: Vec<usize>,
}

/// One API group with its versions, the preferred one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'s> {
    /// Group name, empty for the legacy core group.
    pub name: &'s str,
    /// Versions, preferred first.
    pub versions: Vec<&'s str>,
}

/// Why a kind cannot be served beside those that are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Another kind has its path.
    #[error("{resource} is already served in version {version}")]
    Path {
        /// Plural and group.
        resource: String,
        /// Version.
        version: String,
    },
    /// Another resource has its kind.
    #[error("the kind {kind} is already served in {api_version}")]
    Kind {
        /// Kind.
        kind: String,
        /// Group and version.
        api_version: String,
    },
    /// Objects of the resource are stored in the form of another version, and it does not say how to convert them.
    #[error("{resource} is already stored in version {stored}")]
    Storage {
        /// Plural and group.
        resource: String,
        /// Version of the stored form.
        stored: String,
    },
    /// It is stored in the form of a kind that is not served.
    #[error("nothing stores {resource}")]
    NoStorage {
        /// Plural and group of the kind that would store it.
        resource: String,
    },
}

type Key<'k> = (&'k str, &'k str, &'k str);

fn path(kind: &Kind) -> Key<'_> {
    (&kind.group, &kind.version, &kind.plural)
}

fn name(kind: &Kind) -> Key<'_> {
    (&kind.group, &kind.version, &kind.kind)
}

impl Scheme {
    /// A scheme over these kinds. Order decides discovery order of groups and resources.
    ///
    /// # Errors
    /// When they cannot be served together.
    pub fn new(kinds: Vec<Kind>) -> Result<Self, Conflict> {
        let kinds: Vec<Arc<Kind>> = kinds.into_iter().map(Arc::new).collect();
        let scheme = Self::indexed(kinds.len(), kinds);
        for kind in &scheme.kinds {
            scheme.admits(kind)?;
        }
        Ok(scheme)
    }

    fn indexed(fixed: usize, kinds: Vec<Arc<Kind>>) -> Self {
        let mut by_path: Vec<usize> = (0..kinds.len()).filter(|place| kinds[*place].has_path()).collect();
        by_path.sort_by_key(|place| path(&kinds[*place]));
        let mut by_kind: Vec<usize> = (0..kinds.len()).collect();
        by_kind.sort_by_key(|place| name(&kinds[*place]));
        Self { kinds, fixed, by_path, by_kind }
    }

    /// Whether a kind can be served beside all the others here.
    fn admits(&self, kind: &Kind) -> Result<(), Conflict> {
        let others = || self.kinds.iter().filter(|other| !std::ptr::eq(&***other, kind));
        let resource = || kind.group_resource();
        if !kind.plural.is_empty() && others().any(|other| path(other) == path(kind)) {
            return Err(Conflict::Path { resource: resource(), version: kind.version.to_string() });
        }
        if others().any(|other| name(other) == name(kind)) {
            return Err(Conflict::Kind { kind: kind.kind.to_string(), api_version: kind.api_version() });
        }
        if !kind.stored() {
            return Ok(());
        }
        let stores = |other: &&Arc<Kind>| {
            let place = (other.storage_group(), other.storage_plural());
            let siblings = other.custom && kind.custom;
            other.stores() && !siblings && place == (kind.storage_group(), kind.storage_plural())
        };
        match (others().find(stores), &kind.conversion) {
            (Some(other), _) if kind.stores() => {
                Err(Conflict::Storage { resource: resource(), stored: other.version.to_string() })
            }
            (None, Some(form)) if !kind.stores() => {
                Err(Conflict::NoStorage { resource: format!("{}.{}", form.plural, form.group) })
            }
            _ => Ok(()),
        }
    }

    /// The same with another kind.
    ///
    /// # Errors
    /// When something of the kind's is taken.
    pub fn with(&self, kind: Kind) -> Result<Self, Conflict> {
        self.admits(&kind)?;
        let mut kinds = self.kinds.clone();
        kinds.push(Arc::new(kind));
        kinds[self.fixed..].sort_by(|a, b| order(a).cmp(&order(b)));
        Ok(Self::indexed(self.fixed, kinds))
    }

    /// The same with other rules for some of the built-in kinds.
    pub(crate) fn with_strategies(&self, other: impl Fn(&Kind) -> Option<Arc<dyn Strategy>>) -> Self {
        let mut kinds = self.kinds.clone();
        for kind in &mut kinds[..self.fixed] {
            if let Some(strategy) = other(kind) {
                *kind = Arc::new(kind.with_strategy(strategy));
            }
        }
        Self::indexed(self.fixed, kinds)
    }

    /// The same with these kinds in the place of all versions of a resource. Built-in kinds stay.
    ///
    /// # Errors
    /// When something of theirs is taken.
    pub fn replaced(&self, group: &str, plural: &str, kinds: Vec<Kind>) -> Result<Self, Conflict> {
        let mut all = self.without(group, plural).kinds;
        let others = all.len();
        all.extend(kinds.into_iter().map(Arc::new));
        let (before, new) = all.split_at(others);
        // One look at each of them: there may be many.
        for kind in new.iter().take(1) {
            let place = (kind.storage_group(), kind.storage_plural());
            if let Some(other) = before.iter().find(|k| k.stores() && (k.storage_group(), k.storage_plural()) == place)
            {
                let (resource, stored) = (kind.group_resource(), other.version.to_string());
                return Err(Conflict::Storage { resource, stored });
            }
        }
        all[self.fixed..].sort_by(|a, b| order(a).cmp(&order(b)));
        let scheme = Self::indexed(self.fixed, all);
        let twice = |index: &[usize], of: fn(&Kind) -> Key<'_>| {
            let pair = index.windows(2).find(|pair| of(&scheme.kinds[pair[0]]) == of(&scheme.kinds[pair[1]]))?;
            Some(scheme.kinds[pair[0]].clone())
        };
        if let Some(kind) = twice(&scheme.by_path, path) {
            return Err(Conflict::Path { resource: kind.group_resource(), version: kind.version.to_string() });
        }
        if let Some(kind) = twice(&scheme.by_kind, name) {
            return Err(Conflict::Kind { kind: kind.kind.to_string(), api_version: kind.api_version() });
        }
        Ok(scheme)
    }

    /// The same without a resource: all its versions, and what is stored as it. Built-in kinds stay.
    #[must_use]
    pub fn without(&self, group: &str, plural: &str) -> Self {
        let (fixed, added) = self.kinds.split_at(self.fixed);
        let is = |of: &str, resource: &str| of == group && resource == plural;
        let goes = |kind: &Kind| is(&kind.group, &kind.plural) || is(kind.storage_group(), kind.storage_plural());
        let kinds = fixed.iter().chain(added.iter().filter(|kind| !goes(kind))).cloned().collect();
        Self::indexed(self.fixed, kinds)
    }

    /// Kinds that are served at a path of their own.
    pub fn served(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds().filter(|kind| kind.has_path())
    }

    /// All kinds, also those that are only bodies, in discovery order.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.iter()
    }

    fn find(&self, index: &[usize], of: fn(&Kind) -> Key<'_>, key: Key<'_>) -> Option<&Arc<Kind>> {
        let found = index.binary_search_by(|place| of(&self.kinds[*place]).cmp(&key)).ok()?;
        Some(&self.kinds[index[found]])
    }

    /// The kind served at `group/version/plural`.
    #[must_use]
    pub fn by_gvr(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.find(&self.by_path, path, (group, version, plural))
    }

    /// The kind called `kind` in `group/version`.
    #[must_use]
    pub fn by_gvk(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.find(&self.by_kind, name, (group, version, kind))
    }

    /// The kind called `kind` in an `apiVersion` string such as `v1` or `apps/v1`.
    #[must_use]
    pub fn by_api_version(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let (group, version) = super::split_api_version(api_version);
        self.by_gvk(group, version, kind)
    }

    /// Whether any kind lives in this group and version.
    #[must_use]
    pub fn has_group_version(&self, group: &str, version: &str) -> bool {
        self.in_group_version(group, version).next().is_some()
    }

    /// Groups in discovery order with their versions, preferred first.
    #[must_use]
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for kind in self.served() {
            match groups.iter_mut().rev().find(|g| g.name == kind.group) {
                // Those that are not in the table are sorted, and may be many.
                Some(group)
                    if group.versions.iter().take(8).chain(group.versions.last()).any(|v| *v == kind.version) => {}
                Some(group) => group.versions.push(&kind.version),
                None => groups.push(Group { name: &kind.group, versions: vec![&kind.version] }),
            }
        }
        groups
    }

    /// The kinds of one group and version that have a path, by plural.
    pub fn in_group_version(&self, group: &str, version: &str) -> impl Iterator<Item = &Arc<Kind>> {
        let before = |place: &usize| (&*self.kinds[*place].group, &*self.kinds[*place].version) < (group, version);
        let upto = |place: &usize| (&*self.kinds[*place].group, &*self.kinds[*place].version) <= (group, version);
        let range = self.by_path.partition_point(before)..self.by_path.partition_point(upto);
        self.by_path[range].iter().map(|place| &self.kinds[*place])
    }
}

/// The order of what is not in the table: as upstream sorts the groups of one priority, then the preferred version
/// first.
fn order(kind: &Kind) -> impl Ord + use<'_> {
    (&*kind.group, Reverse(Priority::of(&kind.version)), &*kind.plural)
}

/// How much a version is preferred, as upstream's `CompareKubeAwareVersionStrings`
/// (k8s.io/apimachinery/pkg/version/helpers.go): v10, v2, v1, v2beta1, v1alpha2, then whatever is no version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Priority<'v> {
    /// Stability (2 without a word), number, number of the word.
    known: Option<(u8, u64, u64)>,
    text: &'v str,
}

impl<'v> Priority<'v> {
    pub(crate) fn of(text: &'v str) -> Self {
        Self { known: Self::known(text), text }
    }

    fn known(text: &str) -> Option<(u8, u64, u64)> {
        let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        let rest = text.strip_prefix('v')?;
        for (word, stability) in [("alpha", 0), ("beta", 1)] {
            if let Some((major, minor)) = rest.split_once(word) {
                return Some((stability, number(major)?, number(minor)?));
            }
        }
        Some((2, number(rest)?, 0))
    }
}

impl Ord for Priority<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.known.cmp(&other.known).then_with(|| other.text.cmp(self.text))
    }
}

impl PartialOrd for Priority<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
