//! Sets of fields, as trees (`structured-merge-diff/fieldpath/set.go`), and their form in objects, `FieldsV1`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::ControlFlow;

use serde_json::{Map, Value};

use crate::path::{PathElement, PathError, kind_of};
use crate::schema::{Atom, Place};

/// A set of fields. A field is in it or not, apart from the fields below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set(BTreeMap<PathElement, Node>);

/// What a set says of one element. None of them says nothing: it is a member, or has children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub member: bool,
    pub children: Set,
}

impl Node {
    /// A member without anything below it.
    pub fn leaf() -> Self {
        Self { member: true, children: Set::default() }
    }

    /// Whether it is a member, or has any below it.
    pub fn says_something(&self) -> bool {
        self.member || !self.children.is_empty()
    }

    /// Adds what another says of the same element.
    pub fn extend(&mut self, other: Self) {
        self.member |= other.member;
        if self.children.is_empty() {
            self.children = other.children;
        } else {
            self.children.extend(&other.children);
        }
    }
}

impl Set {
    /// A set of these paths of fields.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path.iter().map(|name| PathElement::field(name)).collect::<Vec<_>>());
        }
        set
    }

    /// Whether no field is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the field at `path`; those above it stay as they are. The whole object is no field.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((last, above)) = path.split_last() else { return };
        let mut set = self;
        for element in above {
            set = &mut set.0.entry(element.clone()).or_default().children;
        }
        set.0.entry(last.clone()).or_default().member = true;
    }

    /// Adds what is said of an element of which nothing is said yet.
    pub(crate) fn put(&mut self, element: PathElement, node: Node) {
        if node.says_something() {
            self.0.insert(element, node);
        }
    }

    /// How many fields are in the set.
    pub fn len(&self) -> usize {
        self.0.values().map(|node| usize::from(node.member) + node.children.len()).sum()
    }

    /// Whether the field of this element is in the set.
    pub fn has_element(&self, element: &PathElement) -> bool {
        self.0.get(element).is_some_and(|node| node.member)
    }

    /// The fields below an element, if there are any.
    pub fn below(&self, element: &PathElement) -> Option<&Self> {
        self.0.get(element).map(|node| &node.children).filter(|children| !children.is_empty())
    }

    /// What the set says, element by element: whether it is a member, and what is below it.
    pub fn elements(&self) -> impl Iterator<Item = (&PathElement, bool, &Self)> {
        self.0.iter().map(|(element, node)| (element, node.member, &node.children))
    }

    /// The fields of both.
    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        self.extend(&other);
        self
    }

    /// Adds the fields of another.
    pub fn extend(&mut self, other: &Self) {
        for (element, node) in &other.0 {
            match self.0.entry(element.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(node.clone());
                }
                Entry::Occupied(mut entry) => {
                    entry.get_mut().member |= node.member;
                    entry.get_mut().children.extend(&node.children);
                }
            }
        }
    }

    /// The fields that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.each(|element, node| {
            let other = other.0.get(element)?;
            Some(Node { member: node.member && other.member, children: node.children.intersection(&other.children) })
        })
    }

    /// The fields that are not in `other`. A field stays whose parent alone is in it.
    #[must_use]
    pub fn difference(self, other: &Self) -> Self {
        self.without(other, &|node, other| {
            let children = node.children.difference(&other.children);
            Node { member: node.member && !other.member, children }
        })
    }

    /// The fields that are not in `other`, nor below one that is.
    #[must_use]
    pub fn recursive_difference(self, other: &Self) -> Self {
        self.without(other, &|node, other| match other.member {
            true => Node::default(),
            false => Node { children: node.children.recursive_difference(&other.children), ..node },
        })
    }

    /// What is left of the elements that another set names; the others stay, and are not looked at.
    fn without(mut self, other: &Self, left: &impl Fn(Node, &Node) -> Node) -> Self {
        for (element, other) in &other.0 {
            if let Entry::Occupied(mut entry) = self.0.entry(element.clone()) {
                let node = left(std::mem::take(entry.get_mut()), other);
                if node.says_something() {
                    entry.insert(node);
                } else {
                    entry.remove();
                }
            }
        }
        self
    }

    /// The fields at these paths, and those below them.
    #[must_use]
    fn within(&self, paths: &[&[Step]]) -> Self {
        self.each(|element, node| {
            let rest: Vec<&[Step]> = paths
                .iter()
                .filter_map(|path| path.split_first())
                .filter_map(|(step, rest)| step.fits(element).then_some(rest))
                .collect();
            match rest.iter().any(|path| path.is_empty()) {
                _ if rest.is_empty() => None,
                true => Some(node.clone()),
                false => Some(Node { member: node.member, children: node.children.within(&rest) }),
            }
        })
    }

    fn each(&self, keep: impl Fn(&PathElement, &Node) -> Option<Node>) -> Self {
        let kept = self.0.iter().filter_map(|(element, node)| {
            keep(element, node).filter(Node::says_something).map(|node| (element.clone(), node))
        });
        Self(kept.collect())
    }

    /// The set, with every declared field of an object type that has members below it (`EnsureNamedFieldsAreMembers`):
    /// of `a.b.c` it has `a`, too, unless that is the key of a map.
    #[must_use]
    pub fn with_named_fields(&self, at: Place<'_>) -> Self {
        let nodes = self.0.iter().map(|(element, node)| {
            let place = at.descend(element);
            let named =
                matches!((element, at.atom(None)), (PathElement::Field(name), Atom::Map(map)) if map.declares(name));
            let member = node.member || (named && !node.children.is_empty());
            let children = place.map_or_else(|| node.children.clone(), |place| node.children.with_named_fields(place));
            (element.clone(), Node { member, children })
        });
        Self(nodes.collect())
    }

    /// Calls `see` with the path of each field, those of an object first, then those below, until it has seen enough.
    pub fn paths<'s>(&'s self, see: &mut impl FnMut(&[&'s PathElement]) -> ControlFlow<()>) -> ControlFlow<()> {
        self.visit(&mut Vec::new(), see)
    }

    fn visit<'s>(
        &'s self,
        path: &mut Vec<&'s PathElement>,
        see: &mut impl FnMut(&[&'s PathElement]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for (element, _) in self.0.iter().filter(|(_, node)| node.member) {
            path.push(element);
            see(path)?;
            path.pop();
        }
        for (element, node) in &self.0 {
            path.push(element);
            node.children.visit(path, see)?;
            path.pop();
        }
        ControlFlow::Continue(())
    }

    /// Reads `FieldsV1`.
    ///
    /// # Errors
    /// A key that is no path element. What is below a key of an unknown kind is passed over, as upstream does.
    pub fn from_json(fields: &Value) -> Result<Self, PathError> {
        Ok(read(fields)?.children)
    }

    /// The set as `FieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (element, node) in &self.0 {
            let mut below = node.children.to_json();
            if let Value::Object(map) = &mut below
                && node.member
                && !map.is_empty()
            {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            out.insert(element.text(), below);
        }
        Value::Object(out)
    }
}

