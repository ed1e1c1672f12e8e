//! Finds the type of every node, and what each identifier and call means (cel-go's `checker/checker.go`).

mod call;
mod unify;
mod validate;

use std::sync::Arc;

use crate::ast::{Ast, Comprehension, Entry, Expr, Kind, ListExpr, Literal, Select, StructExpr, operator};
use crate::declare::Function;
use crate::env::Env;
use crate::source::{Issue, Issues, Lines};
use crate::types::Type;
use unify::Mapping;

/// The most parts of a type. One with more is not known before evaluation: types can double with each link of a chain.
const MAX_PARTS: usize = 200;

/// What a node refers to.
#[derive(Debug, Clone)]
pub(crate) enum Reference {
    /// A type, as value.
    Type(Type),
    /// A variable whose name has dots.
    Variable(Arc<str>),
    /// A function. `qualified`: what stands before the dot is part of its name.
    Call { function: &'static Function, overloads: Vec<&'static str>, qualified: bool },
}

/// A tree whose types fit.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) ast: Ast,
    types: Vec<Option<Type>>,
    references: Vec<Option<Reference>>,
}

impl Checked {
    /// The type of a node.
    pub(crate) fn type_of(&self, expr: &Expr) -> &Type {
        self.types.get(expr.id as usize).and_then(Option::as_ref).unwrap_or(&Type::Dyn)
    }

    pub(crate) fn reference(&self, expr: &Expr) -> Option<&Reference> {
        self.references.get(expr.id as usize).and_then(Option::as_ref)
    }
}

/// Checks a tree against declarations.
///
/// # Errors
/// Everything that does not fit.
pub(crate) fn check(text: &str, ast: Ast, env: &Env) -> Result<Checked, Issues> {
    let mut checker = Checker {
        env,
        offsets: &ast.offsets,
        lines: Lines::new(text),
        types: vec![None; ast.offsets.len()],
        references: vec![None; ast.offsets.len()],
        mapping: Mapping::default(),
        scope: Vec::new(),
        issues: Vec::new(),
        variables: 0,
    };
    checker.check(&ast.root);
    for found in checker.types.iter_mut().flatten() {
        *found = checker.mapping.substitute(found, true);
    }
    if checker.issues.is_empty() {
        validate::literals(&mut checker, &ast.root, false);
    }
    let Checker { types, references, issues, .. } = checker;
    if !issues.is_empty() {
        return Err(Issues::new(text, issues));
    }
    Ok(Checked { ast, types, references })
}

struct Checker<'c> {
    env: &'c Env,
    offsets: &'c [usize],
    lines: Lines<'c>,
    types: Vec<Option<Type>>,
    references: Vec<Option<Reference>>,
    mapping: Mapping,
    /// Variables of comprehensions, the innermost last.
    scope: Vec<(Arc<str>, Type)>,
    issues: Vec<Issue>,
    /// How many types that are to be found there are.
    variables: usize,
}

/// The parts of a type, counted up to a number beyond which they do not matter.
fn parts(of: &Type, room: usize) -> usize {
    if room == 0 {
        return 1;
    }
    1 + match of {
        Type::List(inner) | Type::Type(Some(inner)) => parts(inner, room - 1),
        Type::Map(key, value) => {
            let keys = parts(key, room - 1);
            keys + parts(value, (room - 1).saturating_sub(keys))
        }
        Type::Opaque(_, parameters) => parameters.iter().map(|inner| parts(inner, room - 1)).sum(),
        _ => 0,
    }
}

