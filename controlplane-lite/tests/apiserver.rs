//! The API server as clients meet it: over the in-process transport, over TLS with raw requests, and with kubectl.

#[path = "apiserver/crud.rs"]
mod crud;
#[path = "apiserver/kubectl.rs"]
mod kubectl;
#[path = "apiserver/support.rs"]
mod support;
