//! A container's environment from literals, references and Services.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret};

use super::expansion::expand;
use super::fields::{self, FieldContext, FieldError};

/// Objects the environment refers to. `None` says the object does not exist.
#[derive(Clone, Debug, Default)]
pub struct EnvObjects {
    pub config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    pub secrets: BTreeMap<String, Option<Arc<Secret>>>,
}

/// Names of ConfigMaps and Secrets a container's environment refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvRefs {
    pub config_maps: Vec<String>,
    pub secrets: Vec<String>,
}

/// Why an environment cannot be made; the text of `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey { kind: &'static str, namespace: String, name: String, key: String },
    #[error("{kind} \"{name}\" key \"{key}\" is not valid UTF-8 text")]
    NotText { kind: &'static str, name: String, key: String },
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("environment variable {0} has an unknown source")]
    UnknownSource(String),
}

const CONFIG_MAP: &str = "configmap";
const SECRET: &str = "secret";

/// What has to be fetched before [`environment`] can be called.
pub fn references(container: &Container) -> EnvRefs {
    let mut refs = EnvRefs::default();
    for from in container.env_from.iter().flatten() {
        refs.config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        refs.secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        refs.config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        refs.secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    for list in [&mut refs.config_maps, &mut refs.secrets] {
        list.sort();
        list.dedup();
    }
    refs
}

/// The environment, by name: `envFrom`, then `env` over it, then variables of
/// Services where the name is still free. References expand from left to right.
pub fn environment(
    pod: &Pod,
    container: &Container,
    objects: &EnvObjects,
    services: &BTreeMap<String, String>,
    fields: &FieldContext,
) -> Result<BTreeMap<String, String>, EnvError> {
    let mut env = from_whole_objects(container, objects)?;
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(text), _) if !text.is_empty() => {
                Some(expand(text, |name| env.get(name).or_else(|| services.get(name)).cloned()))
            }
            (_, Some(source)) => from_source(pod, container, var, source, objects, fields)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(var.name.clone(), value);
        }
    }
    for (name, value) in services {
        if !env.contains_key(name) {
            env.insert(name.clone(), value.clone());
        }
    }
    Ok(env)
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

fn from_whole_objects(container: &Container, objects: &EnvObjects) -> Result<BTreeMap<String, String>, EnvError> {
    let mut env = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut put = |key: &str, value: String| {
            let name = format!("{prefix}{key}");
            if is_variable_name(&name) {
                env.insert(name, value);
            }
        };
        if let Some(r) = &from.config_map_ref {
            match lookup(&objects.config_maps, &r.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        put(key, value.clone());
                    }
                }
                None if r.optional == Some(true) => {}
                None => return Err(missing(CONFIG_MAP, &r.name)),
            }
        }
        if let Some(r) = &from.secret_ref {
            match lookup(&objects.secrets, &r.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        put(key, text(SECRET, &r.name, key, &value.0)?);
                    }
                }
                None if r.optional == Some(true) => {}
                None => return Err(missing(SECRET, &r.name)),
            }
        }
    }
    Ok(env)
}

fn lookup<'a, T>(map: &'a BTreeMap<String, Option<Arc<T>>>, name: &str) -> Option<&'a T> {
    map.get(name)?.as_deref()
}

fn missing(kind: &'static str, name: &str) -> EnvError {
    EnvError::Missing { kind, name: name.to_owned() }
}

fn text(kind: &'static str, name: &str, key: &str, bytes: &[u8]) -> Result<String, EnvError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| EnvError::NotText {
        kind,
        name: name.to_owned(),
        key: key.to_owned(),
    })
}

/// `Ok(None)`: optional and absent, so the variable is left out.
fn from_source(
    pod: &Pod,
    container: &Container,
    var: &EnvVar,
    source: &EnvVarSource,
    objects: &EnvObjects,
    ctx: &FieldContext,
) -> Result<Option<String>, EnvError> {
    let namespace = || pod.metadata.namespace.clone().unwrap_or_default();
    let absent = |kind, name: &String, key: &String| EnvError::MissingKey {
        kind,
        namespace: namespace(),
        name: name.clone(),
        key: key.clone(),
    };
    if let Some(r) = &source.field_ref {
        return Ok(Some(fields::field(pod, &r.field_path, ctx)?));
    }
    if let Some(r) = &source.resource_field_ref {
        return Ok(Some(fields::resource(pod, &container.name, r, ctx)?));
    }
    if let Some(r) = &source.config_map_key_ref {
        let optional = r.optional == Some(true);
        return match lookup(&objects.config_maps, &r.name) {
            None if optional => Ok(None),
            None => Err(missing(CONFIG_MAP, &r.name)),
            Some(map) => match map.data.as_ref().and_then(|d| d.get(&r.key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(absent("ConfigMap", &r.name, &r.key)),
            },
        };
    }
    if let Some(r) = &source.secret_key_ref {
        let optional = r.optional == Some(true);
        return match lookup(&objects.secrets, &r.name) {
            None if optional => Ok(None),
            None => Err(missing(SECRET, &r.name)),
            Some(secret) => match secret.data.as_ref().and_then(|d| d.get(&r.key)) {
                Some(value) => text(SECRET, &r.name, &r.key, &value.0).map(Some),
                None if optional => Ok(None),
                None => Err(absent("Secret", &r.name, &r.key)),
            },
        };
    }
    Err(EnvError::UnknownSource(var.name.clone()))
}

#[cfg(test)]
mod tests;
