//! Registry credentials from pull secrets. Pure.
//!
//! Which of them fit an image is said by upstream's pkg/credentialprovider/keyring.go; user and password are all that
//! it hands to the runtime (pkg/kubelet/kuberuntime/kuberuntime_image.go).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use cri::images::{DEFAULT_DOMAIN, Reference};
use cri::types::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct DockerConfig {
    auths: Entries,
}

/// By place. As Go reads them, a null is an empty entry or text.
type Entries = BTreeMap<String, Option<Entry>>;

#[derive(Debug, Default, Deserialize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

impl Entry {
    /// User and password; what `auth` says counts. Nothing when that is garbage.
    fn credentials(self) -> Option<AuthConfig> {
        let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) else {
            let (username, password) = (self.username.unwrap_or_default(), self.password.unwrap_or_default());
            return Some(AuthConfig { username, password });
        };
        let (username, password) = decode(&auth)?;
        Some(AuthConfig { username, password })
    }
}

/// `user:password` in base64, padded or not, with or without line breaks. Some tools fill the password up with NULs.
fn decode(field: &str) -> Option<(String, String)> {
    let text: String = field.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let text = text.trim();
    let bytes = if text.ends_with('=') { STANDARD.decode(text) } else { STANDARD_NO_PAD.decode(text) };
    let decoded = String::from_utf8(bytes.ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.trim_matches('\0').to_owned()))
}

