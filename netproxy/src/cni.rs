//! The CNI plugin: veth pairs, the bridge, address assignment and host ports of pods.
//! Not Services: those are in [`crate::services`].
