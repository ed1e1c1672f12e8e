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
    /// What was left then.
    left: Cell<u64>,
}

impl<'a> Input<'a> {
    pub(crate) fn new(facts: Facts<'a>, variables: &'a [Variable]) -> Self {
        Self { facts, variables, known: RefCell::default(), spent: Cell::new(0), left: Cell::new(0) }
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
        self.left.set(*left);
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
                // One expression may ask many variables: all of them together cost no more than is left.
                let budget = Budget::new(PER_CALL_LIMIT.min(self.left.get().saturating_sub(self.spent.get())));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use scheme::expressions::Purpose;
    use serde_json::json;

    use std::sync::atomic::{AtomicUsize, Ordering};

    use auth::authn::UserInfo;
    use auth::authz::Attributes;
    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::*;
    use crate::admission::View;
    use crate::expressions::{Scope, compile};
    use crate::registry::RegistryError;

    /// Sees nothing, allows nothing, and counts how often it was asked.
    #[derive(Default)]
    struct Nobody(AtomicUsize);

    impl View for Nobody {
        fn get(&self, _: &str, _: &str, _: &str, _: &str) -> Option<Value> {
            None
        }
        fn each_in(&self, _: &str, _: &str, _: &str, _: &mut dyn FnMut(&Value)) {}
        fn may(&self, _: &UserInfo, _: &str, _: &str, _: (&str, &str), _: &str) -> bool {
            false
        }
        fn authorize(&self, _: &Attributes) -> (bool, String) {
            self.0.fetch_add(1, Ordering::Relaxed);
            (false, String::new())
        }
        fn is_own_audience(&self, _: &str) -> bool {
            false
        }
        fn suffix(&self) -> String {
            String::new()
        }
        fn fresh(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
            async { Ok(()) }.boxed()
        }
    }

    const NONE: Scope<'_> = Scope { params: false, mutation: false, variables: &[] };

    fn chain(length: usize, text: impl Fn(&str) -> String) -> Vec<Variable> {
        let mut variables = vec![Variable::new("v0", "1", &NONE)];
        for place in 1..length {
            let text = text(&format!("variables.v{}", place - 1));
            let next = Variable::new(&format!("v{place}"), &text, &Scope { variables: &variables, ..NONE });
            variables.push(next);
        }
        variables
    }

    fn evaluate(variables: &[Variable], text: &str, left: &mut u64) -> (Result<(), String>, usize) {
        let (user, view) = (UserInfo::default(), Nobody::default());
        let request = json!({});
        let asker = Asker { user: &user, view: &view };
        let facts =
            Facts { object: None, old: None, request: &request, params: None, namespace: None, authorizer: &asker };
        let input = Input::new(facts, variables);
        let program = compile(text, Purpose::Validation, &Scope { variables, ..NONE });
        let outcome = match &program {
            Ok(program) => input.eval(text, program, left).map_err(|why| why.to_string()).and_then(|v| v.map(drop)),
            Err(why) => Err(why.clone()),
        };
        (outcome, view.0.load(Ordering::Relaxed))
    }

    /// In half of the stack that tasks have.
    #[test]
    fn variables_end_that_use_each_other_without_end() {
        let run = || {
            let left = &mut 10_000_000;
            for text in [|v: &str| format!("{v} + 1"), |v: &str| format!("[{v}]"), |v: &str| format!("[{v}].map(x, x)")]
            {
                let variables = chain(3000, text);
                let steps: Vec<String> =
                    (0..3000).step_by(20).map(|n| format!("dyn(variables.v{n}) != null")).collect();
                for text in ["dyn(variables.v2999) != null".to_owned(), steps[..50].join(" && ")] {
                    let (outcome, _) = evaluate(&variables, &text, left);
                    assert!(outcome.unwrap_err().contains("variables"), "{text}");
                }
                assert_eq!(evaluate(&variables, "dyn(variables.v20) != null", left).0, Ok(()));
            }
        };
        std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
    }

    #[test]
    fn variables_cost_no_more_than_is_left() {
        let costs =
            "lists.range(1000).all(a, lists.range(100).all(b, true)) && authorizer.path('/').check('get').allowed()";
        let variables: Vec<Variable> = (0..50).map(|n| Variable::new(&format!("v{n}"), costs, &NONE)).collect();
        let asks: Vec<String> = (0..50).map(|n| format!("variables.v{n}")).collect();
        let (outcome, evaluated) = evaluate(&variables, &asks.join(" || "), &mut 2_500_000);
        assert_eq!(outcome.unwrap_err(), Exhausted.to_string());
        assert!((1..20).contains(&evaluated), "{evaluated}");
    }
}
