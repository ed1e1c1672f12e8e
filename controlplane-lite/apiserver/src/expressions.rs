//! Expressions of admission: those of policies, and of the conditions of policies and webhooks. What they may refer to,
//! how they are compiled, and how they are evaluated for a request (`k8s.io/apiserver/pkg/admission/plugin/cel`).
//!
//! [`declared`] has the types of variables, [`compile`] makes programs and says what is wrong with a text, [`input`]
//! gives variables their values, [`authorizer`] answers what expressions ask of it, [`typecheck`] says what does not
//! fit the types of objects. All of it is pure but for what a view is asked.

mod authorizer;
mod check;
mod compile;
mod conditions;
mod declared;
mod input;
mod typecheck;

pub(crate) use authorizer::Asker;
pub(crate) use check::check;
pub(crate) use compile::{Compiled, Scope, Variable, compile};
pub(crate) use conditions::{Rule, matches, webhook_condition};
pub(crate) use input::{Exhausted, Facts, Input};
pub(crate) use typecheck::warnings;

#[cfg(test)]
mod tests;
