//! What scenarios stand on: the cluster, kubectl, waiting, and connections
//! made from inside its namespaces.

pub mod cluster;
pub mod net;
pub mod wait;
