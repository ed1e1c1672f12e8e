//! Which types fit each other, and what types that are to be found must be for that (cel-go's `checker/types.go`).

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::Type;

/// What types that were to be found are.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    found: HashMap<Arc<str>, Type>,
    /// What was there before each change, so that an attempt that fails leaves nothing.
    undo: Vec<(Arc<str>, Option<Type>)>,
}

impl Mapping {
    /// Whether a value of the second type may stand where the first is asked. What that demands is kept.
    pub(super) fn assignable(&mut self, to: &Type, from: &Type) -> bool {
        let done = self.assign(to, from);
        self.settle(done)
    }

    /// The same for pairs.
    pub(super) fn all_assignable(&mut self, to: &[Type], from: &[Type]) -> bool {
        let done = self.assign_all(to, from);
        self.settle(done)
    }

    fn settle(&mut self, done: bool) -> bool {
        for (name, before) in self.undo.drain(..).rev() {
            match before {
                _ if done => {}
                Some(before) => {
                    self.found.insert(name, before);
                }
                None => {
                    self.found.remove(&name);
                }
            }
        }
        done
    }

    fn add(&mut self, name: &Arc<str>, of: Type) {
        let before = self.found.insert(Arc::clone(name), of);
        self.undo.push((Arc::clone(name), before));
    }

    fn assign(&mut self, to: &Type, from: &Type) -> bool {
        if let Type::Param(name) = from {
            let (valid, known) = self.substitution(to, name);
            if valid || known {
                return valid;
            }
        }
        if let Type::Param(name) = to {
            return self.substitution(from, name).0;
        }
        match (to, from) {
            _ if to.is_dyn_or_error() || from.is_dyn_or_error() => true,
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) => self.assign(a, b),
            (Type::Map(a, b), Type::Map(c, d)) => self.assign(a, c) && self.assign(b, d),
            (Type::Opaque(a, p), Type::Opaque(b, q)) => a == b && self.assign_all(p, q),
            _ => to == from,
        }
    }

    fn assign_all(&mut self, to: &[Type], from: &[Type]) -> bool {
        to.len() == from.len() && to.iter().zip(from).all(|(to, from)| self.assign(to, from))
    }

    /// Whether a type may be what a name stands for, and whether the name stood for something already.
    fn substitution(&mut self, of: &Type, name: &Arc<str>) -> (bool, bool) {
        if matches!(of, Type::Param(own) if own == name) {
            return (true, true);
        }
        if let Some(known) = self.found.get(name).cloned() {
            if known == *of {
                return (true, true);
            }
            if !self.assign(of, &known) {
                return (false, true);
            }
            let general = most_general(of, &known).clone();
            if !self.refers(&general, name) {
                self.add(name, general);
            }
            return (true, true);
        }
        let free = !self.refers(of, name);
        if free {
            self.add(name, of.clone());
        }
        (free, false)
    }

    /// Whether a type has a name in it.
    fn refers(&self, of: &Type, name: &Arc<str>) -> bool {
        match of {
            Type::Param(own) => own == name || self.found.get(own).is_some_and(|found| self.refers(found, name)),
            Type::List(inner) | Type::Type(Some(inner)) => self.refers(inner, name),
            Type::Map(key, value) => self.refers(key, name) || self.refers(value, name),
            Type::Opaque(_, parameters) => parameters.iter().any(|inner| self.refers(inner, name)),
            _ => false,
        }
    }

    /// The type with what is known in the place of names. What stays unknown may become dynamic.
    pub(super) fn substitute(&self, of: &Type, to_dyn: bool) -> Type {
        match of {
            Type::Param(name) => match self.found.get(name) {
                Some(found) => self.substitute(found, to_dyn),
                None if to_dyn => Type::Dyn,
                None => of.clone(),
            },
            Type::List(inner) => Type::list(self.substitute(inner, to_dyn)),
            Type::Map(key, value) => Type::map(self.substitute(key, to_dyn), self.substitute(value, to_dyn)),
            Type::Type(Some(inner)) => Type::Type(Some(self.substitute(inner, to_dyn).into())),
            Type::Opaque(name, parameters) => {
                let parameters = parameters.iter().map(|inner| self.substitute(inner, to_dyn)).collect();
                Type::Opaque(Arc::clone(name), parameters)
            }
            _ => of.clone(),
        }
    }
}

fn nullable(of: &Type) -> bool {
    matches!(of, Type::Null | Type::Opaque(..) | Type::Struct(_) | Type::Duration | Type::Timestamp)
}

/// The one of two types that says less.
pub(super) fn most_general<'t>(a: &'t Type, b: &'t Type) -> &'t Type {
    if less_specific(a, b) { a } else { b }
}

fn less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::Opaque(n, p), Type::Opaque(m, q)) => {
            n == m && p.len() == q.len() && p.iter().zip(q.iter()).all(|(a, b)| less_specific(a, b))
        }
        (Type::List(a), Type::List(b)) => less_specific(a, b),
        (Type::Map(a, b), Type::Map(c, d)) => less_specific(a, c) && less_specific(b, d),
        (Type::Type(_), Type::Type(_)) => true,
        _ => a == b,
    }
}

/// A type with other names for what is to be found.
pub(super) fn rename(of: &Type, names: &[(&str, Type)]) -> Type {
    match of {
        Type::Param(name) => {
            names.iter().find(|(old, _)| *old == &**name).map_or_else(|| of.clone(), |(_, new)| new.clone())
        }
        Type::List(inner) => Type::list(rename(inner, names)),
        Type::Map(key, value) => Type::map(rename(key, names), rename(value, names)),
        Type::Type(Some(inner)) => Type::Type(Some(rename(inner, names).into())),
        Type::Opaque(name, parameters) => {
            Type::Opaque(Arc::clone(name), parameters.iter().map(|inner| rename(inner, names)).collect())
        }
        _ => of.clone(),
    }
}
