//! Defaulting, one file per family of kinds. Pure and idempotent: upstream's
//! `SetDefaults_*` plus the conversions that fill alias fields.

pub mod admission;
pub mod apiregistration;
pub mod cluster;
pub mod extensions;
pub mod flowcontrol;
pub mod network;
pub mod pod;
pub mod resource;
pub mod workloads;
