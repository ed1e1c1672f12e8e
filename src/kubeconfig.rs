//! Kubeconfig files: made for one cluster, merged into a user's own file and
//! taken out of it again. The user's other entries are kept to the letter of
//! their values, known to us or not.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderValue, USER_AGENT};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::files;

/// Who talks to which API server.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Name of the cluster, context and user alike.
    pub name: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    pub ca_pem: &'a str,
    pub client_cert_pem: &'a str,
    pub client_key_pem: &'a str,
}

/// A client with the credentials of a kubeconfig file.
///
/// # Errors
/// When the file cannot be read or is no use.
pub async fn client(path: &Path) -> Result<Client> {
    Ok(Client::try_from(client_config(path).await?)?)
}

/// Fails unless a file of the control plane is there and may be read.
///
/// # Errors
/// That there is no control plane here, or why that cannot be known.
pub fn require(file: &Path) -> Result<()> {
    match fs::File::open(file) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("there is no control plane here: {} is missing", file.display())
        }
        Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
    }
}

/// What a kubeconfig file says about a client's way to its server.
///
/// # Errors
/// When the file cannot be read or is no use.
pub async fn client_config(path: &Path) -> Result<kube::Config> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    // Read once for the place of an error, and once for paths relative to the file.
    let not_one = || format!("{} is not a kubeconfig", path.display());
    serde_norway::from_str::<Kubeconfig>(&text).with_context(not_one)?;
    let config = Kubeconfig::read_from(path).with_context(not_one)?;
    let mut config = kube::Config::from_custom_kubeconfig(no_proxy(config), &KubeConfigOptions::default())
        .await
        .with_context(|| format!("{} is no use", path.display()))?;
    config.proxy_url = config.proxy_url.filter(|proxy| *proxy != NO_PROXY);
    config.headers.push((USER_AGENT, HeaderValue::from_static(NODE_AGENT)));
    Ok(config)
}

/// How a node's clients present themselves, by which their fields of objects are owned.
const NODE_AGENT: &str = concat!("kubelet/", env!("CARGO_PKG_VERSION"), " (copepod)");

/// Stands for "none" where the library would else look into the environment.
const NO_PROXY: &str = "http://none.invalid/";

/// A kubeconfig that leaves HTTPS_PROXY alone. That variable is for image pulls: an API server is on
/// this machine or in its network, and a node that asks a proxy for it is lost with the proxy. What a
/// kubeconfig says itself (`proxy-url`) counts.
fn no_proxy(mut config: Kubeconfig) -> Kubeconfig {
    for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        cluster.proxy_url = cluster.proxy_url.take().filter(|own| !own.is_empty()).or(Some(NO_PROXY.to_owned()));
    }
    config
}

/// A complete kubeconfig for one cluster.
pub fn render(entry: &Entry<'_>) -> Value {
    let Entry { name, server, .. } = entry;
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(entry.ca_pem),
        }}],
        "users": [{"name": name, "user": {
            "client-certificate-data": STANDARD.encode(entry.client_cert_pem),
            "client-key-data": STANDARD.encode(entry.client_key_pem),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
        "preferences": {},
    })
}

/// A kubeconfig that says where a cluster is and names no user.
pub fn anonymous(server: &str, ca_pem: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "", "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(ca_pem),
        }}],
        "users": [],
        "contexts": [],
        "current-context": "",
        "preferences": {},
    })
}

/// The extension of a context that names the one that was current before it.
const BEFORE: &str = "copepod.local/before";

/// `base` with the entries of `added` put in or replaced by name, and `added`'s
/// context made the current one.
///
/// # Errors
/// When `base` is no kubeconfig.
pub fn merge(base: Value, added: &Value) -> Result<Value> {
    let mut merged = as_config(base)?;
    let before = context_before(&merged, &added["current-context"]);
    for section in ["clusters", "users", "contexts"] {
        for entry in added[section].as_array().into_iter().flatten() {
            let list = section_of(&mut merged, section)?;
            list.retain(|old| old["name"] != entry["name"]);
            list.push(entry.clone());
        }
    }
    merged["current-context"] = added["current-context"].clone();
    let own =
        section_of(&mut merged, "contexts")?.iter_mut().find(|context| context["name"] == added["current-context"]);
    if let (Some(own), Some(before)) = (own, before) {
        own["context"]["extensions"] = json!([{"name": BEFORE, "extension": {"context": before}}]);
    }
    Ok(merged)
}

/// The context that was current before `name` is, or was when that was merged first.
fn context_before(config: &Value, name: &Value) -> Option<Value> {
    let current = &config["current-context"];
    if current != name {
        return current.as_str().filter(|current| !current.is_empty()).map(|current| json!(current));
    }
    let contexts = config["contexts"].as_array()?;
    let own = contexts.iter().find(|context| context["name"] == *name)?;
    let extensions = own["context"]["extensions"].as_array()?;
    Some(extensions.iter().find(|extension| extension["name"] == BEFORE)?["extension"]["context"].clone())
}

/// `base` without the cluster, user and context called `name`; the context that was current before is so again.
///
/// # Errors
/// When `base` is no kubeconfig.
pub fn without(base: Value, name: &str) -> Result<Value> {
    let mut left = as_config(base)?;
    let before = context_before(&left, &json!(name));
    for section in ["clusters", "users", "contexts"] {
        section_of(&mut left, section)?.retain(|old| old["name"] != name);
    }
    if left["current-context"] == name {
        let contexts = section_of(&mut left, "contexts")?;
        let before = before.filter(|before| contexts.iter().any(|context| context["name"] == *before));
        left["current-context"] = before.unwrap_or_else(|| json!(""));
    }
    Ok(left)
}

