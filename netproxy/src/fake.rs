//! An in-memory nftables: keeps our table, applies transactions with the kernel's rules about
//! references and duplicates, and fails when told to. For tests here and in dependents.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::backend::{Generation, Listing, NftBackend, NftError};
use crate::nft::object::{Chain, Name, Set, Table, Verdict};
use crate::nft::statement::Statement;
use crate::nft::transaction::{Op, Transaction};

/// Why the kernel would refuse a request.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ApplyError {
    /// ENOENT
    #[error("{0} does not exist")]
    NotFound(String),
    /// EEXIST
    #[error("{0} exists already")]
    Exists(String),
    /// EBUSY
    #[error("{0} is in use")]
    Busy(String),
}

/// Performs `ops` on `table` (`None`: no table).
///
/// # Errors
/// [`ApplyError`] as the kernel would refuse; `table` is then in an undefined state, so apply to a copy.
pub fn apply(table: &mut Option<Table>, tx: &Transaction) -> Result<(), ApplyError> {
    for op in &tx.ops {
        match op {
            Op::AddTable => {
                table.get_or_insert_default();
            }
            Op::DeleteTable => {
                table.take().ok_or_else(|| ApplyError::NotFound("table".to_owned()))?;
            }
            _ => {
                let table = table.as_mut().ok_or_else(|| ApplyError::NotFound("table".to_owned()))?;
                apply_op(table, op)?;
            }
        }
    }
    Ok(())
}

fn apply_op(table: &mut Table, op: &Op) -> Result<(), ApplyError> {
    match op {
        Op::AddTable | Op::DeleteTable => {}
        Op::AddSet(spec) => {
            if table.declare(spec).spec != *spec {
                return Err(ApplyError::Exists(spec.name.to_string()));
            }
        }
        Op::DeleteSet(name) => {
            if table.chains.values().any(|chain| chain.rules.iter().any(|r| r.0.iter().any(|s| uses_set(s, name)))) {
                return Err(ApplyError::Busy(name.to_string()));
            }
            table.sets.remove(name).ok_or_else(|| ApplyError::NotFound(name.to_string()))?;
        }
        Op::AddChain(name, base) => {
            let chain = table.chains.entry(name.clone()).or_insert_with(|| Chain { base: *base, rules: Vec::new() });
            if chain.base != *base {
                return Err(ApplyError::Exists(name.to_string()));
            }
        }
        Op::FlushChain(name) => chain_mut(table, name)?.rules.clear(),
        Op::DeleteChain(name) => {
            if chain_mut(table, name)?.rules.is_empty() && !chain_is_used(table, name) {
                table.chains.remove(name);
            } else {
                return Err(ApplyError::Busy(name.to_string()));
            }
        }
        Op::AddRule(name, rule) => {
            check_references(table, &rule.0)?;
            chain_mut(table, name)?.rules.push(rule.clone());
        }
        Op::AddElements(spec, elements) => {
            for (key, value) in elements {
                if let crate::nft::object::Value::Verdict(verdict) = value {
                    check_verdict(table, verdict)?;
                }
                let set = set_mut(table, &spec.name)?;
                if set.elements.insert(*key, value.clone()).is_some() {
                    return Err(ApplyError::Exists(format!("{key:?} in {}", spec.name)));
                }
            }
        }
        Op::DeleteElements(spec, elements) => {
            let set = set_mut(table, &spec.name)?;
            for (key, _) in elements {
                set.elements.remove(key).ok_or_else(|| ApplyError::NotFound(format!("{key:?} in {}", spec.name)))?;
            }
        }
    }
    Ok(())
}

fn chain_mut<'a>(table: &'a mut Table, name: &Name) -> Result<&'a mut Chain, ApplyError> {
    table.chains.get_mut(name).ok_or_else(|| ApplyError::NotFound(name.to_string()))
}

fn set_mut<'a>(table: &'a mut Table, name: &Name) -> Result<&'a mut Set, ApplyError> {
    table.sets.get_mut(name).ok_or_else(|| ApplyError::NotFound(name.to_string()))
}

