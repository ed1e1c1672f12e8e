//! Certificates for those who ask: approves what nodes ask for themselves, signs
//! what was approved, and removes what is done with. Signing itself is somebody
//! else's: a [`CertificateSigner`] is handed in.

mod plan;
mod recognize;
mod sync;

pub(super) use sync::start;

pub use pki::CertificateSigner;
