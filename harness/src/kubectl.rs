//! kubectl with bounds and a home of its own: it finds nobody's settings, and leaves none.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::program::{self, Background, Ended};

/// How to reach one API server.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: OsString,
    home: PathBuf,
    config: PathBuf,
    flags: Vec<OsString>,
}

impl Kubectl {
    /// By a kubeconfig. Its program is the one on PATH, or the one that `KUBECTL` names, to try other releases.
    #[must_use]
    pub fn with_config(home: &Path, config: &Path) -> Self {
        let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
        Self { program, home: home.to_owned(), config: config.to_owned(), flags: Vec::new() }
    }

    /// By a URL alone.
    #[must_use]
    pub fn with_server(home: &Path, url: &str) -> Self {
        Self::with_config(home, Path::new("/dev/null")).flag(&format!("--server={url}"))
    }

    /// The same of another program.
    #[must_use]
    pub fn program(mut self, program: impl AsRef<OsStr>) -> Self {
        self.program = program.as_ref().to_owned();
        self
    }

    /// The same with a flag before all arguments.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// A command that is not run yet.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("HOME", &self.home).env("KUBECONFIG", &self.config).current_dir(&self.home);
        command.args(&self.flags).args(arguments);
        command
    }

    /// Runs it, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started, or hangs.
    pub fn output(&self, arguments: &[&str], input: Option<&str>) -> Result<Ended> {
        program::run(&mut self.command(arguments), input)
    }

    /// [`Self::output`] for a task that shares its thread with the server.
    ///
    /// # Errors
    /// As its.
    pub async fn output_beside(&self, arguments: &[&str], input: Option<&str>) -> Result<Ended> {
        program::run_beside(self.command(arguments), input).await
    }

    /// The same: whether it succeeded, and everything that it printed.
    ///
    /// # Errors
    /// As its.
    pub async fn told(&self, arguments: &[&str], input: &str) -> Result<(bool, String)> {
        let Ended { status, stdout, stderr } = self.output_beside(arguments, Some(input)).await?;
        Ok((status.success(), stdout + &stderr))
    }

    /// Runs it; what it printed.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        self.output(arguments, input)?.success(&format!("kubectl {}", arguments.join(" ")))
    }

    /// Starts one that goes on by itself.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, arguments: &[&str]) -> Result<Background> {
        Background::start(&mut self.command(arguments))
    }
}
