//! What every namespace has: the ServiceAccount `default`, and the cluster's CA
//! in the ConfigMap `kube-root-ca.crt`; and the tokens in Secrets that ask for one.

mod plan;
mod sync;
mod token_plan;
mod tokens;

pub(super) use sync::start;
pub(super) use tokens::start as start_tokens;
pub use tokens::{AccountToken, TokenSigner};

/// Type of the Secrets that hold the token of an account.
pub const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";

/// Name of the ConfigMap with the cluster's CA.
pub const ROOT_CA_NAME: &str = "kube-root-ca.crt";
