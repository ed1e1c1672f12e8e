//! What becomes of one object, out of what is known of its owners. Pure.

use std::time::Duration;

use super::graph::{Graph, IsKind, Object, Owner, Uid, refers_to};

/// When to look again at an object with an owner of a kind that nobody serves: the kind may come, which upstream's
/// `Sync` looks for as often (pkg/controller/garbagecollector/garbagecollector.go).
pub const UNSERVED: Duration = Duration::from_secs(30);
/// When to look again at an object with an owner that is there and that no watch has shown: nothing would tell of its
/// end (upstream requeues what it has not observed, see https://issue.k8s.io/56121).
pub const UNOBSERVED: Duration = Duration::from_secs(60);

/// An owner as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerState {
    /// It exists.
    Solid,
    /// It exists, is being deleted in the foreground, and this reference blocks it.
    Waiting,
    /// It does not exist.
    Dangling,
}

/// What is known of an owner, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The graph has it and will show its end, or it is not there.
    Observed(OwnerState),
    /// The server has it, and no watch has shown it yet.
    Asked(OwnerState),
    /// Its kind is not served, perhaps only for the moment.
    Unserved,
}

/// What to do with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Keep,
    /// It stays, without these owners.
    DropOwners(Vec<Uid>),
    /// It goes, its own dependents first.
    DeleteForeground,
    /// It goes, by the way its finalizers ask for, else in the background.
    Delete,
}

/// Whether the graph alone shows that the object stays: every owner is known
/// and none of them waits for it. Spares asking the server.
pub fn evidently_kept(graph: &Graph, object: &Object, is_kind: &IsKind<'_>) -> bool {
    let kept = |o: &Owner, owner: &Object| refers_to(object, o, owner, is_kind) && !(owner.foreground && o.blocks);
    object.owners.iter().all(|o| graph.get(&o.uid).is_some_and(|owner| kept(o, owner)))
}

/// Whether an object about to be deleted in the foreground waits for dependents
/// that wait for it: then it has to let its owners go first.
pub fn in_circle(graph: &Graph, uid: &str) -> bool {
    graph.dependents(uid).any(|(_, dependent)| dependent.foreground)
}

/// Judges an object by what is known of its owners; and when to look again if nothing is heard of it.
pub fn judge(owners: &[(Owner, Known)], has_dependents: bool) -> (Verdict, Option<Duration>) {
    let mut states = Vec::new();
    for (owner, known) in owners {
        match known {
            Known::Observed(state) | Known::Asked(state) => states.push((owner.clone(), *state)),
            Known::Unserved => return (Verdict::Keep, Some(UNSERVED)),
        }
    }
    let unobserved = owners.iter().any(|(_, known)| matches!(known, Known::Asked(_)));
    (verdict(&states, has_dependents), unobserved.then_some(UNOBSERVED))
}

fn verdict(owners: &[(Owner, OwnerState)], has_dependents: bool) -> Verdict {
    let count = |state| owners.iter().filter(|(_, s)| *s == state).count();
    if owners.is_empty() {
        return Verdict::Keep;
    }
    if count(OwnerState::Solid) > 0 {
        let useless = owners.iter().filter(|(_, s)| *s != OwnerState::Solid).map(|(o, _)| o.uid.clone());
        let useless: Vec<Uid> = useless.collect();
        return if useless.is_empty() { Verdict::Keep } else { Verdict::DropOwners(useless) };
    }
    if count(OwnerState::Waiting) > 0 && has_dependents { Verdict::DeleteForeground } else { Verdict::Delete }
}

