//! The API server as clients meet it: over the in-process transport, over TLS with raw requests, and with kubectl.

#![allow(clippy::unwrap_used)]

mod access;
mod aggregation;
mod apply;
mod authorization;
mod bad_input;
mod certificates;
mod crud;
mod custom;
mod custom_conversion;
mod custom_documents;
mod custom_rules;
mod documents;
mod fidelity;
mod kubectl;
mod lifecycle;
mod policies;
mod policy_objects;
mod published;
mod quota;
mod semantics;
mod tunnels;
mod unread;
mod watches;
mod webhooks;
mod writes;

use std::path::Path;

use apiserver::testing::Served;
use harness::program::Background;

/// kubectl as administrator of a test's server, or whoever its arguments say.
struct Kubectl(harness::kubectl::Kubectl);

impl Kubectl {
    fn of(served: &Served) -> Self {
        let directory: &Path = served.dir.path();
        Self(harness::kubectl::Kubectl::with_config(directory, &directory.join("admin")))
    }

    /// Runs it with an input: whether it succeeded, and everything that it printed.
    async fn told(&self, arguments: &[&str], input: &str) -> (bool, String) {
        self.0.told(arguments, input).await.unwrap()
    }

    /// The same; it has to succeed.
    async fn run(&self, arguments: &[&str], input: &str) -> String {
        let (ok, text) = self.told(arguments, input).await;
        assert!(ok, "kubectl {arguments:?}: {text}");
        text
    }

    /// Starts one that goes on by itself.
    fn start(&self, arguments: &[&str]) -> Background {
        self.0.start(arguments).unwrap()
    }
}
