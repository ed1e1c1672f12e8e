//! Sets of fields that were written when the type merged otherwise (`typed/reconcile_schema.go`).

use crate::path::PathElement;
use crate::schema::{Atom, By, Place};
use crate::set::Set;

/// The set, where the type still merges as it did then; else what it says now: who owned parts of what is replaced as a
/// whole owns the whole.
pub fn reconcile(set: &Set, at: Place<'_>) -> Option<Set> {
    let mut whole = Set::default();
    walk(set, false, at, &mut Vec::new(), &mut whole);
    (!whole.is_empty()).then(|| set.recursive_difference(&whole).union(&whole))
}

fn walk(below: &Set, leaf: bool, at: Place<'_>, path: &mut Vec<PathElement>, whole: &mut Set) {
    let atomic = match at.atom(None) {
        Atom::Scalar(_) => return,
        Atom::List(list) => list.by == By::Atomic,
        // Where anything may stand nobody says how it merges.
        Atom::Map(map) if map.of_anything() => return,
        Atom::Map(map) => map.atomic,
    };
    if atomic {
        if !leaf && !below.is_empty() {
            whole.insert(path);
        }
        return;
    }
    for (element, member, children) in below.elements() {
        let Some(place) = at.descend(element) else { continue };
        path.push(element.clone());
        walk(children, member && children.is_empty(), place, path, whole);
        path.pop();
    }
}
