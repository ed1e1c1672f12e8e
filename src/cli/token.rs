//! `copepod token` and its flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DataDir;

/// `copepod token …`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it.
    Create(TokenCreateArgs),
    /// Show all tokens.
    List(TokenWhere),
    /// Delete tokens, named by their id or as a whole.
    Delete(TokenDeleteArgs),
}

/// Whose tokens.
#[derive(Args, Clone, Debug)]
pub struct TokenWhere {
    #[command(flatten)]
    pub paths: DataDir,
    /// The administrator's credentials; this machine's control plane's by default.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
}

/// `copepod token create`.
#[derive(Args, Clone, Debug)]
pub struct TokenCreateArgs {
    /// The token; a random one by default.
    pub token: Option<String>,
    /// How long it is good, such as `1h30m`; 0 is for ever.
    #[arg(long, default_value = "24h")]
    pub ttl: String,
    /// What it is for, in words.
    #[arg(long, default_value = "")]
    pub description: String,
    /// What it may be used for.
    #[arg(long, value_delimiter = ',', default_values = ["signing", "authentication"])]
    pub usages: Vec<String>,
    /// Groups that who uses it is in.
    #[arg(long, value_delimiter = ',', default_values = ["system:bootstrappers:kubeadm:default-node-token"])]
    pub groups: Vec<String>,
    /// Print the whole command that joins a node, instead of the token alone.
    #[arg(long)]
    pub print_join_command: bool,
    #[command(flatten)]
    pub place: TokenWhere,
}

/// `copepod token delete`.
#[derive(Args, Clone, Debug)]
pub struct TokenDeleteArgs {
    /// Ids or whole tokens.
    #[arg(required = true)]
    pub tokens: Vec<String>,
    #[command(flatten)]
    pub place: TokenWhere,
}
