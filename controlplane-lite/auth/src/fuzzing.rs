//! What the fuzz targets call: the readers of credentials, with what holds of whatever they read.

use std::path::Path;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;

use crate::authn::files::{BasicUsers, StaticTokens};
use crate::authn::impersonation::{Impersonation, requested};
use crate::authn::service_account::{Claims, TokenIssuer};
use crate::authn::x509::ClientCertificate;
use crate::authn::{
    AUTHENTICATED, Authenticated, AuthnError, BoundKind, Credentials, Found, Lookup, UNAUTHENTICATED, UserInfo, bearer,
    bootstrap_token,
};
use crate::authz::abac::AbacAuthorizer;
use crate::authz::{Attributes, Authorizer as _};

const ISSUER: &str = "https://issuer";

/// A cluster in which everything is there.
#[derive(Debug)]
struct All;

impl Lookup for All {
    fn find(&self, _: BoundKind, _: &str, _: &str) -> Option<Found> {
        Some(Found { uid: "u".into(), deleted: None })
    }
    fn secret(&self, _: &str, _: &str) -> Option<Value> {
        None
    }
}

struct Signer {
    issuer: TokenIssuer,
    key: jsonwebtoken::EncodingKey,
}

fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(|| {
        let key = pki::ServiceAccountKey::generate().expect("a key");
        let issuer = TokenIssuer::new(&key, ISSUER, vec!["api".into()]).expect("an issuer");
        let key = jsonwebtoken::EncodingKey::from_ec_pem(key.private_pem.as_bytes()).expect("the same key");
        Signer { issuer, key }
    })
}

fn verify(token: &str) -> Result<Option<Authenticated>, AuthnError> {
    signer().issuer.verify(token, &[], &All, Timestamp::from_second(1_000_000).expect("a time"))
}

/// An `Authorization` header: nothing that we did not sign is anybody's token.
pub fn authorization(text: &str) {
    let token = bearer(Credentials { authorization: Some(text), ..Credentials::default() }).unwrap_or(text);
    assert!(!matches!(verify(token), Ok(Some(_))), "{token}");
    if let Some((id, secret)) = bootstrap_token::parse(token) {
        assert_eq!(format!("{id}.{secret}"), token);
    }
}

/// The same of a token whose claims, the text, are of our issuer: the signature is not ours.
pub fn unsigned(claims: &str) {
    let Ok(mut claims) = serde_json::from_str::<Value>(claims) else { return };
    if let Some(map) = claims.as_object_mut() {
        map.insert("iss".into(), ISSUER.into());
    }
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"ES256"}"#] {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.{}", part(header), part(&claims.to_string()), part("signature"));
        assert!(!matches!(verify(&token), Ok(Some(_))), "{claims}");
    }
}

/// A token that is signed with our key, with any claims: who it makes somebody is a service account, named by all of
/// them, within the token's time.
pub fn signed(claims: &str) {
    let Ok(mut claims) = serde_json::from_str::<Value>(claims) else { return };
    let Some(map) = claims.as_object_mut() else { return };
    map.insert("iss".into(), ISSUER.into());
    let Signer { key, .. } = signer();
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256), &claims, key);
    let Ok(token) = token else { return };
    let Ok(Some(found)) = verify(&token) else { return };
    assert!(found.user.username.starts_with("system:serviceaccount:"), "{:?}", found.user);
    assert_eq!(found.audiences.first().map(String::as_str), Some("api"));
    let read: Claims = serde_json::from_value(claims).expect("they were read before");
    assert!(read.exp >= 999_940 && read.nbf <= 1_000_060, "{read:?}");
    assert_eq!(read.sub, found.user.username);
}

/// A bootstrap token's id and secret, and a Secret that says whose it is.
pub fn bootstrap_secret(text: &str) -> Option<(String, String)> {
    let (token, secret) = text.split_once('\n').unwrap_or((text, ""));
    let (id, word) = bootstrap_token::parse(token)?;
    if let Ok(stored) = serde_json::from_str::<Value>(secret)
        && let Some(user) = bootstrap_token::user_of(&stored, id, word, Timestamp::UNIX_EPOCH)
    {
        assert_eq!(user.username, format!("system:bootstrap:{id}"));
        let ours = |group: &String| group == AUTHENTICATED || group.starts_with("system:bootstrappers");
        assert!(user.groups.iter().all(ours), "{:?}", user.groups);
    }
    Some((id.to_owned(), word.to_owned()))
}

/// A client certificate (DER).
pub fn certificate(der: &[u8]) {
    if let Ok(user) = ClientCertificate::read(der).user(Timestamp::UNIX_EPOCH) {
        assert!(!user.username.is_empty());
    }
}

/// Files of users, passwords and policies.
pub fn files(text: &str) {
    let path = Path::new("file");
    let _ = (StaticTokens::parse(text, path), BasicUsers::parse(text, path));
    if let Ok(policies) = AbacAuthorizer::parse(text, path) {
        let nobody = Attributes::resource(UserInfo::new("", [""; 0]), "get", "", "pods", "");
        let _ = policies.authorize(&nobody);
    }
}

/// Impersonation headers, `name: value` a line: every right of the user that they make is one that was asked for.
pub fn impersonation(text: &str) {
    let headers = text.lines().filter_map(|line| line.split_once(": "));
    let real = UserInfo::new("real", [""; 0]);
    let Ok(Some(Impersonation { user, required })) = requested(headers, &real) else { return };
    assert!(
        !user.username.is_empty() && required.iter().all(|asked| asked.verb == "impersonate" && asked.user == real)
    );
    let asked_for = |resource: &str, name: &str| required.iter().any(|a| a.resource == resource && a.name == name);
    let account = user.username.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let of_account = |namespace: &str, name: &str| {
        required.iter().any(|a| a.resource == "serviceaccounts" && a.namespace == namespace && a.name == name)
    };
    let is_account = account.filter(|(namespace, name)| of_account(namespace, name));
    assert!(is_account.is_some() || asked_for("users", &user.username), "{required:?}");
    for group in &user.groups {
        let of_itself = [AUTHENTICATED, UNAUTHENTICATED].contains(&group.as_str());
        let of_accounts = is_account.is_some_and(|(namespace, _)| {
            group == "system:serviceaccounts" || *group == format!("system:serviceaccounts:{namespace}")
        });
        assert!(of_itself || of_accounts || asked_for("groups", group), "{group}: {required:?}");
    }
    assert!(user.uid.is_empty() || asked_for("uids", &user.uid));
    for (key, values) in &user.extra {
        let asked = |value: &String| required.iter().any(|a| a.subresource == *key && a.name == *value);
        assert!(values.iter().all(asked), "{key}");
    }
}