fn as_config(value: Value) -> Result<Value> {
    match value {
        Value::Null => Ok(json!({"apiVersion": "v1", "kind": "Config", "preferences": {}})),
        Value::Object(_) => Ok(value),
        _ => bail!("it is not a mapping"),
    }
}

fn section_of<'a>(config: &'a mut Value, section: &str) -> Result<&'a mut Vec<Value>> {
    if config[section].is_null() {
        config[section] = json!([]);
    }
    config[section].as_array_mut().with_context(|| format!("its {section} are not a list"))
}

/// The user's kubeconfig: the first file of `KUBECONFIG`, else `~/.kube/config`.
pub fn users_file(kubeconfig: Option<&str>, home: Option<&Path>) -> Option<PathBuf> {
    let first = kubeconfig.and_then(|list| list.split(':').find(|path| !path.is_empty()));
    first.map(PathBuf::from).or_else(|| home.map(|home| home.join(".kube/config")))
}

/// Reads a kubeconfig, `Null` when there is none.
///
/// # Errors
/// Names the file that cannot be read or is not YAML.
pub fn read(path: &Path) -> Result<Value> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    serde_norway::from_str(&text).with_context(|| format!("{} is not a kubeconfig", path.display()))
}

/// Replaces a kubeconfig atomically, readable by its owner only.
///
/// # Errors
/// Names the file that cannot be written.
pub fn write(path: &Path, config: &Value) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    let text = serde_norway::to_string(config)?;
    files::replace(path, text.as_bytes(), 0o600).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(name: &str) -> Value {
        let server = format!("https://127.0.0.1/{name}");
        render(&Entry { name, server: &server, ca_pem: "ca", client_cert_pem: "cert", client_key_pem: "key" })
    }

    #[test]
    fn what_others_wrote_stays() {
        let base = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "work", "extensions": [{"name": "x"}],
            "clusters": [{"name": "work", "cluster": {"server": "https://w", "odd": 1}}],
            "users": [{"name": "work", "user": {"exec": {"command": "login"}}}],
            "contexts": [{"name": "work", "context": {"cluster": "work", "user": "work"}}],
        });
        let merged = merge(base.clone(), &entry("dev")).unwrap();
        assert_eq!(merged["current-context"], "dev");
        assert_eq!(merged["clusters"][0], base["clusters"][0]);
        assert_eq!(merged["extensions"], base["extensions"]);
        let again = merge(merged.clone(), &entry("dev")).unwrap();
        assert_eq!(again, merged, "merging twice changes nothing");
        // What was current before is so again, unless it is gone or somebody chose another.
        assert_eq!(without(merged.clone(), "dev").unwrap(), base);
        assert_eq!(without(without(merged.clone(), "work").unwrap(), "dev").unwrap()["current-context"], "");
        let other = merge(merged, &entry("other")).unwrap();
        assert_eq!(without(other.clone(), "dev").unwrap()["current-context"], "other");
        assert_eq!(without(other, "other").unwrap()["current-context"], "dev");
    }

    #[test]
    fn an_empty_file_is_a_start_and_a_list_is_not() {
        assert_eq!(merge(Value::Null, &entry("dev")).unwrap()["clusters"][0]["name"], "dev");
        assert!(merge(json!([]), &entry("dev")).is_err());
        assert!(merge(json!({"clusters": 3}), &entry("dev")).is_err());
    }

    /// Its proxy is chosen by the environment in another process, which this one becomes.
    #[tokio::test]
    async fn no_client_takes_a_proxy_from_the_environment() {
        if std::env::var_os("HTTPS_PROXY").is_none() {
            let name = "kubeconfig::tests::no_client_takes_a_proxy_from_the_environment";
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", name]).env("HTTPS_PROXY", "not a proxy").env("NO_PROXY", "odd,,");
            assert!(again.output().unwrap().status.success());
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let mut config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:6443"}}],
            "users": [{"name": "a", "user": {}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        });
        write(&path, &config).unwrap();
        assert_eq!(client_config(&path).await.unwrap().proxy_url, None);
        // Its own word counts.
        config["clusters"][0]["cluster"]["proxy-url"] = json!("http://192.0.2.1:3128");
        write(&path, &config).unwrap();
        assert_eq!(client_config(&path).await.unwrap().proxy_url.unwrap(), "http://192.0.2.1:3128");
    }

    #[tokio::test]
    async fn a_broken_kubeconfig_is_one_line_with_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let told = async || crate::errors::one_line(&client_config(&path).await.unwrap_err());
        let missing = told().await;
        assert_eq!(missing.matches("No such file").count(), 1, "{missing}");
        fs::write(&path, "clusters:\n- name: [\n").unwrap();
        let broken = told().await;
        assert!(broken.contains("is not a kubeconfig: ") && broken.contains("line 2 column 9"), "{broken}");
    }

    #[test]
    fn the_first_named_file_counts() {
        let home = Path::new("/h");
        assert_eq!(users_file(Some(":/a:/b"), Some(home)), Some("/a".into()));
        assert_eq!(users_file(Some(""), Some(home)), Some("/h/.kube/config".into()));
        assert_eq!(users_file(None, None), None);
    }
}
