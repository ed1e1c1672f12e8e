//! Who is asking ([`authn`]), may they ([`authz`]) and the default policy
//! ([`bootstrap_policy`]). Deciding is pure; what it needs to know about the
//! cluster comes in through small traits, which [`views`] implements over the
//! watch cache.

pub mod authn;
pub mod authz;
pub mod bootstrap_policy;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod pod;
pub mod views;
