//! A small Kubernetes control plane, in one crate per part: storage, the scheme of
//! API types, certificates, authentication and authorization, the API server, what
//! clients of it share, the scheduler and the controllers. This crate only puts
//! them under one name. None of them knows the inside of a node: they meet nodes
//! over the API.

pub use {apiserver, auth, client, controllers, pki, scheduler, scheme, storage};
