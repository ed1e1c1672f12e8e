//! What one machine sees of copepod: `make up`, `down`, kills at bad moments,
//! lacking privileges. Every test has a machine of its own, made of namespaces
//! without an uplink, and ends with a look at what is left on it.

mod cluster;
mod down;
mod join;
mod machine;
mod privileges;
mod start;
