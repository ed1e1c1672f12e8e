//! The API server as clients meet it: over the in-process transport, over TLS with raw requests, and with kubectl.

#![allow(clippy::unwrap_used)]

mod access;
mod authorization;
mod bad_input;
mod certificates;
mod crud;
mod documents;
mod fidelity;
mod kubectl;
mod lifecycle;
mod semantics;
mod tunnels;
mod watches;
mod writes;
