//! What scenarios stand on: the cluster that they share.

pub mod cluster;
