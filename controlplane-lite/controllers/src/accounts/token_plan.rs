//! What a Secret that asks for a token of an account lacks, as upstream's
//! pkg/controller/serviceaccount/tokens_controller.go. Pure.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};

use client::objects::{annotation, name, uid};

/// The account whose token the Secret is to hold.
pub(super) const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// Its uid: given, or noted when the token is made.
pub(super) const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// The name of the account that a Secret asks for.
pub(super) fn account_name(secret: &Secret) -> Option<&str> {
    annotation(&secret.metadata, ACCOUNT_NAME).filter(|name| !name.is_empty())
}

/// Whether this account is the one that a Secret asks for.
pub(super) fn is_meant(secret: &Secret, account: &ServiceAccount) -> bool {
    let wanted = annotation(&secret.metadata, ACCOUNT_UID).unwrap_or_default();
    account_name(secret) == Some(name(&account.metadata)) && (wanted.is_empty() || wanted == uid(&account.metadata))
}

/// The Secret with what it lacked, or `None` when it lacks nothing. `sign` makes a token.
pub(super) fn filled<E>(
    secret: &Secret,
    account: &ServiceAccount,
    root_ca: &str,
    sign: impl FnOnce() -> Result<String, E>,
) -> Result<Option<Secret>, E> {
    let have = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[][..], |bytes| &bytes.0);
    let needs_ca = !root_ca.is_empty() && have("ca.crt") != root_ca.as_bytes();
    let (needs_namespace, needs_token) = (have("namespace").is_empty(), have("token").is_empty());
    if !needs_ca && !needs_namespace && !needs_token {
        return Ok(None);
    }
    let mut out = secret.clone();
    let data = out.data.get_or_insert_default();
    let mut put = |key: &str, value: &str| drop(data.insert(key.to_owned(), ByteString(value.into())));
    if needs_ca {
        put("ca.crt", root_ca);
    }
    if needs_namespace {
        put("namespace", secret.metadata.namespace.as_deref().unwrap_or_default());
    }
    if needs_token {
        put("token", &sign()?);
    }
    let annotations = out.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT_NAME.to_owned(), name(&account.metadata).to_owned());
    annotations.insert(ACCOUNT_UID.to_owned(), uid(&account.metadata).to_owned());
    Ok(Some(out))
}

/// The account without its reference to a Secret, if it has one.
pub(super) fn without_reference(account: &ServiceAccount, secret: &str) -> Option<ServiceAccount> {
    let is_it = |reference: &k8s_openapi::api::core::v1::ObjectReference| reference.name.as_deref() == Some(secret);
    account.secrets.iter().flatten().any(is_it).then(|| {
        let mut out = account.clone();
        out.secrets.get_or_insert_default().retain(|reference| !is_it(reference));
        out
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use super::*;
    use serde_json::{Value, from_value, json};

    fn secret(patch: &Value) -> Secret {
        let mut value = json!({"metadata": {"name": "s", "namespace": "ns", "annotations": {ACCOUNT_NAME: "robot"}}});
        json_patch::merge(&mut value, patch);
        from_value(value).unwrap()
    }

    fn account(patch: &Value) -> ServiceAccount {
        let mut value = json!({"metadata": {"name": "robot", "namespace": "ns", "uid": "u"}});
        json_patch::merge(&mut value, patch);
        from_value(value).unwrap()
    }

    fn fill(secret: &Secret) -> Option<Secret> {
        filled(secret, &account(&json!({})), "PEM", || Ok::<_, Infallible>("T".to_owned())).unwrap()
    }

    fn text(secret: &Secret, key: &str) -> String {
        String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
    }

    #[test]
    fn what_is_missing_is_put_in_once() {
        let made = fill(&secret(&json!({}))).unwrap();
        assert_eq!(["ca.crt", "namespace", "token"].map(|key| text(&made, key)), ["PEM", "ns", "T"]);
        assert_eq!(annotation(&made.metadata, ACCOUNT_UID), Some("u"));
        assert_eq!(fill(&made), None);
        // "old" in base64: a token that is there stays, another CA does not.
        let kept = fill(&secret(&json!({"data": {"token": "b2xk", "ca.crt": "b2xk", "more": "b2xk"}}))).unwrap();
        assert_eq!(["ca.crt", "namespace", "token", "more"].map(|key| text(&kept, key)), ["PEM", "ns", "old", "old"]);
        let refused = filled(&secret(&json!({})), &account(&json!({})), "PEM", || Err("no key"));
        assert_eq!(refused, Err("no key"));
    }

    #[test]
    fn the_account_is_known_by_name_and_uid() {
        let with_uid = |uid: &str| secret(&json!({"metadata": {"annotations": {ACCOUNT_UID: uid}}}));
        assert!(is_meant(&secret(&json!({})), &account(&json!({}))));
        assert!(is_meant(&with_uid("u"), &account(&json!({}))) && is_meant(&with_uid(""), &account(&json!({}))));
        assert!(!is_meant(&with_uid("other"), &account(&json!({}))));
        assert!(!is_meant(&secret(&json!({})), &account(&json!({"metadata": {"name": "other"}}))));
        assert_eq!(account_name(&secret(&json!({"metadata": {"annotations": {ACCOUNT_NAME: ""}}}))), None);
    }

    #[test]
    fn a_reference_goes_and_others_stay() {
        let of = |names: &[&str]| {
            account(&json!({"secrets": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}))
        };
        assert_eq!(without_reference(&of(&["a", "s", "b"]), "s"), Some(of(&["a", "b"])));
        assert_eq!(without_reference(&of(&["a"]), "s"), None);
        assert_eq!(without_reference(&account(&json!({})), "s"), None);
    }
}
