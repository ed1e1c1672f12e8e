//! Registry credentials from pull secrets. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cri::types::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
struct DockerConfig {
    auths: BTreeMap<String, Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// The registry of an image: what precedes the first slash when it looks like a
/// host, else Docker Hub.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn matches(key: &str, image: &str) -> bool {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    let (host, path) = key.split_once('/').map_or((key, ""), |(h, p)| (h, p));
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let wanted = registry(image);
    let wanted = if wanted == "index.docker.io" { "docker.io" } else { wanted };
    let same = host.split('.').count() == wanted.split('.').count()
        && host.split('.').zip(wanted.split('.')).all(|(h, w)| glob(h, w));
    let rest = image.split_once('/').map_or(image, |(h, r)| if h == registry(image) { r } else { image });
    same && rest.starts_with(path)
}

/// `*` at the end or the beginning of a label, as upstream allows.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
        }
    }
}

/// Credentials of one secret; nothing when it is no pull secret or malformed.
fn of_secret(secret: &Secret) -> BTreeMap<String, Entry> {
    let data = secret.data.as_ref();
    if let Some(text) = data.and_then(|d| d.get(".dockerconfigjson")) {
        return serde_json::from_slice::<DockerConfig>(&text.0).map(|c| c.auths).unwrap_or_default();
    }
    if let Some(text) = data.and_then(|d| d.get(".dockercfg")) {
        return serde_json::from_slice(&text.0).unwrap_or_default();
    }
    BTreeMap::new()
}

/// Every credential of the secrets that fits the image, the most specific first.
pub fn for_image(secrets: &[&Secret], image: &str) -> Vec<AuthConfig> {
    let mut found: Vec<(String, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (key, entry) in of_secret(secret).into_iter().filter(|(k, _)| matches(k, image)) {
            let (mut username, mut password) = (entry.username, entry.password);
            let pair = STANDARD.decode(&entry.auth).ok().and_then(|b| String::from_utf8(b).ok());
            if let Some((u, p)) = pair.as_deref().and_then(|t| t.split_once(':')) {
                username = u.to_owned();
                password = p.to_owned();
            }
            let auth = AuthConfig {
                username,
                password,
                server_address: key.clone(),
                identity_token: entry.identitytoken,
                registry_token: entry.registrytoken,
                ..AuthConfig::default()
            };
            found.push((key, auth));
        }
    }
    found.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
    found.into_iter().map(|(_, auth)| auth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(key: &str, text: &str) -> Secret {
        Secret { data: Some([(key.to_owned(), ByteString(text.as_bytes().to_vec()))].into()), ..Secret::default() }
    }

    #[test]
    fn credentials_fit_registries() {
        let s = secret(
            ".dockerconfigjson",
            r#"{"auths": {"reg.example:5000": {"auth": "dTpw"}, "https://index.docker.io/v1/": {"username": "hub", "password": "x"}, "*.corp.example": {"username": "w"}, "reg.example:5000/team": {"username": "team"}}}"#,
        );
        let users = |image: &str| -> Vec<String> { for_image(&[&s], image).into_iter().map(|a| a.username).collect() };
        assert_eq!(users("reg.example:5000/a:1"), ["u"]);
        assert_eq!(users("reg.example:5000/team/a:1"), ["team", "u"]);
        assert_eq!(users("nginx"), ["hub"]);
        assert_eq!(users("x.corp.example/a"), ["w"]);
        assert!(users("other.example/a").is_empty());
    }

    #[test]
    fn garbage_is_no_credential() {
        for s in [secret(".dockerconfigjson", "{"), secret(".dockercfg", "[1]"), secret("x", "y"), Secret::default()] {
            assert!(for_image(&[&s], "nginx").is_empty());
        }
    }
}