/// The fields that a write to one resource or subresource can own: the others it leaves as they are, whatever it is
/// sent (`GetResetFields` and `GetResetFieldsFilter` of upstream's strategies).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownable {
    /// All but these and what is below them.
    AllBut(Set),
    /// What is at these paths alone, and below them.
    Only(&'static [&'static [Step]]),
}

/// One step of a path to what a write can own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// This field.
    Field(&'static str),
    /// Any item of a list.
    Any,
}

impl Step {
    fn fits(self, element: &PathElement) -> bool {
        match self {
            Self::Field(name) => matches!(element, PathElement::Field(field) if **field == *name),
            Self::Any => true,
        }
    }
}

impl Ownable {
    /// What of a set can be owned.
    #[must_use]
    pub fn of(&self, set: Set) -> Set {
        match self {
            Self::AllBut(reset) => set.recursive_difference(reset),
            Self::Only(written) => set.within(written),
        }
    }
}

/// What a value of `FieldsV1` says of the element it belongs to: one without children is a member.
fn read(fields: &Value) -> Result<Node, PathError> {
    let mut node = Node::default();
    let fields = match fields {
        Value::Null => None,
        Value::Object(fields) => Some(fields),
        other => return Err(PathError::Content(format!("expected an object, got {}", kind_of(other)))),
    };
    for (key, below) in fields.into_iter().flatten() {
        if key == "." {
            node.member = true;
            continue;
        }
        if let Some(element) = PathElement::parse(key)? {
            node.children.0.insert(element, read(below)?);
        }
    }
    node.member |= node.children.is_empty();
    Ok(node)
}
