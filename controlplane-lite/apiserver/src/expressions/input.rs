//! The variables of an evaluation, of which those of a policy are evaluated when they are first asked
//! (`plugin/cel/{activation,composition,condition}.go`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use cel::{Activation, Budget, Check, EvalError, Object, PER_CALL_LIMIT, Program, Value as Val};
use serde_json::Value;

use super::authorizer::Asker;
use super::compile::Variable;
use super::declared::{REQUEST_RESOURCE, VARIABLES};

/// What is known of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The object; none in a delete.
    pub object: Option<&'a Value>,
    /// The object as it was.
    pub old: Option<&'a Value>,
    /// The request without its objects.
    pub request: &'a Value,
    /// The parameters of a policy, if there are any.
    pub params: Option<&'a Value>,
    /// The namespace of the object, if it is in one.
    pub namespace: Option<&'a Value>,
    /// Whom expressions may ask.
    pub authorizer: &'a Asker<'a>,
}

/// That the costs of all expressions together are more than they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("validation failed due to running out of cost budget, no further validation rules will be run")
    }
}

/// The variables of the expressions of one policy, for one request.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    facts: Facts<'a>,
    variables: &'a [Variable],
    /// Values of variables that were asked.
    known: RefCell<HashMap<Arc<str>, Result<Val<'a>, EvalError>>>,
    /// What evaluating them cost since an expression began.
    spent: Cell<u64>,
}

impl<'a> Input<'a> {
    pub(crate) fn new(facts: Facts<'a>, variables: &'a [Variable]) -> Self {
        Self { facts, variables, known: RefCell::default(), spent: Cell::new(0) }
    }

    /// Evaluates an expression, and takes what it costs from what is left. The inner error is of the expression.
    ///
    /// # Errors
    /// If it cost more than was left.
    pub(crate) fn eval(
        &self,
        text: &str,
        program: &Program,
        left: &mut u64,
    ) -> Result<Result<Val<'a>, String>, Exhausted> {
        let budget = Budget::new(PER_CALL_LIMIT);
        let value = program.eval(self, &budget);
        let cost = budget.cost().saturating_add(self.spent.take());
        *left = left.checked_sub(cost).ok_or(Exhausted)?;
        Ok(value.map_err(|error| format!("expression '{text}' resulted in error: {error}")))
    }

    fn json(value: Option<&'a Value>) -> Result<Val<'a>, EvalError> {
        value.map_or(Ok(Val::Null), |value| Val::of_json(value, None))
    }

    /// The check that the request itself is.
    fn request_resource(&self) -> Val<'a> {
        let request = self.facts.request;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let check = Check {
            group: text(&request["resource"]["group"]),
            resource: text(&request["resource"]["resource"]),
            subresource: text(&request["subResource"]),
            namespace: text(&request["namespace"]),
            name: text(&request["name"]),
            ..Check::default()
        };
        Val::Object(Object::ResourceCheck(self.facts.authorizer, check.into()))
    }
}

impl<'a> Activation<'a> for Input<'a> {
    fn variable(&self, name: &str) -> Option<Result<Val<'a>, EvalError>> {
        Some(match name {
            "object" => Self::json(self.facts.object),
            "oldObject" => Self::json(self.facts.old),
            "request" => Self::json(Some(self.facts.request)),
            "params" => Self::json(self.facts.params),
            "namespaceObject" => Self::json(self.facts.namespace),
            "authorizer" => Ok(Val::Object(Object::Authorizer(self.facts.authorizer, Arc::default()))),
            "variables" => Ok(Val::Lazy(VARIABLES.into())),
            REQUEST_RESOURCE => Ok(self.request_resource()),
            _ => return None,
        })
    }

    fn field(&self, _: &str, name: &str) -> Option<Result<Val<'a>, EvalError>> {
        if let Some(known) = self.known.borrow().get(name) {
            return Some(known.clone());
        }
        let variable = self.variables.iter().find(|variable| *variable.name == *name)?;
        let failed = |why: &dyn std::fmt::Display| {
            EvalError::new(format!("composited variable {name:?} fails to evaluate: {why}"))
        };
        let value = match &variable.program {
            Ok(program) => {
                let budget = Budget::new(PER_CALL_LIMIT);
                let value = program.eval(self, &budget);
                self.spent.set(self.spent.get().saturating_add(budget.cost()));
                value.map_err(|error| failed(&error))
            }
            Err(why) => Err(failed(&format!("composited variable {name:?} fails to compile: {why}"))),
        };
        self.known.borrow_mut().insert(Arc::clone(&variable.name), value.clone());
        Some(value)
    }
}
