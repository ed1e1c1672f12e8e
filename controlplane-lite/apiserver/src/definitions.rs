//! CustomResourceDefinitions: their kinds are served as they come, change and go, and each definition is told what became
//! of it (ADR 33). Owns which kinds are published; what they are made of is `kinds` and `rules`, what is said `status`,
//! and how one goes `cleanup`. A definition is told that it is established after its kinds are served, never before.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::outbound::Outbound;
use super::registry::{Change, PublishError, RegistryError, Resource, Watches};
use super::server::Server;
use scheme::Text;
use scheme::access::{at, str_at};
use scheme::crd::names::{self, Taken};
use scheme::crd::{GROUP, SchemaCheck};
use storage::Object;
use storage::watch_cache::{Filter, WatchItem, WatchRequest, WatchStart};

pub mod cleanup;
mod conversion;
mod kinds;
pub(crate) mod review;
mod rules;
mod status;

pub use conversion::Converter;
use kinds::Source;

/// The resource.
pub const PLURAL: &str = "customresourcedefinitions";
/// Pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Says whether a schema is sound.
pub fn schema_check() -> Arc<SchemaCheck> {
    Arc::new(|schema, path, errors| structural::validate_schema(schema.schema, path, errors))
}

/// What is known of the definitions there are.
#[derive(Debug, Default)]
pub struct Definitions {
    known: Mutex<HashMap<String, Known>>,
    marks: RandomState,
    /// What conversion webhooks share.
    outbound: Arc<Outbound>,
}

/// One definition.
#[derive(Debug)]
struct Known {
    group: String,
    plural: String,
    /// `status.acceptedNames`.
    accepted: Value,
    /// Whether it has all names that it asks for.
    settled: bool,
    published: Option<Published>,
}

/// What is served of it.
#[derive(Debug)]
struct Published {
    /// Of what decides whether watches go on.
    form: u64,
    terminating: bool,
    source: Arc<Source>,
}

/// Why a definition could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It cannot be read or written.
    #[error("read or write the CustomResourceDefinition {name}")]
    Registry {
        /// Its name.
        name: String,
        #[source]
        source: RegistryError,
    },
    /// Its kinds cannot be served.
    #[error("serve what the CustomResourceDefinition {name} defines")]
    Publish {
        /// Its name.
        name: String,
        #[source]
        source: PublishError,
    },
}

impl Definitions {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the uid, the specification and the names of a definition come to.
    fn form(&self, crd: &Value) -> u64 {
        let names = at(crd, &["status", "acceptedNames"]);
        self.marks.hash_one((str_at(crd, &["metadata", "uid"]), crd["spec"].to_string(), names.to_string()))
    }

    fn is_published(&self, name: &str, form: u64) -> bool {
        let known = self.known();
        known.get(name).and_then(|known| known.published.as_ref()).is_some_and(|published| published.form == form)
    }

    /// The names that others of its group have been given.
    fn taken(&self, group: &str, name: &str) -> Taken {
        let known = self.known();
        let others = known.iter().filter(|(other, known)| known.group == group && *other != name);
        let others: Vec<Value> = others
            .map(|(_, known)| json!({"spec": {"group": known.group}, "status": {"acceptedNames": known.accepted}}))
            .collect();
        Taken::of(group, &others)
    }

    /// Notes what a definition says of itself; whether its names changed.
    fn note(&self, name: &str, crd: &Value) -> bool {
        let mut known = self.known();
        let accepted = at(crd, &["status", "acceptedNames"]).clone();
        let settled = names::settled(crd);
        match known.get_mut(name) {
            Some(known) => {
                known.settled = settled;
                std::mem::replace(&mut known.accepted, accepted) != known.accepted
            }
            None => {
                let text = |path: &[&str]| str_at(crd, path).to_owned();
                let (group, plural) = (text(&["spec", "group"]), text(&["spec", "names", "plural"]));
                known.insert(name.to_owned(), Known { group, plural, accepted, settled, published: None });
                true
            }
        }
    }

    /// Those of a group that still wait for a name.
    fn waiting(&self, group: &str, but: &str) -> Vec<String> {
        let known = self.known();
        let waits = |(name, known): &(&String, &Known)| known.group == group && !known.settled && *name != but;
        known.iter().filter(waits).map(|(name, _)| name.clone()).collect()
    }
}

/// Serves the kinds of all definitions that there are. One that cannot be served is told of in the log, and does not keep
/// others from it.
pub async fn load(server: &Server) {
    let Some(resource) = server.registry.get(GROUP, PLURAL) else { return };
    let mut objects = Vec::new();
    resource.cache().for_each(&Filter::all(), |object| objects.push(object.clone()));
    for object in objects {
        let crd = object.value();
        server.definitions.note(object.name(), &crd);
        if status::is_served(&crd)
            && let Err(error) = publish(server, &object, &crd).await
        {
            warn!(error = &error as &dyn Error, "a definition's kinds are not served");
        }
    }
}

/// Follows the definitions until the server ends.
pub async fn keep(server: Arc<Server>) {
    let Some(resource) = server.registry.get(GROUP, PLURAL) else { return };
    while !server.stopping.is_cancelled() {
        follow(&server, &resource).await;
        // Cancel-safe: the pause is given up with the server.
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = server.stopping.cancelled() => return,
        }
    }
}

