//! What objects use of the ResourceQuotas in their namespace, and whether that is too much. Upstream has this in
//! `k8s.io/apiserver/pkg/quota/v1`, `k8s.io/apiserver/pkg/admission/plugin/resourcequota` and
//! `pkg/quota/v1/evaluator/core`.
//!
//! Two ask: admission, which charges what is about to be stored, and the controller, which counts anew what is there.
//! Both have to come to the same number, so that the rules are here, once. Objects are JSON as the API has it, with
//! defaults; a field of another type than it should have counts as absent. Pure.

mod amounts;
mod charge;
mod evaluator;
mod measured;
mod pod;
mod quota;

pub use amounts::{Amounts, add, at_least, names, print, read, to_value};
pub use charge::{Demand, charge};
pub use evaluator::{Evaluator, Write, ignored};
pub use measured::Measured;
pub use pod::{Asked, asked, in_effect, is_extended, is_native, is_overcommit_allowed};
pub use quota::{Quota, Selector};