fn set_of(statement: &Statement) -> Option<&Name> {
    match statement {
        Statement::InSet { set, .. } | Statement::UpdateSaddr { set, .. } => Some(set),
        Statement::DnatMap { map, .. } | Statement::Vmap { map, .. } => Some(map),
        _ => None,
    }
}

fn uses_set(statement: &Statement, name: &Name) -> bool {
    set_of(statement) == Some(name)
}

fn check_verdict(table: &Table, verdict: &Verdict) -> Result<(), ApplyError> {
    match verdict.chain() {
        Some(chain) if !table.chains.contains_key(chain) => Err(ApplyError::NotFound(chain.to_string())),
        _ => Ok(()),
    }
}

fn check_references(table: &Table, statements: &[Statement]) -> Result<(), ApplyError> {
    for statement in statements {
        if let Some(set) = set_of(statement) {
            if !table.sets.contains_key(set) {
                return Err(ApplyError::NotFound(set.to_string()));
            }
        }
        if let Statement::Verdict(verdict) = statement {
            check_verdict(table, verdict)?;
        }
    }
    Ok(())
}

fn chain_is_used(table: &Table, name: &Name) -> bool {
    let by_rule = table
        .chains
        .values()
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.0)
        .any(|statement| matches!(statement, Statement::Verdict(verdict) if verdict.chain() == Some(name)));
    let by_element = table
        .sets
        .values()
        .flat_map(|set| set.elements.values())
        .any(|value| matches!(value, crate::nft::object::Value::Verdict(verdict) if verdict.chain() == Some(name)));
    by_rule || by_element
}

#[derive(Debug, Default)]
struct State {
    table: Option<Table>,
    generation: u32,
    transactions: Vec<Transaction>,
    failures: Vec<NftError>,
}

/// A shared in-memory kernel; clones see the same table.
#[derive(Debug, Clone, Default)]
pub struct FakeNft {
    state: Arc<Mutex<State>>,
}

impl FakeNft {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table as it is now.
    #[must_use]
    pub fn table(&self) -> Option<Table> {
        self.lock().table.clone()
    }

    /// Puts a table there behind the proxy's back.
    pub fn set_table(&self, table: Option<Table>) {
        let mut state = self.lock();
        state.table = table;
        state.generation += 1;
    }

    /// Makes the next call of `run` fail; several failures queue up.
    pub fn fail_next(&self, error: NftError) {
        self.lock().failures.push(error);
    }

    /// The transactions performed so far.
    #[must_use]
    pub fn transactions(&self) -> Vec<Transaction> {
        self.lock().transactions.clone()
    }
}

impl NftBackend for FakeNft {
    fn run(&mut self, tx: &Transaction, since: Option<Generation>) -> Result<(), NftError> {
        let mut state = self.lock();
        if !state.failures.is_empty() {
            return Err(state.failures.remove(0));
        }
        if since.is_some_and(|since| since.0 != state.generation) {
            return Err(NftError::Changed);
        }
        let mut table = state.table.clone();
        apply(&mut table, tx).map_err(|e| {
            let errno = match e {
                ApplyError::NotFound(_) => libc::ENOENT,
                ApplyError::Exists(_) => libc::EEXIST,
                ApplyError::Busy(_) => libc::EBUSY,
            };
            NftError::Refused { op: e.to_string(), source: std::io::Error::from_raw_os_error(errno) }
        })?;
        state.table = table;
        state.generation += 1;
        state.transactions.push(tx.clone());
        Ok(())
    }

    fn check(&mut self, tx: &Transaction) -> Result<(), NftError> {
        let mut table = self.table();
        apply(&mut table, tx).map_err(|e| NftError::Program(e.to_string()))
    }

    fn list(&mut self) -> Result<Listing, NftError> {
        let state = self.lock();
        Ok(Listing { table: state.table.as_ref().map(Table::observe), generation: Some(Generation(state.generation)) })
    }
}
