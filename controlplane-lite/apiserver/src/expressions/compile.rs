//! Makes programs of texts (`CompileCELExpression`).

use std::sync::Arc;

use cel::{Program, Type};
use scheme::expressions::Purpose;

use super::declared::{self, Declared};

/// An expression: what it does, or why it does nothing.
pub(crate) type Compiled = Result<Program, String>;

/// How deep expressions may lie in each other through variables: their evaluation, and their values, are as deep.
const MAX_DEPTH: usize = 400;
/// What a variable adds to the depth beside its expression.
const STEP: usize = 4;

/// A variable of a policy.
#[derive(Debug)]
pub(crate) struct Variable {
    pub name: Arc<str>,
    pub program: Compiled,
    depth: usize,
}

impl Variable {
    /// Compiles one that may use those before it.
    pub(crate) fn new(name: &str, text: &str, scope: &Scope<'_>) -> Self {
        let program = compile(text, Purpose::Variable, scope);
        let depth = program.as_ref().map_or(0, |program| depth(program, scope.variables));
        Self { name: name.into(), program, depth }
    }
}

/// How deep the evaluation of an expression goes, with that of the variables that it uses.
fn depth(program: &Program, variables: &[Variable]) -> usize {
    let mut below = 0;
    program.fields_of("variables", &mut |name| {
        let used = |variable: &&Variable| name.is_none_or(|name| *variable.name == *name);
        let deepest = variables.iter().filter(used).map(|variable| variable.depth + STEP).max();
        below = below.max(deepest.unwrap_or(0));
    });
    below + if below > 0 { program.height() } else { program.height().min(MAX_DEPTH) }
}

/// What expressions of one policy or webhook may refer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// Whether there are `params`.
    pub params: bool,
    /// Whether the policy mutates.
    pub mutation: bool,
    /// The variables that may be used.
    pub variables: &'a [Variable],
}

/// The type of a variable's values.
fn type_of(variable: &Variable) -> Type {
    variable.program.as_ref().map_or(Type::Dyn, |program| program.result_type().clone())
}

/// The types that an expression may have, for what it is for. None: any.
fn expected(purpose: Purpose) -> Vec<Type> {
    match purpose {
        Purpose::MatchCondition | Purpose::Validation => vec![Type::Bool],
        Purpose::Message => vec![Type::String],
        Purpose::AuditAnnotation => vec![Type::String, Type::Null],
        Purpose::JsonPatch => vec![Type::list(Type::named("JSONPatch"))],
        Purpose::ApplyConfiguration => vec![Type::named("Object")],
        Purpose::Variable => Vec::new(),
    }
}

fn type_name(of: &Type) -> String {
    match of {
        Type::Null | Type::Timestamp | Type::Duration => of.runtime_name().to_owned(),
        other => other.to_string(),
    }
}

/// Compiles an expression.
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub(crate) fn compile(text: &str, purpose: Purpose, scope: &Scope<'_>) -> Compiled {
    // What is said of a refusal does not depend on who may do what.
    let authorizer = !matches!(purpose, Purpose::Message | Purpose::AuditAnnotation);
    let declared = Declared { params: scope.params, authorizer, mutation: scope.mutation };
    let types = scope.variables.iter().map(|variable| (Arc::clone(&variable.name), type_of(variable)));
    let program = Program::compile(text, &declared::env(declared, types)).map_err(|error| match error {
        cel::CompileError::Issues(issues) => format!("compilation failed: {issues}"),
        cel::CompileError::Program(why) => format!("program instantiation failed: {why}"),
    })?;
    if depth(&program, scope.variables) > MAX_DEPTH {
        return Err(format!("program instantiation failed: variables use each other more than {MAX_DEPTH} steps deep"));
    }
    let (wanted, found) = (expected(purpose), program.result_type());
    if wanted.is_empty() || wanted.contains(found) {
        return Ok(program);
    }
    let names: Vec<String> = wanted.iter().map(type_name).collect();
    Err(match &names[..] {
        [one] => format!("must evaluate to {one} but got {}", type_name(found)),
        many => format!("must evaluate to one of [{}] but got {}", many.join(" "), type_name(found)),
    })
}
