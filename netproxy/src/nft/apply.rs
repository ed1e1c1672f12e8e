//! What a transaction does to a table, with the kernel's rules about references and duplicates. Pure.

use thiserror::Error;

use super::object::{Chain, Name, Set, Table, Value, Verdict};
use super::statement::Statement;
use super::transaction::{Op, Transaction};

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
                if let Value::Verdict(verdict) = value {
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
        if let Some(set) = set_of(statement).filter(|set| !table.sets.contains_key(*set)) {
            return Err(ApplyError::NotFound(set.to_string()));
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
        .any(|value| matches!(value, Value::Verdict(verdict) if verdict.chain() == Some(name)));
    by_rule || by_element
}
