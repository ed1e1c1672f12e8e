//! Says of the expressions of an object that is written what is wrong with them.

use std::sync::{Arc, Mutex, PoisonError};

use scheme::access::str_at;
use scheme::expressions::{Expression, ExpressionCheck, Purpose};
use scheme::field::{FieldErrors, Path};
use serde_json::Value;

use super::compile::{Scope, Variable, compile};

/// The check for a scheme.
pub(crate) fn check() -> Arc<ExpressionCheck> {
    let known = Mutex::new(Known::default());
    Arc::new(move |expression: Expression<'_>, path: &Path<'_>, errors: &mut FieldErrors| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.follow(&expression);
        let mutation = matches!(expression.purpose, Purpose::JsonPatch | Purpose::ApplyConfiguration);
        let scope = Scope {
            params: expression.params,
            // A variable does not say what its policy does: it may make objects.
            mutation: mutation || expression.purpose == Purpose::Variable,
            variables: &known.variables[..expression.variables.len()],
        };
        if let Err(why) = compile(expression.text, expression.purpose, &scope) {
            errors.invalid(path, expression.text, &why);
        }
    })
}

/// The variables of the policy that is being checked: each expression comes with all that it may use, which are
/// compiled once.
#[derive(Default)]
struct Known {
    params: bool,
    entries: Vec<Value>,
    variables: Vec<Variable>,
}

impl Known {
    /// Has at least the variables of an expression, which begin as those that it has or are others.
    fn follow(&mut self, expression: &Expression<'_>) {
        let wanted = expression.variables;
        let same =
            self.params == expression.params && self.entries.iter().zip(wanted).all(|(known, wanted)| known == wanted);
        if !same {
            *self = Self { params: expression.params, ..Self::default() };
        }
        for entry in &wanted[self.entries.len().min(wanted.len())..] {
            let scope = Scope { params: self.params, mutation: true, variables: &self.variables };
            let variable = Variable::new(str_at(entry, &["name"]), str_at(entry, &["expression"]), &scope);
            self.variables.push(variable);
            self.entries.push(entry.clone());
        }
    }
}