/// Follows them until the watch ends.
async fn follow(server: &Server, resource: &Resource) {
    let Ok(mut watch) = resource.cache().watch(WatchRequest::new(Filter::all(), WatchStart::State)) else { return };
    let names: Vec<String> = server.definitions.known().keys().cloned().collect();
    // Some may have gone while nobody followed.
    let mut waiting: BTreeSet<String> = names.into_iter().collect();
    loop {
        let mut failed = BTreeSet::new();
        while let Some(name) = waiting.pop_first() {
            match sync(server, resource, &name).await {
                Ok(others) => waiting.extend(others),
                Err(error) => {
                    warn!(error = &error as &dyn Error, "cannot look after a definition");
                    failed.insert(name);
                }
            }
        }
        let pause =
            if failed.is_empty() { futures::future::pending().boxed() } else { tokio::time::sleep(RETRY).boxed() };
        // Each arm is cancel-safe: an event is taken whole or not at all.
        let item = tokio::select! {
            item = watch.next() => item,
            () = pause => { waiting = failed; continue }
            () = server.stopping.cancelled() => return,
        };
        waiting = failed;
        match item {
            Some(Ok(WatchItem::Event { object, .. })) => {
                waiting.insert(object.name().to_owned());
            }
            Some(Ok(WatchItem::Bookmark { .. })) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// Brings what is served and said of one definition in line with what it is now. Tells who else is to be looked at.
async fn sync(server: &Server, resource: &Resource, name: &str) -> Result<Vec<String>, DefinitionError> {
    let definitions = &server.definitions;
    let Some(object) = resource.cache().get("", name) else { return Ok(forget(server, name).await) };
    let before = object.value();
    let (mut crd, now) = (before.clone(), server.now_text());
    let group = str_at(&crd, &["spec", "group"]).to_owned();
    definitions.note(name, &crd);
    let taken = definitions.taken(&group, name);
    let problem = if definitions.is_published(name, definitions.form(&crd)) {
        None
    } else {
        kinds::kinds(&crd, &Arc::new(Source::new(object.clone()))).err()
    };
    let mut changed = status::decide(&mut crd, &taken, problem.as_deref(), &now);
    if status::is_served(&crd) && problem.is_none() {
        match publish(server, &object, &crd).await {
            Ok(()) => changed |= status::establish(&mut crd, &now),
            Err(error @ DefinitionError::Publish { source: PublishError::Load { .. }, .. }) => return Err(error),
            // Built-in kinds have its place, which stays so.
            Err(error) => warn!(error = &error as &dyn Error, "a definition's kinds are not served"),
        }
    }
    if changed {
        write(resource, name, &before, crd.clone()).await?;
    }
    let renamed = definitions.note(name, &crd);
    server.cleanup.notify_one();
    Ok(if renamed { definitions.waiting(&group, name) } else { Vec::new() })
}

/// Stores what a definition is told. Where somebody else wrote meanwhile, that is an event, which begins all this again.
async fn write(resource: &Resource, name: &str, before: &Value, after: Value) -> Result<(), DefinitionError> {
    let version = |crd: &Value| str_at(crd, &["metadata", "resourceVersion"]).to_owned();
    let mut after = Some(after);
    let change = |now: &Value| {
        let ours = version(now) == version(before);
        Ok(after.take_if(|_| ours).map_or(Change::Keep, Change::Write))
    };
    match resource.change::<_, RegistryError>("", name, false, change).await {
        Err(error) if !error.is_not_found() => Err(DefinitionError::Registry { name: name.to_owned(), source: error }),
        _ => Ok(()),
    }
}

/// Serves what a definition defines, unless that is what is served already.
async fn publish(server: &Server, object: &Arc<Object>, crd: &Value) -> Result<(), DefinitionError> {
    let name = object.name();
    let form = server.definitions.form(crd);
    let terminating = scheme::crd::is_terminating(crd);
    let mut watches = Watches::End;
    if let Some(published) = server.definitions.known().get(name).and_then(|known| known.published.as_ref())
        && published.form == form
    {
        published.source.renew(object.clone());
        if published.terminating == terminating {
            return Ok(());
        }
        watches = Watches::Stay;
    }
    let source = Arc::new(Source::new(object.clone()));
    let kinds = match kinds::kinds(crd, &source) {
        Ok(kinds) => kinds,
        Err(problem) => {
            warn!(name, problem, "a definition's schema cannot be read");
            return Ok(());
        }
    };
    let failed = |source| DefinitionError::Publish { name: name.to_owned(), source };
    let converter = Converter::of(crd, &server.definitions.outbound);
    server.registry.replace(kinds, watches, converter).await.map_err(failed)?;
    if let Some(known) = server.definitions.known().get_mut(name) {
        known.published = Some(Published { form, terminating, source });
    }
    info!(name, "custom resources are served");
    Ok(())
}

/// Serves nothing of a definition that is gone. Tells who may have its names now.
async fn forget(server: &Server, name: &str) -> Vec<String> {
    let Some(known) = server.definitions.known().remove(name) else { return Vec::new() };
    if known.published.is_some() {
        server.registry.withdraw(&known.group, &known.plural).await;
        info!(name, "custom resources are served no longer");
    }
    server.definitions.waiting(&known.group, name)
}

/// The place of what a definition defines.
fn place(crd: &Value) -> (Text, Text) {
    let text = |path: &[&str]| Text::Owned(str_at(crd, path).to_owned());
    (text(&["spec", "group"]), text(&["spec", "names", "plural"]))
}
