//! A transaction: what one batch asks of the kernel, in an order in which every reference is valid.

use std::sync::Arc;

use super::object::{BaseChain, Key, Name, SetSpec, Value};
use super::statement::Rule;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates the table; fine when it is there.
    AddTable,
    /// Deletes the table with everything in it; it must be there.
    DeleteTable,
    /// Creates a set.
    AddSet(Arc<SetSpec>),
    /// Deletes a set nothing refers to.
    DeleteSet(Name),
    /// Creates a chain.
    AddChain(Name, Option<BaseChain>),
    /// Removes all rules of a chain.
    FlushChain(Name),
    /// Deletes an empty chain nothing refers to.
    DeleteChain(Name),
    /// Appends a rule.
    AddRule(Name, Rule),
    /// Adds elements to a set; a key that is there with another value is an error.
    AddElements(Arc<SetSpec>, Vec<(Key, Value)>),
    /// Deletes elements; they must be there.
    DeleteElements(Arc<SetSpec>, Vec<(Key, Value)>),
}

/// A list of requests that happens as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Transaction {
    /// The requests in order.
    pub ops: Vec<Op>,
    /// Chains that are empty and unused once `ops` are done. They are deleted by a transaction of
    /// their own, later: kernels before 6.2 count a reference from a deleted verdict element until
    /// a short while after the commit, and would refuse the whole batch.
    pub stale_chains: Vec<Name>,
}

impl Transaction {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.stale_chains.is_empty()
    }

    /// Number of objects asked for, elements counted one by one.
    #[must_use]
    pub fn len(&self) -> usize {
        let ops = self.ops.iter().map(|op| match op {
            Op::AddElements(_, elements) | Op::DeleteElements(_, elements) => elements.len(),
            _ => 1,
        });
        ops.sum::<usize>() + self.stale_chains.len()
    }

    /// The transaction that removes everything.
    #[must_use]
    pub fn delete_table() -> Self {
        // Adding first makes the deletion valid when there is no table.
        Self { ops: vec![Op::AddTable, Op::DeleteTable], stale_chains: Vec::new() }
    }

    /// The transaction that deletes chains which became stale earlier.
    #[must_use]
    pub fn delete_chains(chains: &[Name]) -> Self {
        Self { ops: chains.iter().cloned().map(Op::DeleteChain).collect(), stale_chains: Vec::new() }
    }
}
