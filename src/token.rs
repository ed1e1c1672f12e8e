//! Bootstrap tokens as Secrets and as lines of a table. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::bootstrap::Token;
use agent::bootstrap::token::ca_hashes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// Type of the Secrets that are tokens.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const USAGES: [&str; 2] = ["signing", "authentication"];
const GROUP_PREFIX: &str = "system:bootstrappers:";

/// What a token is made with.
#[derive(Clone, Debug)]
pub struct TokenOptions<'w> {
    /// `None`: for ever.
    pub ttl: Option<Duration>,
    pub description: &'w str,
    pub usages: &'w [String],
    pub groups: &'w [String],
}

/// The name of a token's Secret.
pub fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// The Secret of a token.
///
/// # Errors
/// Names the usage or group that there is not.
pub fn secret(token: &Token, options: &TokenOptions<'_>, now: Timestamp) -> Result<Secret, String> {
    let mut data = BTreeMap::new();
    let mut put = |name: &str, value: &str| data.insert(name.to_owned(), value.to_owned());
    put("token-id", token.id());
    put("token-secret", token.secret());
    if !options.description.is_empty() {
        put("description", options.description);
    }
    if let Some(ttl) = options.ttl {
        let ends = now.checked_add(ttl).map_err(|_| "--ttl: so long does nothing last".to_owned())?;
        put("expiration", &ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    for usage in options.usages {
        if !USAGES.contains(&usage.as_str()) {
            return Err(format!("--usages={usage}: signing and authentication are known"));
        }
        put(&format!("usage-bootstrap-{usage}"), "true");
    }
    if let Some(group) = options.groups.iter().find(|group| !group.starts_with(GROUP_PREFIX)) {
        return Err(format!("--groups={group}: groups of tokens begin with {GROUP_PREFIX}"));
    }
    if !options.groups.is_empty() && options.usages.iter().any(|usage| usage == "authentication") {
        put("auth-extra-groups", &options.groups.join(","));
    }
    let metadata = ObjectMeta {
        name: Some(secret_name(token.id())),
        namespace: Some("kube-system".to_owned()),
        ..ObjectMeta::default()
    };
    Ok(Secret { metadata, type_: Some(SECRET_TYPE.to_owned()), string_data: Some(data), ..Secret::default() })
}

/// The table of all tokens, as kubeadm prints it.
pub fn table(secrets: &[Secret], now: Timestamp) -> String {
    let head = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(secrets.iter().filter_map(|s| row(s, now))).collect();
    if rows.len() == 1 {
        return String::new();
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn row(secret: &Secret, now: Timestamp) -> Option<[String; 6]> {
    let field = |name: &str| String::from_utf8(secret.data.as_ref()?.get(name)?.0.clone()).ok();
    let or_none = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "<none>".to_owned());
    let token: Token = format!("{}.{}", field("token-id")?, field("token-secret")?).parse().ok()?;
    let (ttl, expires) = match field("expiration") {
        None => ("<forever>".to_owned(), "<never>".to_owned()),
        Some(text) => {
            let left = text.parse::<Timestamp>().map(|ends| ends.duration_since(now).as_secs());
            (left.map_or("<invalid>".to_owned(), short), text)
        }
    };
    let mut usages: Vec<&str> =
        USAGES.into_iter().filter(|u| field(&format!("usage-bootstrap-{u}")).as_deref() == Some("true")).collect();
    usages.sort_unstable();
    let groups = or_none(field("auth-extra-groups"));
    Some([token.bearer(), ttl, expires, or_none(Some(usages.join(","))), or_none(field("description")), groups])
}

/// A time in its largest unit.
fn short(seconds: i64) -> String {
    match seconds {
        ..0 => "<invalid>".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ if seconds < 365 * 86_400 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 86_400 / 365),
    }
}

/// The command that joins a node, from the kubeconfig in `cluster-info`.
///
/// # Errors
/// When it does not say where and who the cluster is.
pub fn join_command(cluster_info: &str, token: &Token) -> Result<String, String> {
    let read: Value = serde_norway::from_str(cluster_info).map_err(|error| error.to_string())?;
    let cluster = &read["clusters"][0]["cluster"];
    let server = cluster["server"].as_str().ok_or("it names no server")?;
    let encoded = cluster["certificate-authority-data"].as_str().unwrap_or_default();
    let pem = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let hashes: String = ca_hashes(&pem)?.iter().map(|hash| format!(" --ca-cert-hash {hash}")).collect();
    Ok(format!("copepod agent --server {server} --token {}{hashes}", token.bearer()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::ByteString;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn made(options: &TokenOptions<'_>) -> Result<Secret, String> {
        let token = "abcdef.0123456789abcdef".parse().unwrap();
        let mut secret = secret(&token, options, NOW.parse().unwrap())?;
        // As the API stores it.
        let data = secret.string_data.take().unwrap_or_default().into_iter();
        secret.data = Some(data.map(|(name, value)| (name, ByteString(value.into_bytes()))).collect());
        Ok(secret)
    }

    #[test]
    fn a_token_is_shown_as_it_was_made() {
        let (usages, groups) = (USAGES.map(str::to_owned), ["system:bootstrappers:x".to_owned()]);
        let options =
            TokenOptions { ttl: Some(Duration::from_secs(86_400)), description: "d", usages: &usages, groups: &groups };
        let shown = table(&[made(&options).unwrap(), Secret::default()], "2026-01-01T00:00:30Z".parse().unwrap());
        let words: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = ["abcdef.0123456789abcdef", "23h", "2026-01-02T00:00:00Z", "authentication,signing", "d"];
        assert_eq!(words[..5], expected);
        assert_eq!(words[5..], ["system:bootstrappers:x"]);
        let forever = TokenOptions { ttl: None, description: "", usages: &[], groups: &[] };
        let shown = table(&[made(&forever).unwrap()], NOW.parse().unwrap());
        let words: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words[1..], ["<forever>", "<never>", "<none>", "<none>", "<none>"]);
        assert_eq!(table(&[], NOW.parse().unwrap()), "");
    }

    #[test]
    fn options_that_cannot_be_are_named() {
        let odd = ["cooking".to_owned()];
        let options = TokenOptions { ttl: None, description: "", usages: &odd, groups: &[] };
        assert!(made(&options).unwrap_err().contains("cooking"));
        assert!(
            made(&TokenOptions { usages: &[], groups: &odd, ..options.clone() })
                .unwrap_err()
                .contains("--groups=cooking")
        );
        assert!(
            made(&TokenOptions { usages: &[], ttl: Some(Duration::MAX), ..options }).unwrap_err().contains("--ttl")
        );
    }

    #[test]
    fn garbage_makes_no_command() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        for garbage in ["", "[", "clusters: 3", "clusters: [{cluster: {server: x}}]"] {
            assert!(join_command(garbage, &token).is_err(), "{garbage}");
        }
        assert_eq!([short(-1), short(59), short(3600), short(86_400 * 400)], ["<invalid>", "59s", "1h", "1y"]);
    }
}
