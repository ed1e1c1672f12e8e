//! `copepod server`: the control plane alone.

use anyhow::Result;

use super::run_until_signalled;
use crate::cli::ServerArgs;
use crate::control_plane::{self, ControlPlaneInputs};
use crate::paths::Paths;
use crate::status::Reporter;
use crate::{address, flags, instance};

/// Runs until SIGTERM.
///
/// # Errors
/// When a part cannot start or fails.
pub fn run(args: &ServerArgs, typed: Vec<String>) -> Result<()> {
    flags::server(args)?;
    let paths = args.paths.paths();
    let _held = instance::start(&paths)?;
    let reporter = Reporter::new(&paths, typed);
    let result = serve(args, &paths, &reporter);
    reporter.ended(&result);
    result
}

fn serve(args: &ServerArgs, paths: &Paths, reporter: &Reporter) -> Result<()> {
    run_until_signalled(async |tasks| {
        let address = match args.control_plane.advertise_address {
            Some(address) => address,
            None => address::find("--advertise-address", reporter).await?,
        };
        let inputs = ControlPlaneInputs {
            paths: paths.clone(),
            net: args.net.clone(),
            args: args.control_plane.clone(),
            address,
        };
        control_plane::start(inputs, &tasks).await?;
        reporter.ready();
        Ok(())
    })
}
