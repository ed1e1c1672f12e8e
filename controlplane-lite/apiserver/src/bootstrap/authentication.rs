//! What other API servers have to know of this one, in a ConfigMap: whose client certificates are users here, and by
//! which certificate and headers it says to them who asks
//! (pkg/controlplane/controller/clusterauthenticationtrust/cluster_authentication_trust_controller.go).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{RegistryError, ensure};
use crate::registry::Change;
use crate::server::Server;
use scheme::access::{ensure_map, str_at};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Lists of the front proxy's, each a JSON list in a text.
const LISTS: [(&str, &str); 5] = [
    ("requestheader-allowed-names", pki::FRONT_PROXY),
    ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
    ("requestheader-group-headers", "X-Remote-Group"),
    ("requestheader-uid-headers", "X-Remote-Uid"),
    ("requestheader-username-headers", "X-Remote-User"),
];

/// Makes the ConfigMap, or adds what it lacks.
pub(super) async fn reconcile(server: &Arc<Server>) -> Result<(), RegistryError> {
    let Some(maps) = server.registry.get("", "configmaps") else { return Ok(()) };
    let bundles = [
        ("client-ca-file", server.client_cas.as_str()),
        ("requestheader-client-ca-file", server.front_proxy_ca.as_str()),
    ];
    let Some(stored) = maps.cache().get(NAMESPACE, NAME) else {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": NAMESPACE}, "data": {},
        });
        let map = completed(&map, &bundles).unwrap_or(map);
        return ensure(server, "", "configmaps", map).await;
    };
    if completed(&stored.value(), &bundles).is_none() {
        return Ok(());
    }
    let change = |old: &Value| Ok(completed(old, &bundles).map_or(Change::Keep, Change::Write));
    match maps.change::<_, RegistryError>(NAMESPACE, NAME, false, change).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The map with what it lacks. What others put there stays: another server may have.
fn completed(map: &Value, bundles: &[(&str, &str)]) -> Option<Value> {
    let text = |key: &str| str_at(map, &["data", key]);
    let bundles = bundles.iter().filter_map(|(key, wanted)| Some((*key, with_certificates(text(key), wanted)?)));
    let lists = LISTS.iter().filter_map(|(key, wanted)| Some((*key, with_item(text(key), wanted)?)));
    let lacking: Vec<(&str, String)> = bundles.chain(lists).collect();
    if lacking.is_empty() {
        return None;
    }
    let mut next = map.clone();
    let data = ensure_map(&mut next, &["data"]);
    data.extend(lacking.into_iter().map(|(key, text)| (key.to_owned(), text.into())));
    Some(next)
}

/// A list with the item that it lacks. What is no list is replaced.
fn with_item(list: &str, wanted: &str) -> Option<String> {
    let mut items: Vec<String> = serde_json::from_str(list).unwrap_or_default();
    if items.iter().any(|item| item == wanted) {
        return None;
    }
    items.push(wanted.to_owned());
    Some(json!(items).to_string())
}

/// A bundle with the certificates that it lacks.
fn with_certificates(bundle: &str, wanted: &str) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let all = |text: &str| {
        text.split_inclusive(END)
            .filter(|block| block.contains(END))
            .map(|block| block.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let have = all(bundle);
    let missing: Vec<_> = all(wanted).into_iter().filter(|block| !have.contains(block)).collect();
    if missing.is_empty() {
        return None;
    }
    Some(have.into_iter().chain(missing).map(|block| block + "\n").collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn block(body: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    #[test]
    fn bundles_keep_what_others_put_there() {
        let (ours, theirs) = (block("AA"), block("BB"));
        assert_eq!(with_certificates("", &ours), Some(ours.clone()));
        assert_eq!(with_certificates(&ours, &ours), None);
        assert_eq!(with_certificates(ours.trim_end(), &ours), None, "without a last line feed");
        let both = with_certificates(&theirs, &ours).unwrap();
        assert_eq!(both, format!("{theirs}{ours}"));
        assert_eq!(with_certificates(&both, &ours), None);
        assert_eq!(with_certificates("garbage", &ours), Some(ours));
    }

    #[test]
    fn the_map_says_by_what_the_front_proxy_is_known() {
        let bundles = [("client-ca-file", block("AA")), ("requestheader-client-ca-file", block("CC"))];
        let bundles = bundles.each_ref().map(|(key, text)| (*key, text.as_str()));
        let map = completed(&json!({"data": {"requestheader-allowed-names": r#"["theirs"]"#, "mine": "x"}}), &bundles)
            .unwrap();
        assert_eq!(
            map["data"],
            json!({
                "mine": "x", "client-ca-file": block("AA"), "requestheader-client-ca-file": block("CC"),
                "requestheader-allowed-names": r#"["theirs","front-proxy-client"]"#,
                "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
                "requestheader-group-headers": r#"["X-Remote-Group"]"#,
                "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
                "requestheader-username-headers": r#"["X-Remote-User"]"#,
            })
        );
        assert_eq!(completed(&map, &bundles), None);
    }
}