/// The place that a key of the configuration stands for: a host, and the beginning of a path if there is one.
fn place(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.find('/').map_or((key, ""), |slash| key.split_at(slash));
    // The version of a registry's API says nothing of where it is.
    let path = if path.starts_with("/v1/") || path.starts_with("/v2/") { &path[3..] } else { path };
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

/// Host, port and path. An IPv6 address is in brackets that are no set of a pattern.
fn parts(place: &str) -> (&str, &str, &str) {
    let (host, path) = place.find('/').map_or((place, ""), |slash| place.split_at(slash));
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        && address.contains(':')
        && (port.is_empty() || port.starts_with(':'))
    {
        return (address, port.trim_start_matches(':'), path);
    }
    let (host, port) = host.rsplit_once(':').unwrap_or((host, ""));
    (host, port, path)
}

/// Whether an image's repository is in a place.
fn matches(place: &str, repository: &str) -> bool {
    let ((pattern, port, path), (host, wanted_port, wanted_path)) = (parts(place), parts(repository));
    port == wanted_port
        && wanted_path.starts_with(path)
        && pattern.split('.').count() == host.split('.').count()
        && pattern.split('.').zip(host.split('.')).all(|(pattern, label)| fits(pattern.as_bytes(), label.as_bytes()))
}

/// What the first term of a pattern says of a byte.
enum Term {
    /// It may stand for any number of bytes.
    Any,
    /// It fits, and is so long.
    Fits(usize),
    Not,
}

fn term(pattern: &[u8], byte: u8) -> Term {
    match pattern {
        [b'*', ..] => Term::Any,
        [b'[', set @ ..] => match in_set(set, byte) {
            Some((true, length)) => Term::Fits(length + 1),
            _ => Term::Not,
        },
        [first, ..] if *first == byte || *first == b'?' => Term::Fits(1),
        _ => Term::Not,
    }
}

/// Whether a byte is in the set that ends with the first `]`, and how long that is; nothing where there is no set.
fn in_set(set: &[u8], byte: u8) -> Option<(bool, usize)> {
    let end = set.iter().position(|b| *b == b']')?;
    let negated = set.first() == Some(&b'^');
    let mut members = &set[usize::from(negated)..end];
    if members.is_empty() {
        return None;
    }
    let mut found = false;
    while let [first, rest @ ..] = members {
        let (last, left) = match rest {
            [b'-', last, left @ ..] => (last, left),
            _ => (first, rest),
        };
        found |= (*first..=*last).contains(&byte);
        members = left;
    }
    Some((found != negated, end + 1))
}

/// Whether one label of a host fits a pattern of `*`, `?` and `[sets]`. A pattern that is none fits nothing.
fn fits(pattern: &[u8], label: &[u8]) -> bool {
    let (mut p, mut l) = (0, 0);
    // After the last `*`, and the first byte that it does not stand for yet.
    let mut any: Option<(usize, usize)> = None;
    while l < label.len() {
        match (term(&pattern[p..], label[l]), any) {
            (Term::Any, _) => {
                p += 1;
                any = Some((p, l));
            }
            (Term::Fits(length), _) => (p, l) = (p + length, l + 1),
            (Term::Not, Some((after, from))) => {
                (p, l) = (after, from + 1);
                any = Some((after, from + 1));
            }
            (Term::Not, None) => return false,
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// The entries of one secret; nothing when it is no pull secret or malformed.
fn of_secret(secret: &Secret) -> Entries {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson")
            .and_then(|text| serde_json::from_slice::<DockerConfig>(&text.0).ok())
            .map(|config| config.auths)
            .unwrap_or_default(),
        Some("kubernetes.io/dockercfg") => {
            data(".dockercfg").and_then(|text| serde_json::from_slice(&text.0).ok()).unwrap_or_default()
        }
        _ => Entries::new(),
    }
}

/// A credential for an image.
#[derive(Clone, Debug)]
pub struct Found<'s> {
    /// What holds it.
    pub secret: &'s Secret,
    /// User and password.
    pub auth: AuthConfig,
}

/// Every credential of the secrets that fits the image, the most specific first.
pub fn for_image<'s>(secrets: &[&'s Secret], image: &str) -> Vec<Found<'s>> {
    let Ok(reference) = Reference::parse(image) else { return Vec::new() };
    let entries = secrets.iter().flat_map(|secret| of_secret(secret).into_iter().map(move |entry| (*secret, entry)));
    let credential = |(secret, (key, entry)): (&'s Secret, (String, Option<Entry>))| {
        Some((place(&key), Found { secret, auth: entry.unwrap_or_default().credentials()? }))
    };
    let mut all: Vec<(String, Found<'s>)> = entries.filter_map(credential).collect();
    all.sort_by(|(a, _), (b, _)| Reverse(a).cmp(&Reverse(b)));
    let repository = reference.repository();
    let on_hub = reference.domain == DEFAULT_DOMAIN;
    // Docker Hub's old name counts where nothing else does.
    let places: &[fn(&str, &str) -> bool] =
        if on_hub { &[matches, |place, _| place == "index.docker.io"] } else { &[matches] };
    let fitting = |fits: &fn(&str, &str) -> bool| -> Vec<Found<'s>> {
        all.iter().filter(|(place, _)| fits(place, &repository)).map(|(_, found)| found.clone()).collect()
    };
    places.iter().map(fitting).find(|found| !found.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(key: &str, text: &str) -> Secret {
        let kind = format!("kubernetes.io/{}", key.trim_start_matches('.'));
        let data = [(key.to_owned(), ByteString(text.as_bytes().to_vec()))].into();
        Secret { data: Some(data), type_: Some(kind), ..Secret::default() }
    }

    fn users(keys: &[&str], image: &str) -> Vec<String> {
        let auths: BTreeMap<&str, _> = keys.iter().map(|key| (*key, BTreeMap::from([("username", *key)]))).collect();
        let text = serde_json::json!({"auths": auths}).to_string();
        for_image(&[&secret(".dockerconfigjson", &text)], image).into_iter().map(|found| found.auth.username).collect()
    }

    #[test]
    fn credentials_fit_registries() {
        for (keys, image, fitting) in [
            (&["reg.example:5000", "reg.example"][..], "reg.example:5000/a:1", &["reg.example:5000"][..]),
            (&["reg.example"], "reg.example:5000/a", &[]),
            (&["https://reg.example:5000/v2/"], "reg.example:5000/a", &["https://reg.example:5000/v2/"]),
            (&["http://reg.example/v1/team"], "reg.example/team/a", &["http://reg.example/v1/team"]),
            (&["http://reg.example/v1/team"], "reg.example/other/a", &[]),
            (
                &["reg.example", "reg.example/team"],
                format!("reg.example/team/a:1@sha256:{}", "0".repeat(64)).as_str(),
                &["reg.example/team", "reg.example"],
            ),
            (&["*.corp.example"], "x.corp.example/a", &["*.corp.example"]),
            (
                &["*.corp.example", "*.*.*", "x*z.corp.example"],
                "xyz.corp.example/a",
                &["x*z.corp.example", "*.corp.example", "*.*.*"],
            ),
            (&["*.example", "*"], "x.corp.example/a", &[]),
            (
                &["reg[0-3a].example", "reg[^2].example", "reg?.example"],
                "reg2.example/a",
                &["reg[0-3a].example", "reg?.example"],
            ),
            (&["reg[.example", "reg[].example"], "reg[.example/a", &[]),
            (&["[fd00::1]:5000", "[fd00::2]:5000"], "[fd00::1]:5000/app:v1", &["[fd00::1]:5000"]),
            (
                &["https://[fd00::1]:5000/v2/team", "[fd00::1]"],
                "[fd00::1]:5000/team/app",
                &["https://[fd00::1]:5000/v2/team"],
            ),
            (&["[fd00::1]:5000", "[fd00::1]", "fd00::1", "*"], "[fd00::1]/app", &["[fd00::1]", "*"]),
            (&["[ab]:5000"], "a:5000/app", &["[ab]:5000"]),
            (&["docker.io"], "not an image", &[]),
            // Docker Hub by each of its names.
            (&["https://index.docker.io/v1/"], "nginx", &["https://index.docker.io/v1/"]),
            (&["index.docker.io"], "docker.io/team/app:1", &["index.docker.io"]),
            (&["docker.io", "index.docker.io"], "nginx", &["docker.io"]),
            (&["docker.io/library"], "nginx:1", &["docker.io/library"]),
            (&["docker.io/library"], "team/app", &[]),
            (&["index.docker.io"], "reg.example/nginx", &[]),
        ] {
            assert_eq!(users(keys, image), fitting, "{keys:?} for {image}");
        }
    }

    #[test]
    fn user_and_password_are_written_in_many_ways() {
        let auth = |fields: &str| {
            let s = secret(".dockercfg", &format!("{{\"reg.example\": {{{fields}}}}}"));
            let found = for_image(&[&s], "reg.example/a").into_iter().next()?.auth;
            Some((found.username, found.password))
        };
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (fields, expected) in [
            (r#""username": "u", "password": "p""#, pair("u", "p")),
            // u:p, us:p and u:p:q
            (r#""auth": "dTpw", "username": "other""#, pair("u", "p")),
            (r#""auth": "dXM6cA==""#, pair("us", "p")),
            (r#""auth": "dXM6cA""#, pair("us", "p")),
            (r#""auth": "dXM6\ncA==\n""#, pair("us", "p")),
            (r#""auth": "dTpwOnE=""#, pair("u", "p:q")),
            (r#""auth": "dTpwAAA=""#, pair("u", "p")),
            (r#""auth": "dXA=", "username": "u""#, None),
            (r#""auth": "???""#, None),
            (r#""auth": null, "username": "u", "password": "p", "email": null"#, pair("u", "p")),
            (r#""auth": "dTpw", "username": null, "password": null"#, pair("u", "p")),
            (r#""username": "u", "password": null"#, pair("u", "")),
        ] {
            assert_eq!(auth(fields), expected, "{fields}");
        }
    }

    #[test]
    fn an_entry_without_a_value_takes_no_other_one_with_it() {
        let text = r#"{"auths": {"docker.io": null, "reg.example": {"auth": "dTpw"}}, "credsStore": null}"#;
        let secret = secret(".dockerconfigjson", text);
        let found = for_image(&[&secret], "reg.example/a");
        assert_eq!(found.iter().map(|found| found.auth.username.as_str()).collect::<Vec<_>>(), ["u"]);
    }

    #[test]
    fn garbage_is_no_credential() {
        let wrong = Secret { type_: Some("Opaque".to_owned()), ..secret(".dockercfg", r#"{"docker.io": {}}"#) };
        for s in
            [secret(".dockerconfigjson", "{"), secret(".dockercfg", "[1]"), secret("x", "y"), Secret::default(), wrong]
        {
            assert!(for_image(&[&s], "nginx").is_empty());
        }
    }
}
