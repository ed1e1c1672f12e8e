//! The Common Expression Language as Kubernetes v1.36 uses it in admission policies, match conditions and the schemas
//! of custom resources: parsing, checking of types, estimates and accounts of cost, evaluation
//! (`k8s.io/apiserver/pkg/cel`; cel-go). Pure: what an expression sees is handed in, and nothing is cached between
//! evaluations.
//!
//! ```
//! use cel::{Budget, Env, Program, Type, Variables};
//!
//! let env = Env::new().with_variable("object", Type::Dyn);
//! let program = Program::compile("object.spec.replicas <= 5", &env)?;
//! let object = serde_json::json!({"spec": {"replicas": 3}});
//! let budget = Budget::default();
//! let value = program.eval(&Variables::new().with_json("object", &object), &budget)?;
//! assert_eq!(value.as_bool(), Some(true));
//! assert_eq!(budget.cost(), 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Begin reading at [`Program`]; `parse.rs` → `check.rs` → `plan.rs` → `eval.rs` is an expression's way.

mod activation;
mod ast;
mod budget;
mod check;
mod cost;
mod declare;
mod env;
mod error;
pub mod escape;
mod estimate;
mod eval;
mod lexer;
mod library;
mod number;
mod parse;
pub mod pattern;
mod plan;
mod program;
pub mod schema;
mod source;
pub mod time;
mod types;
mod value;

pub use activation::{Activation, Variables};
pub use budget::{Budget, MATCH_CONDITIONS_BUDGET, PER_CALL_LIMIT, RUNTIME_COST_BUDGET};
pub use env::{Env, StructType, TypeResolver};
pub use error::{COST_LIMIT, CompileError, EvalError};
pub use estimate::Range;
pub use program::Program;
pub use source::{Issue, Issues, Location};
pub use types::Type;
pub use value::{Authorizer, Check, Decision, Key, List, Map, Object, StructValue, Text, Url, Value};
