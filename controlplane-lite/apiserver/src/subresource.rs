//! What hangs below an object: subresources that carry the object itself (status, finalize, approval,
//! ephemeralcontainers, resize) differ from a plain write only in the kind's strategy; the others have a file each.

pub mod binding;
mod connect_options;
pub mod eviction;
pub mod node_connect;
pub mod proxy;
pub mod scale;
pub mod token;
