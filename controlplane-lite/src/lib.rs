//! Storage, apiserver, scheduler and controllers of a small Kubernetes control
//! plane. Knows nothing of nodes' insides: it meets them over the API.

pub mod apiserver;
pub mod auth;
pub mod controllers;
pub mod scheduler;
pub mod scheme;
pub mod storage;
