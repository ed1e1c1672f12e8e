//! As whom the controllers act: each under an account of its own, so that a fault in one cannot use the rights of
//! another. Upstream's kube-controller-manager does so with `--use-service-account-credentials`; the rights are those
//! of plugin/pkg/auth/authorizer/rbac/bootstrappolicy/controller_policy.go.

use std::fmt;
use std::sync::Arc;

use kube::Client;

/// Makes the client of an account in `kube-system`.
type Account = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// Clients of the API server.
#[derive(Clone)]
pub struct Clients {
    shared: Client,
    account: Account,
}

impl Clients {
    /// `shared` reads what all controllers look at and writes events; `account` acts as a service account of
    /// `kube-system`, by its name.
    pub fn new(shared: Client, account: impl Fn(&str) -> Client + Send + Sync + 'static) -> Self {
        Self { shared, account: Arc::new(account) }
    }

    /// The same with something between every client and the server.
    #[must_use]
    pub fn map(&self, change: impl Fn(Client) -> Client + Send + Sync + 'static) -> Self {
        let account = self.account.clone();
        let shared = change(self.shared.clone());
        Self::new(shared, move |name| change(account(name)))
    }

    pub(crate) fn shared(&self) -> &Client {
        &self.shared
    }

    /// A client with the rights of one controller.
    pub(crate) fn of(&self, account: &str) -> Client {
        (self.account)(account)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}
