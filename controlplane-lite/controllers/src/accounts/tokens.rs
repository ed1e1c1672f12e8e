//! Fills the Secrets that ask for a token of a service account, and deletes them with it: upstream's
//! serviceaccount-token-controller, which acts with the manager's own rights, too.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::token_plan::{ACCOUNT_UID, account_name, filled, is_meant, without_reference};
use crate::Context;
use client::objects::{annotation, name, uid};
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{ObjectKey, api_in, segment};

/// Whose token is asked for, and the Secret that is to hold it.
#[derive(Debug, Clone, Copy)]
pub struct AccountToken<'a> {
    /// Namespace of both.
    pub namespace: &'a str,
    /// The account.
    pub account: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// The Secret.
    pub secret: &'a str,
}

type Sign = dyn Fn(AccountToken<'_>) -> Result<String, String> + Send + Sync;

/// Signs tokens of accounts; says why when it cannot.
#[derive(Clone)]
pub struct TokenSigner(Arc<Sign>);

impl TokenSigner {
    /// One that `sign`s.
    pub fn new(sign: impl Fn(AccountToken<'_>) -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(sign))
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSigner").finish_non_exhaustive()
    }
}

/// A Secret, and the account that it asks for or did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    secret: ObjectKey,
    account: String,
    /// The account's uid, once the Secret says it: another account of the name is not meant.
    uid: String,
}

impl Key {
    fn of(secret: &Secret) -> Option<Self> {
        let account = account_name(secret)?.to_owned();
        let uid = annotation(&secret.metadata, ACCOUNT_UID).unwrap_or_default().to_owned();
        Some(Self { secret: ObjectKey::of(&secret.metadata), account, uid })
    }
}

pub(crate) fn start(ctx: &Context) {
    let Some(signer) = ctx.config.token_signer.clone() else { return };
    let ctx = ctx.as_manager();
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.account_tokens.subscribe(move |change| {
        for secret in [change.old, change.new].into_iter().flatten() {
            if let Some(key) = Key::of(secret) {
                sink.add(key);
            }
        }
    });
    let (sink, secrets) = (queue.clone(), ctx.informers.account_tokens.clone());
    ctx.informers.service_accounts.subscribe(move |change| {
        let account = &change.latest().metadata;
        let asks = |secret: &Secret| account_name(secret) == Some(name(account));
        for secret in secrets.list_in(account.namespace.as_deref().unwrap_or_default(), asks) {
            if let Some(key) = Key::of(&secret) {
                sink.add(key);
            }
        }
    });
    let worker = ctx.clone();
    spawn_workers("serviceaccount-token", &queue, 2, &ctx.runner, move |key| {
        let (ctx, signer) = (worker.clone(), signer.clone());
        async move { sync(&ctx, &signer, &key).await }
    });
}

async fn sync(ctx: &Context, signer: &TokenSigner, key: &Key) -> Result<Next, SyncError> {
    match ctx.informers.account_tokens.get(&key.secret) {
        Some(secret) if account_name(&secret) == Some(&key.account) => match account(ctx, &secret, key).await? {
            Some(account) => fill(ctx, signer, &secret, &account).await?,
            None => delete(ctx, key, &secret).await?,
        },
        Some(_) => {}
        None => drop_reference(ctx, key).await?,
    }
    Ok(Next::Wait)
}

/// The account that the Secret asks for; before it counts as gone the server itself is asked.
async fn account(ctx: &Context, secret: &Secret, key: &Key) -> Result<Option<Arc<ServiceAccount>>, SyncError> {
    let of_account = ObjectKey::new(&*key.secret.namespace, &*key.account);
    let cached = ctx.informers.service_accounts.get(&of_account);
    if let Some(account) = cached.filter(|account| is_meant(secret, account)) {
        return Ok(Some(account));
    }
    let api: Api<ServiceAccount> = api_in(&ctx.client, &of_account);
    let found = api.get_opt(&segment(&key.account)).await.map_err(SyncError::api("get ServiceAccount", &of_account))?;
    Ok(found.filter(|account| is_meant(secret, account)).map(Arc::new))
}

async fn fill(ctx: &Context, signer: &TokenSigner, secret: &Secret, account: &ServiceAccount) -> Result<(), SyncError> {
    let key = ObjectKey::of(&secret.metadata);
    let of = AccountToken {
        namespace: &key.namespace,
        account: name(&account.metadata),
        uid: uid(&account.metadata),
        secret: &key.name,
    };
    let invalid = |why: String| SyncError::Invalid(format!("token of Secret {key}: {why}"));
    let made = filled(secret, account, &ctx.config.root_ca_pem, || (signer.0)(of)).map_err(invalid)?;
    let Some(made) = made else { return Ok(()) };
    let api: Api<Secret> = api_in(&ctx.client, &key);
    match api.replace(&key.name, &PostParams::default(), &made).await {
        Ok(secret) => ctx.informers.account_tokens.written(secret),
        // Changed or gone meanwhile: the watch brings the rest.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => return Err(SyncError::api("fill Secret", key)(error)),
    }
    Ok(())
}

async fn delete(ctx: &Context, key: &Key, secret: &Secret) -> Result<(), SyncError> {
    let preconditions = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams::default().preconditions(preconditions);
    let api: Api<Secret> = api_in(&ctx.client, &key.secret);
    match api.delete(&key.secret.name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(SyncError::api("delete Secret", &key.secret)(error)),
    }
}

/// A Secret that is gone is named by no account.
async fn drop_reference(ctx: &Context, key: &Key) -> Result<(), SyncError> {
    let of_account = ObjectKey::new(&*key.secret.namespace, &*key.account);
    let cached = ctx.informers.service_accounts.get(&of_account);
    let cached = cached.filter(|account| key.uid.is_empty() || uid(&account.metadata) == key.uid);
    let Some(changed) = cached.and_then(|account| without_reference(&account, &key.secret.name)) else {
        return Ok(());
    };
    let api: Api<ServiceAccount> = api_in(&ctx.client, &of_account);
    match api.replace(&key.account, &PostParams::default(), &changed).await {
        Ok(account) => ctx.informers.service_accounts.written(account),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(SyncError::api("update ServiceAccount", of_account)(error)),
    }
    Ok(())
}
