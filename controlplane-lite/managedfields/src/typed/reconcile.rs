//! Sets of fields that were written when the type merged otherwise (`typed/reconcile_schema.go`).

use crate::schema::{Atom, By, Place};
use crate::set::{Node, Set};

/// The set, where the type still merges as it did then; else what it says now: who owned parts of what is replaced as a
/// whole owns the whole.
pub fn reconcile(set: &Set, at: Place<'_>) -> Option<Set> {
    let whole = wholes(set, false, at).children;
    (!whole.is_empty()).then(|| set.clone().recursive_difference(&whole).union(whole))
}

fn wholes(below: &Set, leaf: bool, at: Place<'_>) -> Node {
    let atomic = match at.atom(None) {
        Atom::Scalar(_) => return Node::default(),
        Atom::List(list) => list.by == By::Atomic,
        // Where anything may stand nobody says how it merges.
        Atom::Map(map) if map.of_anything() => return Node::default(),
        Atom::Map(map) => map.atomic,
    };
    if atomic {
        return Node { member: !leaf && !below.is_empty(), children: Set::default() };
    }
    let mut children = Set::default();
    for (element, member, inner) in below.elements() {
        let Some(place) = at.descend(element) else { continue };
        let node = wholes(inner, member && inner.is_empty(), place);
        if node.says_something() {
            children.put(element.clone(), node);
        }
    }
    Node { member: false, children }
}
