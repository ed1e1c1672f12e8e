//! `copepod image …`: images into the node's runtime.

use anyhow::{Context, Result};
use cri::CriClient;

use crate::cli::ImageCommand;
use crate::runtime;

/// Carries a command out.
///
/// # Errors
/// When the runtime does not answer or the archive is no image.
pub fn run(command: &ImageCommand) -> Result<()> {
    let ImageCommand::Load(args) = command;
    let socket = match &args.container_runtime_endpoint {
        Some(endpoint) => runtime::socket_of(endpoint)?,
        None => runtime::options(&args.paths.paths()).socket(),
    };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio.block_on(async {
        let client = CriClient::connect(socket);
        let names = cri::images::import_tar(&client, &args.file, None)
            .await
            .with_context(|| format!("load {}", args.file.display()))?;
        for name in names {
            println!("{name}");
        }
        Ok(())
    })
}
