//! Who is asking ([`authn`]), may they ([`authz`]), the cluster's certificates and
//! keys ([`pki`]) and the default policy ([`bootstrap_policy`]). Deciding is pure;
//! what it needs to know about the cluster comes in through small traits.

pub mod authn;
pub mod authz;
pub mod bootstrap_policy;
pub mod pki;
pub mod views;