impl Checker<'_> {
    fn report(&mut self, id: u32, message: String) {
        let location = self.offsets.get(id as usize).map(|offset| self.lines.locate(*offset));
        self.issues.push(Issue { location, message });
    }

    fn set_type(&mut self, expr: &Expr, of: Type) {
        let of = if parts(&of, MAX_PARTS) >= MAX_PARTS { Type::Dyn } else { of };
        if let Some(slot) = self.types.get_mut(expr.id as usize) {
            *slot = Some(of);
        }
    }

    fn type_of(&self, expr: &Expr) -> Type {
        self.types.get(expr.id as usize).and_then(Clone::clone).unwrap_or(Type::Error)
    }

    fn refer(&mut self, expr: &Expr, to: Reference) {
        if let Some(slot) = self.references.get_mut(expr.id as usize) {
            *slot = Some(to);
        }
    }

    fn new_variable(&mut self) -> Type {
        self.variables += 1;
        Type::Param(format!("_var{}", self.variables - 1).into())
    }

    fn check(&mut self, expr: &Expr) {
        match &expr.kind {
            Kind::Literal(literal) => self.set_type(expr, literal_type(literal)),
            Kind::Ident(name) => self.ident(expr, name),
            Kind::Select(select) => self.select(expr, select),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(list) => self.list(expr, list),
            Kind::Map(entries) => self.map(expr, entries),
            Kind::Struct(object) => self.structure(expr, object),
            Kind::Comprehension(fold) => self.comprehension(expr, fold),
        }
    }

    fn ident(&mut self, expr: &Expr, name: &str) {
        let (local, bare) = match name.strip_prefix('.') {
            Some(bare) => (None, bare),
            None => (self.scope.iter().rev().find(|(known, _)| **known == *name), name),
        };
        if let Some(of) = local.map(|(_, of)| of).or_else(|| self.env.variable(bare)) {
            let of = of.clone();
            self.set_type(expr, of);
        } else if let Some(named) = Env::type_named(bare) {
            self.set_type(expr, Type::Type(Some(named.clone().into())));
            self.refer(expr, Reference::Type(named));
        } else {
            self.set_type(expr, Type::Error);
            self.report(expr.id, format!("undeclared reference to '{name}' (in container '')"));
        }
    }

    fn is_local(&self, name: &str) -> bool {
        self.scope.iter().any(|(known, _)| **known == *name)
    }

    fn select(&mut self, expr: &Expr, select: &Select) {
        if !select.test_only
            && let Some(name) = expr.qualified_name()
            && !self.is_local(name.split('.').next().unwrap_or_default())
        {
            if let Some(of) = self.env.variable(&name) {
                self.set_type(expr, of.clone());
                return self.refer(expr, Reference::Variable(name.into()));
            }
            if let Some(named) = Env::type_named(&name) {
                self.set_type(expr, Type::Type(Some(named.clone().into())));
                return self.refer(expr, Reference::Type(named));
            }
        }
        let of = self.field(expr, &select.operand, &select.field, false);
        let of = if select.test_only { Type::Bool } else { self.mapping.substitute(&of, false) };
        self.set_type(expr, of);
    }

    /// The type of a field of an operand, which is checked first.
    fn field(&mut self, expr: &Expr, operand: &Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand_type = self.mapping.substitute(&self.type_of(operand), false);
        let inner = operand_type.unwrap_optional();
        let optional = optional || inner.is_some();
        let target = inner.unwrap_or(&operand_type);
        let found = match target {
            Type::Map(_, value) => (**value).clone(),
            Type::Struct(name) => self.struct_field(expr.id, name, field),
            Type::Param(_) => {
                self.mapping.assignable(&Type::Dyn, target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.report(expr.id, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if optional { Type::optional(found) } else { found }
    }

    fn struct_field(&mut self, id: u32, name: &str, field: &str) -> Type {
        if !self.env.is_struct(name) {
            self.report(id, format!("unexpected failed resolution of '{name}'"));
            return Type::Error;
        }
        let found = self.env.field(name, field);
        if found.is_none() {
            self.report(id, format!("undefined field '{field}'"));
        }
        found.unwrap_or(Type::Error)
    }

    /// The type of an element or value, which has an optional's value if it is one.
    fn element(&mut self, expr: &Expr, optional: bool) -> Type {
        self.check(expr);
        let of = self.type_of(expr);
        if !optional {
            return of;
        }
        match of.unwrap_optional() {
            Some(inner) => inner.clone(),
            None => {
                if !of.is_dyn() {
                    self.mismatch(expr, &Type::optional(of.clone()), &of);
                }
                of
            }
        }
    }

    fn mismatch(&mut self, expr: &Expr, expected: &Type, found: &Type) {
        self.report(expr.id, format!("expected type '{expected}' but found '{found}'"));
    }

    /// One type for what was before and what comes now. Whether aggregates have elements of one type is checked later.
    fn join(&mut self, previous: Option<Type>, current: Type) -> Type {
        match previous {
            None => current,
            Some(previous) if self.mapping.assignable(&previous, &current) => {
                unify::most_general(&previous, &current).clone()
            }
            Some(_) => Type::Dyn,
        }
    }

    fn list(&mut self, expr: &Expr, list: &ListExpr) {
        let mut joined = None;
        for (element, optional) in list.elements.iter().zip(&list.optional) {
            let of = self.element(element, *optional);
            joined = Some(self.join(joined, of));
        }
        let element = joined.unwrap_or_else(|| self.new_variable());
        self.set_type(expr, Type::list(element));
    }

    fn map(&mut self, expr: &Expr, entries: &[Entry]) {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.element(&entry.key, false);
            keys = Some(self.join(keys, key));
            let value = self.element(&entry.value, entry.optional);
            values = Some(self.join(values, value));
        }
        let key = keys.unwrap_or_else(|| self.new_variable());
        let value = values.unwrap_or_else(|| self.new_variable());
        self.set_type(expr, Type::map(key, value));
    }

    fn structure(&mut self, expr: &Expr, object: &StructExpr) {
        let name = object.name.strip_prefix('.').unwrap_or(&object.name);
        if !self.env.is_made(name) {
            if Env::type_named(name).is_some() {
                self.report(expr.id, format!("'{name}' is not a message type"));
            } else {
                self.report(expr.id, format!("undeclared reference to '{}' (in container '')", object.name));
            }
            self.set_type(expr, Type::Error);
            return;
        }
        self.set_type(expr, Type::named(name));
        for field in &object.fields {
            let value = self.element(&field.value, field.optional);
            let of = self.struct_field(field.id, name, &field.name);
            if !self.mapping.assignable(&of, &value) {
                let message =
                    format!("expected type of field '{}' is '{of}' but provided type is '{value}'", field.name);
                self.report(field.id, message);
            }
        }
    }

    fn comprehension(&mut self, expr: &Expr, fold: &Comprehension) {
        self.check(&fold.range);
        self.check(&fold.init);
        let range = self.mapping.substitute(&self.type_of(&fold.range), false);
        let accumulator = self.type_of(&fold.init);
        let outer = self.scope.len();
        self.scope.push((Arc::clone(&fold.accumulator), accumulator.clone()));
        let (first, second) = match &range {
            Type::List(element) if fold.variable2.is_some() => (Type::Int, (**element).clone()),
            Type::List(element) => ((**element).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.mapping.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                self.report(fold.range.id, format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                ));
                (Type::Error, Type::Error)
            }
        };
        self.scope.push((Arc::clone(&fold.variable), first));
        if let Some(name) = &fold.variable2 {
            self.scope.push((Arc::clone(name), second));
        }
        self.check(&fold.condition);
        self.assert_type(&fold.condition, &Type::Bool);
        self.check(&fold.step);
        self.assert_type(&fold.step, &accumulator);
        self.scope.truncate(outer + 1);
        self.check(&fold.result);
        self.scope.truncate(outer);
        let of = self.mapping.substitute(&self.type_of(&fold.result), false);
        self.set_type(expr, of);
    }

    fn assert_type(&mut self, expr: &Expr, expected: &Type) {
        let found = self.type_of(expr);
        if !self.mapping.assignable(expected, &found) {
            self.mismatch(expr, expected, &found);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

/// Whether a function's arguments are conditions.
fn is_logical(function: &str) -> bool {
    matches!(function, operator::AND | operator::OR)
}
