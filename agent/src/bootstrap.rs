//! How a node comes to its credentials: finds the cluster with a token, asks for
//! a client certificate (upstream's TLS bootstrap), and renews it before it ends.
//!
//! The certificate and its key are one file, `kubelet-client-current.pem`; the
//! kubeconfig names it. A key that was made and not yet answered lies beside it,
//! so whoever starts again after dying goes on with the same request.

pub mod client;
pub mod discovery;
pub mod patience;
mod plan;
mod request;
pub mod rotate;
mod store;
pub mod token;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;

pub use store::Credentials;
pub use token::Token;

/// How long a server that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why a node cannot join. Each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("{server} does not answer")]
    Unreachable { server: String, source: kube::Error },
    #[error("{server} has no ConfigMap kube-public/cluster-info to join by: {reason}")]
    NoClusterInfo { server: String, reason: String },
    #[error(
        "{server} does not know token {id}: it is mistyped, was deleted or has expired (copepod token create makes another)"
    )]
    UnknownToken { server: String, id: String },
    #[error("token {id} did not sign what {server} says: its secret is wrong, or this is another cluster")]
    WrongSignature { server: String, id: String },
    #[error("the CA of {server} is {found}, which no --ca-cert-hash names")]
    WrongCa { server: String, found: String },
    #[error("the token is not accepted: it is wrong, was deleted or has expired")]
    Unauthorized,
    #[error("ask for a certificate")]
    Api(#[source] kube::Error),
    #[error("certificate signing request {name} was denied: {reason}")]
    Denied { name: String, reason: String },
    #[error("certificate signing request {name} was not approved within {} minutes", waited.as_secs() / 60)]
    Unanswered { name: String, waited: Duration },
    #[error("the certificate that was issued is no use: {0}")]
    Unusable(String),
    #[error("{operation} {}", path.display())]
    File { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("make a key: {0}")]
    Key(String),
}

/// Sees to it that `credentials` hold a certificate of `node` that is good now.
/// `client` asks with the bootstrap credentials.
///
/// # Errors
/// What keeps the node from joining.
pub async fn ensure(credentials: &Credentials, node: &str, client: &Client) -> Result<(), JoinError> {
    if credentials.is_good(node, Timestamp::now()) {
        return Ok(());
    }
    renew(credentials, node, client).await
}

/// Asks for a client certificate and stores it.
async fn renew(credentials: &Credentials, node: &str, client: &Client) -> Result<(), JoinError> {
    let key = credentials.pending_key()?;
    obtain(credentials, &key, plan::Request::client(node, &key)?, node, client).await
}

/// The same for a serving certificate.
async fn renew_serving(
    credentials: &Credentials,
    node: &str,
    names: &[String],
    client: &Client,
) -> Result<(), JoinError> {
    let key = credentials.pending_key()?;
    obtain(credentials, &key, plan::Request::serving(node, &key, names)?, node, client).await
}

async fn obtain(
    credentials: &Credentials,
    key: &str,
    request: plan::Request,
    node: &str,
    client: &Client,
) -> Result<(), JoinError> {
    let answer = request::certificate(client, &request).await;
    let stored = answer.and_then(|certificate| credentials.store(&certificate, key, node, Timestamp::now()));
    if let Err(JoinError::Denied { .. } | JoinError::Unusable(_)) = stored {
        // The same request would get the same answer.
        credentials.drop_pending_key();
    }
    stored
}
