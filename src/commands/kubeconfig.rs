//! `copepod kubeconfig`: credentials on standard output.

use anyhow::{Context, Result};

use crate::cli::KubeconfigArgs;
use crate::{credentials, flags, kubeconfig};

/// Prints the administrator's kubeconfig, or one made for `--user`.
///
/// # Errors
/// When this machine has no control plane to take credentials from.
pub fn run(args: &KubeconfigArgs) -> Result<()> {
    flags::kubeconfig(args)?;
    let paths = args.paths.paths();
    let admin = paths.admin_kubeconfig();
    let config = match (&args.user, &args.server) {
        (Some(user), Some(server)) => credentials::user_kubeconfig(&paths.pki(), user, args.group.as_deref(), server)?,
        _ => {
            kubeconfig::require(&admin)?;
            kubeconfig::read(&admin)?
        }
    };
    print!("{}", serde_norway::to_string(&config).context("print the kubeconfig")?);
    Ok(())
}
