//! The difference between what is applied and what is desired, as a transaction. Pure.
//!
//! A chain whose rules differ is flushed and refilled as a whole (no handles needed); a chain that
//! does not differ is not touched, so its round-robin counters go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::object::{Key, Name, Observed, ObservedSet, Set, SetSpec, Table, Value};
use super::statement::Rule;
use super::transaction::{Op, Transaction};

/// The transaction that turns `applied` into `desired`; `None` stands for no table at all.
///
/// When a set or base chain exists with another declaration the table is replaced as a whole, in
/// one transaction: the kernel cannot change declarations, nor the mark of a table that another instance made.
#[must_use]
pub fn diff(applied: Option<&Observed>, desired: &Table) -> Transaction {
    let empty = Observed::default();
    let Some(applied) = applied else {
        let mut tx = changes(&empty, desired);
        tx.ops.insert(0, Op::AddTable);
        return tx;
    };
    if incompatible(applied, desired) {
        let mut tx = Transaction { ops: vec![Op::DeleteTable, Op::AddTable], stale_chains: Vec::new() };
        tx.ops.extend(changes(&empty, desired).ops);
        return tx;
    }
    changes(applied, desired)
}

fn incompatible(applied: &Observed, desired: &Table) -> bool {
    let sets =
        desired.sets.iter().any(|(name, set)| applied.sets.get(name).is_some_and(|old| old.shape != set.spec.shape()));
    let chains = desired
        .chains
        .iter()
        .any(|(name, chain)| applied.chains.get(name).is_some_and(|(base, _)| *base != chain.base));
    // A foreign base chain cannot be emptied into harmlessness by name alone; replace.
    let foreign = applied.chains.iter().any(|(name, (base, _))| base.is_some() && !desired.chains.contains_key(name));
    applied.foreign || sets || chains || foreign
}

fn changes(applied: &Observed, desired: &Table) -> Transaction {
    let mut tx = Transaction::default();
    for (name, set) in &desired.sets {
        if !applied.sets.contains_key(name) {
            tx.ops.push(Op::AddSet(Arc::clone(&set.spec)));
        }
    }
    let changed = changed_chains(applied, desired, &mut tx);
    let (removed, added) = element_changes(applied, desired);
    // A key that changes its value must go before it comes.
    tx.ops.extend(removed.into_iter().map(|(spec, elements)| Op::DeleteElements(spec, elements)));
    // Rules bind their sets while these are still small: binding walks all elements.
    for (name, rules) in changed {
        tx.ops.extend(rules.iter().map(|rule| Op::AddRule(name.clone(), rule.clone())));
    }
    tx.ops.extend(added.into_iter().map(|(spec, elements)| Op::AddElements(spec, elements)));
    for (name, (_, tags)) in &applied.chains {
        if !desired.chains.contains_key(name) {
            if !tags.is_empty() {
                tx.ops.push(Op::FlushChain(name.clone()));
            }
            tx.stale_chains.push(name.clone());
        }
    }
    for name in applied.sets.keys() {
        if !desired.sets.contains_key(name) {
            tx.ops.push(Op::DeleteSet(name.clone()));
        }
    }
    tx
}

fn changed_chains<'a>(applied: &Observed, desired: &'a Table, tx: &mut Transaction) -> Vec<(&'a Name, &'a [Rule])> {
    let mut changed = Vec::new();
    let mut flushes = Vec::new();
    for (name, chain) in &desired.chains {
        match applied.chains.get(name) {
            None => tx.ops.push(Op::AddChain(name.clone(), chain.base)),
            Some((_, tags)) if tags.iter().copied().eq(chain.rules.iter().map(Rule::tag)) => continue,
            Some((_, tags)) if tags.is_empty() => {}
            Some(_) => flushes.push(Op::FlushChain(name.clone())),
        }
        changed.push((name, chain.rules.as_slice()));
    }
    tx.ops.append(&mut flushes);
    changed
}

type ElementList = Vec<(Arc<SetSpec>, Vec<(Key, Value)>)>;

fn element_changes(applied: &Observed, desired: &Table) -> (ElementList, ElementList) {
    let mut removed = Vec::new();
    let mut added = Vec::new();
    for (name, set) in desired.sets.iter().filter(|(_, set)| !set.spec.dynamic) {
        let (gone, new) = match applied.sets.get(name) {
            Some(old) => elements_diff(old, set),
            None => (Vec::new(), set.elements.iter().map(|(k, v)| (*k, v.clone())).collect()),
        };
        if !gone.is_empty() {
            removed.push((Arc::clone(&set.spec), gone));
        }
        if !new.is_empty() {
            added.push((Arc::clone(&set.spec), new));
        }
    }
    // Elements of a set that goes away still hold the chains they name.
    (removed, added)
}

type Elements = Vec<(Key, Value)>;

fn elements_diff(old: &ObservedSet, new: &Set) -> (Elements, Elements) {
    let missing = |from: &BTreeMap<Key, Value>, than: &BTreeMap<Key, Value>| -> Elements {
        from.iter().filter(|(k, v)| than.get(k) != Some(v)).map(|(k, v)| (*k, v.clone())).collect()
    };
    (missing(&old.elements, &new.elements), missing(&new.elements, &old.elements))
}
