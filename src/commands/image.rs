//! `copepod image …`: images into the node's runtime.

use anyhow::{Context, Result};
use cri::CriClient;

use crate::cli::ImageCommand;
use crate::progress::step;
use crate::runtime;

/// Carries a command out.
///
/// # Errors
/// When the runtime does not answer or the archive is no image.
pub fn run(command: &ImageCommand) -> Result<()> {
    let ImageCommand::Load(args) = command;
    let socket = match &args.container_runtime_endpoint {
        Some(endpoint) => runtime::socket_of(endpoint)?,
        None => runtime::socket(&args.paths.paths()),
    };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let loading = step(format!("load {}", args.file.display()));
    let names = tokio.block_on(async {
        let client = CriClient::connect(socket);
        cri::images::import_tar(&client, &args.file, None).await
    });
    let names = names.with_context(|| format!("load {}", args.file.display()))?;
    loading.done();
    for name in names {
        println!("{name}");
    }
    Ok(())
}
