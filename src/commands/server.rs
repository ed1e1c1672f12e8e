//! `copepod server`: the control plane alone.

use anyhow::{Context, Result};

use super::{make_private_dir, run_until_signalled};
use crate::cli::ServerArgs;
use crate::control_plane::{self, ControlPlaneInputs};
use crate::pidfile;

/// Runs until SIGTERM.
///
/// # Errors
/// When a part cannot start or fails.
pub fn run(args: &ServerArgs) -> Result<()> {
    let paths = args.paths.paths();
    make_private_dir(&paths.data)?;
    make_private_dir(&paths.run)?;
    let _held = pidfile::hold(&paths.pid_file())?;
    run_until_signalled(async |tasks| {
        let address = match args.control_plane.advertise_address {
            Some(address) => address,
            None => {
                crate::node::default_address().context("no address to advertise; name one with --advertise-address")?
            }
        };
        let inputs = ControlPlaneInputs {
            paths: paths.clone(),
            net: args.net.clone(),
            args: args.control_plane.clone(),
            address,
        };
        control_plane::start(inputs, &tasks).await.map(drop)
    })
}
