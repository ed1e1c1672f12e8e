//! The APIServices of what this server serves itself, made by it (k8s.io/kube-aggregator/pkg/controllers/autoregister,
//! pkg/controlplane/controller/crdregistration).

use std::collections::HashMap;

use futures::future::try_join_all;
use serde_json::Value;

use crate::bootstrap;
use crate::registry::{Change, RegistryError, Resource};
use crate::server::Server;
use scheme::access::{at, list_at, str_at};
use scheme::apiregistration::{AUTOMANAGED, GROUP, ON_START, Registration, local, registration};
use storage::watch_cache::Filter;

/// When they are brought in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// As the server starts: all of them.
    Start,
    /// Later: only those of kinds that come and go. The others are anybody's from now on.
    Later,
}

/// Makes, corrects and removes the APIServices of what is served here.
///
/// # Errors
/// When the store fails.
pub(crate) async fn register(server: &Server, moment: Moment) -> Result<(), RegistryError> {
    let Some(resource) = server.registry.get(GROUP, "apiservices") else { return Ok(()) };
    let served = server.registry.served();
    let groups = served.scheme.groups();
    let versions = groups.iter().flat_map(|group| group.versions.iter().map(|version| (group.name, *version)));
    let desired: HashMap<String, Value> =
        versions.filter_map(|(group, version)| local(group, version)).map(|of| (name(&of).to_owned(), of)).collect();
    let mut stored = HashMap::new();
    resource.cache().for_each(&Filter::all(), |object| {
        let object = object.value();
        stored.insert(name(&object).to_owned(), object);
    });
    let mut names: Vec<&String> = desired.keys().chain(stored.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let is_once = |name: &str| desired.get(name).or(stored.get(name)).is_some_and(|of| label(of) == ON_START);
    let of_now = names.into_iter().filter(|name| moment == Moment::Start || !is_once(name));
    try_join_all(of_now.map(|name| one(server, &resource, stored.get(name), desired.get(name)))).await.map(drop)
}

fn name(service: &Value) -> &str {
    str_at(service, &["metadata", "name"])
}

fn label(service: &Value) -> &str {
    at(service, &["metadata", "labels"]).get(AUTOMANAGED).and_then(Value::as_str).unwrap_or("")
}

async fn one(
    server: &Server,
    resource: &Resource,
    stored: Option<&Value>,
    desired: Option<&Value>,
) -> Result<(), RegistryError> {
    let step = |stored: &Value| match registration(Some(stored), desired) {
        Registration::Keep | Registration::Create(_) => Change::Keep,
        Registration::Update(next) => Change::Write(next),
        Registration::Remove => Change::Remove(stored.clone()),
    };
    match registration(stored, desired) {
        Registration::Keep => Ok(()),
        Registration::Create(mut wanted) => {
            let now = server.now_text();
            wanted["status"] = serde_json::json!({"conditions": [scheme::apiregistration::local_condition(&now)]});
            bootstrap::ensure(server, GROUP, "apiservices", wanted).await
        }
        // A definition whose kinds are not published yet keeps what was made for it.
        Registration::Remove if stored.is_some_and(|stored| is_defined(server, stored)) => Ok(()),
        Registration::Update(_) | Registration::Remove => {
            let name = stored.map_or("", name);
            let written = resource.change::<_, RegistryError>("", name, false, |old| Ok(step(old))).await;
            written.map(drop).or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
        }
    }
}

/// Whether a CustomResourceDefinition defines the group version of an APIService.
fn is_defined(server: &Server, service: &Value) -> bool {
    let Some(definitions) = server.registry.get("apiextensions.k8s.io", "customresourcedefinitions") else {
        return false;
    };
    let (group, version) = (str_at(service, &["spec", "group"]), str_at(service, &["spec", "version"]));
    let mut found = false;
    definitions.cache().for_each(&Filter::all(), |definition| {
        let spec = &definition.value()["spec"];
        let versions = list_at(spec, &["versions"]);
        found |= spec["group"] == group && versions.iter().any(|v| v["name"] == version && v["served"] == true);
    });
    found
}