/// What an object in foreground deletion waits for: its blocking dependents.
/// Those not being deleted yet are to be looked at. Empty: it may go.
pub fn blocking(graph: &Graph, uid: &str) -> Vec<Uid> {
    let namespace = graph.get(uid).map(|o| &o.namespace);
    // A dependent in another namespace means another owner, whatever uid it names.
    let near = |o: &Object| namespace.is_none_or(|n| n.is_empty() || *n == o.namespace);
    let blocks = |o: &Object| near(o) && o.owners.iter().any(|owner| &*owner.uid == uid && owner.blocks);
    graph.dependents(uid).filter(|(_, o)| blocks(o)).map(|(u, _)| u.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::{object, same_kind};
    use super::*;

    fn check(states: &[OwnerState], has_dependents: bool, want: Verdict) {
        let names = ["a", "b", "c"];
        let owners: Vec<_> =
            states.iter().zip(names).map(|(s, n)| (object("x", &[(n, true)]).owners[0].clone(), *s)).collect();
        assert_eq!(verdict(&owners, has_dependents), want, "{states:?}");
    }

    #[test]
    fn verdicts() {
        use OwnerState::{Dangling, Solid, Waiting};
        check(&[], false, Verdict::Keep);
        check(&[Solid], false, Verdict::Keep);
        check(&[Solid, Dangling, Waiting], true, Verdict::DropOwners(vec!["b".into(), "c".into()]));
        check(&[Dangling], true, Verdict::Delete);
        check(&[Waiting], false, Verdict::Delete);
        check(&[Waiting, Dangling], true, Verdict::DeleteForeground);
    }

    #[test]
    fn what_nobody_watches_is_looked_at_again() {
        use OwnerState::{Dangling, Solid};
        let judged = |known: &[Known]| {
            let owner = object("x", &[("a", true)]).owners[0].clone();
            judge(&known.iter().map(|known| (owner.clone(), *known)).collect::<Vec<_>>(), false)
        };
        assert_eq!(judged(&[Known::Observed(Solid)]), (Verdict::Keep, None));
        assert_eq!(judged(&[Known::Observed(Dangling)]), (Verdict::Delete, None));
        assert_eq!(judged(&[Known::Asked(Solid)]), (Verdict::Keep, Some(UNOBSERVED)));
        assert_eq!(judged(&[Known::Observed(Solid), Known::Asked(Solid)]), (Verdict::Keep, Some(UNOBSERVED)));
        // Upstream decides nothing while one reference cannot be resolved.
        assert_eq!(judged(&[Known::Observed(Dangling), Known::Unserved]), (Verdict::Keep, Some(UNSERVED)));
        assert_eq!(judged(&[Known::Unserved, Known::Asked(Solid)]), (Verdict::Keep, Some(UNSERVED)));
    }

    #[test]
    fn blocking_dependents_and_evident_cases() {
        let mut g = Graph::default();
        g.observe(&"a".into(), Object { deleting: true, foreground: true, ..object("a", &[]) }, &same_kind);
        g.observe(&"b".into(), object("b", &[("a", true)]), &same_kind);
        g.observe(&"c".into(), object("c", &[("a", false)]), &same_kind);
        assert_eq!(blocking(&g, "a"), [Uid::from("b")]);
        let kept = |uid: &str| g.get(uid).is_some_and(|o| evidently_kept(&g, o, &|_, _| true));
        assert!(!kept("b") && kept("c") && kept("a"));
    }

    #[test]
    fn an_owner_is_known_by_all_that_its_reference_says() {
        let (mut g, dependent) = (Graph::default(), object("b", &[("a", true)]));
        let owner = Object { name: dependent.owners[0].name.clone(), ..object("a", &[]) };
        let kept = |owner: &Object, kind: bool| {
            let mut g = Graph::default();
            g.observe(&"a".into(), owner.clone(), &same_kind);
            evidently_kept(&g, &dependent, &|_, _| kind)
        };
        assert!(kept(&owner, true));
        assert!(!kept(&owner, false), "another kind");
        assert!(!kept(&Object { name: "other".into(), ..owner.clone() }, true));
        assert!(!kept(&Object { namespace: "elsewhere".into(), ..owner.clone() }, true));
        assert!(kept(&Object { namespace: "".into(), ..owner.clone() }, true), "a cluster-scoped owner");
        g.observe(
            &"a".into(),
            Object { namespace: "elsewhere".into(), deleting: true, foreground: true, ..owner },
            &same_kind,
        );
        g.observe(&"b".into(), dependent, &same_kind);
        assert!(blocking(&g, "a").is_empty(), "a dependent elsewhere does not hold it up");
    }

    #[test]
    fn a_circle_is_seen_from_the_second_object() {
        let mut g = Graph::default();
        g.observe(&"a".into(), Object { deleting: true, foreground: true, ..object("a", &[("b", true)]) }, &same_kind);
        g.observe(&"b".into(), object("b", &[("a", true)]), &same_kind);
        assert!(in_circle(&g, "b") && !in_circle(&g, "a"));
    }
}
