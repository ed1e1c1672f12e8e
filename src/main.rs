//! The one binary: parse arguments, build tasks, start, drain.

mod cgroups;
mod cli;
mod cluster;
mod commands;
mod control_plane;
mod credentials;
mod doctor;
mod files;
mod instance;
mod join;
mod kubeconfig;
mod node;
mod node_config;
mod open_files;
mod paths;
mod pidfile;
mod progress;
mod ready;
mod resident;
mod runtime;
mod sys;
mod tasks;
mod token;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, LogFormat};

/// Exit code for wrong arguments and configurations, as clap has it.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // Every pod's start waits for this path: nothing may come before it.
    if let Some(name) = std::env::args_os().next()
        && netproxy::cni::is_plugin(&name)
    {
        let variable = |name: &str| std::env::var(name).ok();
        return ExitCode::from(netproxy::cni::main(variable, std::io::stdin().lock(), std::io::stdout().lock()));
    }
    let cli = Cli::parse();
    log_to_stderr(&cli);
    // The only place that installs a provider, so it cannot be there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<node::UsageError>() => {
            eprintln!("copepod: {error:#}");
            ExitCode::from(EXIT_USAGE)
        }
        Err(error) => {
            eprintln!("copepod: {error:#}{}", hint(&error));
            ExitCode::FAILURE
        }
    }
}

/// What to do about an error that only other users have.
fn hint(error: &anyhow::Error) -> &'static str {
    let denied = |cause: &(dyn std::error::Error + 'static)| {
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        kind == Some(std::io::ErrorKind::PermissionDenied)
    };
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root && error.chain().any(denied) { "; run it as root (sudo copepod …)" } else { "" }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => commands::up::run(&args),
        Command::Server(args) => commands::server::run(&args),
        Command::Agent(args) => commands::agent::run(&args),
        Command::Down(args) => commands::down::run(&args),
        Command::Cluster(command) => commands::cluster::run(command),
        Command::Image(command) => commands::image::run(&command),
        Command::Token(command) => commands::token::run(&command),
        Command::Kubeconfig(args) => commands::kubeconfig::run(&args),
        Command::Doctor(_) => commands::doctor::run(),
        Command::NodeInit(args) if args.first => cluster::init::run(&args.spec),
        Command::NodeInit(args) => cluster::init::launch(&args.spec),
    }
}

fn log_to_stderr(cli: &Cli) {
    use tracing_subscriber::filter::EnvFilter;
    // What comes first may be overridden: a packet of any pod makes the DNS libraries warn.
    let quiet = "hickory_proto=error,hickory_net=error,hickory_resolver=error";
    let filter = EnvFilter::try_new(format!("{quiet},{}", cli.log)).unwrap_or_else(|error| {
        eprintln!("copepod: --log {}: {error}; logging at info", cli.log);
        EnvFilter::new("info")
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
    }
}
