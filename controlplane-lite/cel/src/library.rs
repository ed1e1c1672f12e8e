//! The functions that expressions can call: those of the language, of cel-go's extensions and of Kubernetes
//! (`pkg/cel/library` of `k8s.io/apiserver`), as the environment of v1.36 has them.

mod authz;
pub(crate) mod convert;
pub(crate) mod format;
mod lists;
mod network;
pub(crate) mod operators;
mod optional;
mod quantities;
pub(crate) mod semver;
mod strings;
pub(crate) mod template;
mod times;
mod urls;

use crate::budget::Budget;
use crate::error::EvalError;
use crate::value::Value;

/// What a function does. Arguments have a target first; there may be any number of them, of any types.
pub(crate) type Implementation = for<'a> fn(&Scope<'_>, &[Value<'a>]) -> Outcome<'a>;

/// A function's value, or why it has none.
pub(crate) type Outcome<'a> = Result<Value<'a>, EvalError>;

/// A function's name, its overloads (see [`crate::declare`]), and what it does.
pub(crate) type Table = &'static [(&'static str, &'static str, Implementation)];

/// Where a function is called.
#[derive(Debug)]
pub(crate) struct Scope<'s> {
    /// The function's name.
    pub(crate) name: &'static str,
    pub(crate) budget: &'s Budget,
}

impl Scope<'_> {
    /// Arguments that the function does not take.
    pub(crate) fn refuse<'a>(&self, args: &[Value<'_>]) -> Outcome<'a> {
        let types: Vec<String> = args.iter().map(|arg| arg.type_of().runtime_name().to_owned()).collect();
        Err(EvalError::new(format!("no such overload: {}({})", self.name, types.join(", "))))
    }
}

/// All functions.
pub(crate) const TABLES: &[Table] = &[
    operators::TABLE,
    convert::TABLE,
    times::TABLE,
    strings::TABLE,
    template::TABLE,
    lists::TABLE,
    optional::TABLE,
    quantities::TABLE,
    network::TABLE,
    urls::TABLE,
    semver::TABLE,
    format::TABLE,
    authz::TABLE,
];
