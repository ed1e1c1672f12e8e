//! The API server as clients meet it: over the in-process transport, over TLS with raw requests, and with kubectl.

#![allow(clippy::unwrap_used)]

#[path = "apiserver/access.rs"]
mod access;
#[path = "apiserver/bad_input.rs"]
mod bad_input;
#[path = "apiserver/crud.rs"]
mod crud;
#[path = "apiserver/documents.rs"]
mod documents;
#[path = "apiserver/kubectl.rs"]
mod kubectl;
#[path = "apiserver/lifecycle.rs"]
mod lifecycle;
#[path = "apiserver/semantics.rs"]
mod semantics;
#[path = "apiserver/support.rs"]
mod support;
#[path = "apiserver/tunnels.rs"]
mod tunnels;
#[path = "apiserver/watches.rs"]
mod watches;
