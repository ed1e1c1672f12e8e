//! `copepod token …`: bootstrap tokens of a cluster.

use agent::bootstrap::Token;
use agent::config::kubelet_config::duration;
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};

use crate::cli::{TokenCommand, TokenCreateArgs, TokenWhere};
use crate::kubeconfig;
use crate::node::UsageError;
use crate::token::{self, TokenOptions};

/// Carries a command out.
///
/// # Errors
/// When there is no control plane to ask, or it refuses.
pub fn run(command: &TokenCommand) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            TokenCommand::Create(args) => create(args).await,
            TokenCommand::List(place) => list(place).await,
            TokenCommand::Delete(args) => delete(&client(&args.place).await?, &args.tokens).await,
        }
    })
}

async fn client(place: &TokenWhere) -> Result<Client> {
    let admin = place.kubeconfig.clone().unwrap_or_else(|| place.paths.paths().admin_kubeconfig());
    kubeconfig::require(&admin)?;
    kubeconfig::client(&admin).await
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), "kube-system")
}

async fn create(args: &TokenCreateArgs) -> Result<()> {
    let usage = |error: String| UsageError(error);
    let made: Token = match &args.token {
        Some(text) => text.parse().map_err(usage)?,
        None => Token::generate(),
    };
    let ttl = duration(&args.ttl).map_err(|error| usage(format!("--ttl: {error}; 90s, 24h and 1h30m are")))?;
    let options = TokenOptions {
        ttl: (!ttl.is_zero()).then_some(ttl),
        description: &args.description,
        usages: &args.usages,
        groups: &args.groups,
    };
    let secret = token::secret(&made, &options, Timestamp::now()).map_err(usage)?;
    let client = client(&args.place).await?;
    match secrets(&client).create(&PostParams::default(), &secret).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            bail!("a token with id {:?} already exists", made.id())
        }
        answer => answer.context("create the token")?,
    };
    if !args.print_join_command {
        println!("{}", made.bearer());
        return Ok(());
    }
    let maps: Api<ConfigMap> = Api::namespaced(client, "kube-public");
    let map = maps.get("cluster-info").await.context("read how to join")?;
    let info = map.data.and_then(|mut data| data.remove("kubeconfig")).unwrap_or_default();
    let command = token::join_command(&info, &made).map_err(anyhow::Error::msg);
    println!("{}", command.context("ConfigMap kube-public/cluster-info is no use")?);
    Ok(())
}

async fn list(place: &TokenWhere) -> Result<()> {
    let params = ListParams::default().fields(&format!("type={}", token::SECRET_TYPE));
    let found = secrets(&client(place).await?).list(&params).await.context("list the tokens")?;
    print!("{}", token::table(&found.items, Timestamp::now()));
    Ok(())
}

async fn delete(client: &Client, tokens: &[String]) -> Result<()> {
    for text in tokens {
        let id = text.split('.').next().unwrap_or_default();
        let is_id = id.len() == 6 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !is_id || text.contains('.') && text.parse::<Token>().is_err() {
            bail!(UsageError(format!("{text:?} is neither a token nor a token's id")));
        }
        match secrets(client).delete(&token::secret_name(id), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => bail!("there is no bootstrap token {id:?}"),
            answer => answer.with_context(|| format!("delete bootstrap token {id:?}"))?,
        };
        println!("bootstrap token {id:?} deleted");
    }
    Ok(())
}
