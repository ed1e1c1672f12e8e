//! The one binary: parse arguments, build tasks, start, drain.
mod cli;
mod cluster;
mod credentials;
mod doctor;
mod files;
mod kubeconfig;
mod paths;
mod progress;
mod ready;
mod sys;
fn main() {}
