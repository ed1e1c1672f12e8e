//! What a list or watch is interested in, in a form that can be indexed.

use std::fmt;
use std::sync::Arc;

use super::super::object::Object;

/// Any further condition, such as a label selector.
pub type Predicate = Arc<dyn Fn(&Object) -> bool + Send + Sync>;

/// A conjunction of conditions; empty for everything. Namespace, name and field
/// equality are kept apart from the predicate so that watches can be found by
/// them instead of being asked one by one.
#[derive(Clone, Default)]
pub struct Filter {
    pub namespace: Option<Box<str>>,
    pub name: Option<Box<str>>,
    /// A selectable field and the value it must have.
    pub field: Option<(Box<str>, Box<str>)>,
    pub predicate: Option<Predicate>,
    /// Whether the predicate is too much work for the one task that tells all watches of all resources: each watch asks
    /// it itself, when it is read.
    apart: bool,
}

impl Filter {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only objects of one namespace; an empty one means all.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = (!namespace.is_empty()).then(|| namespace.into());
        self
    }

    /// Only the object of this name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only objects whose selectable field has this value.
    #[must_use]
    pub fn with_field(mut self, name: &str, value: &str) -> Self {
        self.field = Some((name.into(), value.into()));
        self
    }

    /// Only objects the predicate accepts.
    #[must_use]
    pub fn matching(mut self, predicate: impl Fn(&Object) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Arc::new(predicate));
        self
    }

    /// The same with a predicate that may take long: a watch's is not asked when something changes, but when the watch
    /// is read. A watch that is not read is then cut off by what does not concern it, too.
    #[must_use]
    pub fn matching_apart(self, predicate: impl Fn(&Object) -> bool + Send + Sync + 'static) -> Self {
        Self { apart: true, ..self.matching(predicate) }
    }

    /// True when the object meets every condition.
    pub fn matches(&self, object: &Object) -> bool {
        self.is_within(object) && self.predicate.as_ref().is_none_or(|predicate| predicate(object))
    }

    /// True when the object meets the conditions that cost nothing: all but the predicate.
    pub(super) fn is_within(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| object.namespace() == namespace)
            && self.name.as_deref().is_none_or(|name| object.name() == name)
            && self.field.as_ref().is_none_or(|(name, value)| object.field(name) == Some(&**value))
    }

    /// True when the predicate is to be asked by whoever reads.
    pub(super) fn is_apart(&self) -> bool {
        self.apart
    }

    /// True when nothing but the namespace is asked for, so that a key range says
    /// it all.
    pub(super) fn is_range(&self) -> bool {
        self.name.is_none() && self.field.is_none() && self.predicate.is_none()
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("field", &self.field)
            .field("predicate", &self.predicate.is_some())
            .finish()
    }
}
