//! An expression that can be evaluated.

use crate::activation::Activation;
use crate::budget::Budget;
use crate::check::{self, Checked};
use crate::env::Env;
use crate::error::{CompileError, EvalError};
use crate::estimate::{self, Range};
use crate::eval;
use crate::parse;
use crate::plan::{self, Node};
use crate::schema::Declared;
use crate::types::Type;
use crate::value::Value;

/// An expression that parses and whose types fit.
#[derive(Debug)]
pub struct Program {
    plan: Node,
    checked: Checked,
}

impl Program {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, in cel-go's words.
    pub fn compile(text: &str, env: &Env) -> Result<Self, CompileError> {
        let ast = parse::parse(text).map_err(CompileError::Issues)?;
        let checked = check::check(text, ast, env).map_err(CompileError::Issues)?;
        let plan = plan::plan(&checked).map_err(CompileError::Program)?;
        Ok(Self { plan, checked })
    }

    /// The type of its values.
    #[must_use]
    pub fn result_type(&self) -> &Type {
        self.checked.type_of(&self.checked.ast.root)
    }

    /// The least and the most that it can cost, if all its variables are what a schema declares.
    #[must_use]
    pub fn estimate(&self, root: &Declared) -> Range {
        estimate::estimate(&self.checked, root)
    }

    /// Whether it reads a variable.
    #[must_use]
    pub fn refers_to(&self, variable: &str) -> bool {
        self.checked.ast.root.names(variable)
    }

    /// How deep it lies in itself, which is how deep its evaluation goes.
    #[must_use]
    pub fn height(&self) -> usize {
        self.checked.ast.root.height()
    }

    /// Visits the fields of a variable that it selects by name; nothing stands for the variable as a whole.
    pub fn fields_of<'e>(&'e self, variable: &str, visit: &mut dyn FnMut(Option<&'e str>)) {
        self.checked.ast.root.fields_of(variable, visit);
    }

    /// Evaluates it. What that costs is noted in the budget, also if it fails.
    ///
    /// # Errors
    /// If the expression fails, or costs more than the budget has.
    pub fn eval<'a>(&self, activation: &dyn Activation<'a>, budget: &Budget) -> Result<Value<'a>, EvalError> {
        eval::evaluate(&self.plan, activation, budget)
    }
}
