//! The one binary: parse arguments, build tasks, start, drain.

mod address;
mod cgroups;
mod cli;
mod cluster;
mod cluster_net;
mod commands;
mod components;
mod control_plane;
mod credentials;
mod doctor;
mod errors;
mod files;
mod flags;
mod instance;
mod join;
mod kubeconfig;
mod log_file;
mod network_lock;
mod node;
mod node_config;
mod open_files;
mod paths;
mod pidfile;
mod ports;
mod progress;
mod ready;
mod resident;
mod runtime;
mod server_lease;
mod status;
mod sys;
mod tasks;
mod token;
mod unmarked;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches};

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
    let matches = Cli::command().get_matches();
    let flags = cli::typed_flags(&matches);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Err(error) = start_log(&cli) {
        eprintln!("copepod: {error:#}");
        return ExitCode::FAILURE;
    }
    // The only place that installs a provider, so it cannot be there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(cli.command, flags, cli.log_file.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<node::UsageError>() => {
            for problem in format!("{error:#}").lines() {
                eprintln!("copepod: {problem}");
            }
            ExitCode::from(EXIT_USAGE)
        }
        Err(error) => {
            eprintln!("copepod: {}{}", errors::one_line(&error), hint(&error));
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

fn run(command: Command, flags: Vec<String>, log_file: Option<&Path>) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => commands::up::run(&args, flags, log_file),
        Command::Server(args) => commands::server::run(&args, flags),
        Command::Agent(args) => commands::agent::run(&args, flags),
        Command::Down(args) => commands::down::run(&args),
        Command::Cluster(command) => commands::cluster::run(command),
        Command::Image(command) => commands::image::run(&command),
        Command::Token(command) => commands::token::run(&command),
        Command::Kubeconfig(args) => commands::kubeconfig::run(&args),
        Command::Doctor => commands::doctor::run(),
        Command::NodeInit(args) if args.first => cluster::init::run(&args.spec),
        Command::NodeInit(args) => cluster::init::launch(&args.spec),
    }
}

/// Starts the log, on standard error or in a file.
fn start_log(cli: &Cli) -> anyhow::Result<()> {
    use tracing_subscriber::filter::EnvFilter;
    use tracing_subscriber::fmt::writer::BoxMakeWriter;
    // What comes first may be overridden. A packet of any pod makes the DNS libraries warn; the client logs at every
    // attempt, without saying of what, and who uses it tells what failed.
    let quiet = "hickory_proto=error,hickory_net=error,hickory_resolver=error,kube_client=off";
    let filter = EnvFilter::try_new(format!("{quiet},{}", cli.log)).unwrap_or_else(|error| {
        eprintln!("copepod: --log {}: {error}; logging at info", cli.log);
        EnvFilter::new(format!("{quiet},info"))
    });
    // Whoever starts another process in the background speaks to the terminal; the log is that one's.
    let detaches = matches!(&cli.command, Command::Up(args) if args.detach);
    let log_file = cli.log_file.as_ref().filter(|_| !detaches);
    let writer = match log_file {
        None => BoxMakeWriter::new(std::io::stderr),
        Some(path) => {
            let file = log_file::LogFile::open(path);
            BoxMakeWriter::new(file.with_context(|| format!("--log-file={}", path.display()))?)
        }
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let terminal = log_file.is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    match cli.log_format {
        LogFormat::Text => builder.with_ansi(terminal).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
