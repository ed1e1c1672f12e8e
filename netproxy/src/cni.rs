//! The CNI plugin: veth pairs, the bridge, addresses and host ports of pods.
//! Not Services: those are in [`crate::services`].
//!
//! The binary is its own plugin: called under one of [`PLUGIN_NAMES`] it runs
//! [`main`] and nothing else. This is a short-lived process that every pod's
//! start waits for, so it reads its standard input, asks for what it needs and ends;
//! a runtime of one thread runs while links are made, and nothing else.
//!
//! `protocol` reads requests and writes results, `ipam` hands out addresses,
//! `hostports` leads ports of the node into containers, [`crate::links`] makes links,
//! `attach` does what a request asks. The bridge is not made here: the node keeps it.
//!
//! Host ports are as upstream's `portmap` plugin makes them: on every address
//! of the node but cluster DNS's, 127.0.0.1 included, or on the one that `hostIP` names; clients'
//! addresses are kept, except for a pod that reaches itself and for the node at
//! its loopback address. For the latter `route_localnet` is turned on for the
//! bridge, and a rule keeps others from the node's loopback addresses. A
//! `hostIP` of IPv6 is ignored. Unlike upstream, where the last container to ask
//! for a port gets it, a port that is taken is an error, by another container or by the node itself.

mod attach;
mod conflist;
pub mod hostports;
pub mod ipam;
mod keep;
mod modprobe;
pub mod protocol;
pub(crate) mod sysctl;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;

pub use attach::{cleanup, restore_host_ports};
pub use conflist::{CniConfig, install_plugin, write_conflist};
pub use keep::{CHECK_PERIOD, keep_host_ports};
use protocol::{Command, Environment, PluginError};
pub use sysctl::{prepare_node, restore_node};

/// Names under which the binary is a CNI plugin. containerd asks for one called
/// `loopback` beside the network's own.
pub const PLUGIN_NAMES: [&str; 2] = ["copepod-cni", "loopback"];

/// As much as a network configuration can reasonably have, in bytes.
const MAX_INPUT: u64 = 1 << 20;

/// Whether a process started as `argv0` is to be the plugin.
pub fn is_plugin(argv0: &OsStr) -> bool {
    let name = Path::new(argv0).file_name();
    PLUGIN_NAMES.iter().any(|plugin| name == Some(OsStr::new(plugin)))
}

/// Runs one request. Returns the process's exit code: 0, or 1 with an error
/// object on `output` as the specification wants it.
pub fn main(variable: impl Fn(&str) -> Option<String>, input: impl Read, mut output: impl Write) -> u8 {
    let mut text = Vec::new();
    let answer = input
        .take(MAX_INPUT)
        .read_to_end(&mut text)
        .map_err(|error| PluginError::io("read the network configuration", &error))
        .and_then(|_| serve(&Environment::read(variable)?, &text));
    let (code, body) = match answer {
        Ok(body) => (0, body),
        Err(error) => (1, error.to_json(protocol::version_of(&text))),
    };
    // Nobody is left to tell when the caller does not read.
    let _ = output.write_all(body.as_bytes());
    code
}

fn serve(environment: &Environment, text: &[u8]) -> Result<String, PluginError> {
    if environment.command == Command::Version {
        return Ok(protocol::versions());
    }
    let config = protocol::parse_config(text)?;
    if config.kind == "loopback" {
        return attach::loopback(environment, &config);
    }
    match environment.command {
        Command::Add => attach::add(environment, &config),
        Command::Del => attach::delete(environment, &config),
        Command::Check => attach::check(environment, &config),
        Command::Gc => attach::collect(&config),
        Command::Status => attach::status(&config),
        Command::Version => Ok(protocol::versions()),
    }
}
