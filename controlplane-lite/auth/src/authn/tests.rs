//! Tests of `auth::authn`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::bootstrap_token::BootstrapTokenAuthenticator;
use super::files::{BasicUsers, StaticTokens};
use super::service_account::{Reference, ServiceAccountAuthenticator, TokenIssuer, TokenSpec};
use super::x509::{CertificateAuthenticator, ClientCertificate};
use super::*;
use pki::{Pki, ServiceAccountKey, Subject};

fn now() -> Timestamp {
    "2026-07-01T12:00:00Z".parse().unwrap()
}

#[derive(Debug, Default)]
struct World {
    /// Uids by kind and name; a trailing `!` means deleted long ago.
    objects: Vec<(BoundKind, &'static str, &'static str)>,
    secret: Value,
}

impl Lookup for World {
    fn find(&self, kind: BoundKind, _: &str, name: &str) -> Option<Found> {
        let (_, _, uid) = self.objects.iter().find(|(k, n, _)| *k == kind && *n == name)?;
        let deleted = uid.ends_with('!').then(|| now() - SignedDuration::from_mins(5));
        Some(Found { uid: uid.trim_end_matches('!').into(), deleted })
    }
    fn secret(&self, namespace: &str, name: &str) -> Option<Value> {
        (namespace == "kube-system" && self.secret["metadata"]["name"] == name).then(|| self.secret.clone())
    }
}

const ACCOUNT: (BoundKind, &str, &str) = (BoundKind::ServiceAccount, "robot", "sa-uid");

fn issuer() -> TokenIssuer {
    let key = ServiceAccountKey::generate().unwrap();
    TokenIssuer::new(&key, "https://kubernetes.default.svc", vec!["https://kubernetes.default.svc".into()]).unwrap()
}

fn spec() -> TokenSpec<'static> {
    TokenSpec {
        namespace: "ns",
        account: Reference::new("robot", "sa-uid"),
        audiences: &[],
        lifetime: SignedDuration::from_hours(1),
        warn_after: None,
        pod: Some(Reference::new("web", "pod-uid")),
        secret: None,
        node: Some(Reference::new("n1", "node-uid")),
        id: "id-1".into(),
    }
}

fn world(pod: &'static str) -> World {
    World { objects: vec![ACCOUNT, (BoundKind::Pod, "web", pod)], ..World::default() }
}

#[test]
fn issued_tokens_verify() {
    let issuer = issuer();
    let issued = issuer.issue(&spec(), now()).unwrap();
    assert_eq!(issued.expires, now() + SignedDuration::from_hours(1));
    for _ in 0..2 {
        let found = issuer.verify(&issued.token, &[], &world("pod-uid"), now()).unwrap().unwrap();
        assert_eq!(found.user.username, "system:serviceaccount:ns:robot");
        assert_eq!(found.user.uid, "sa-uid");
        assert_eq!(found.user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", AUTHENTICATED]);
        assert_eq!(found.user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
        assert_eq!(found.user.extra["authentication.kubernetes.io/node-uid"], ["node-uid"]);
        assert_eq!(found.user.extra["authentication.kubernetes.io/credential-id"], ["JTI=id-1"]);
        assert_eq!(found.audiences, ["https://kubernetes.default.svc"]);
    }
}

#[test]
fn a_token_dies_with_what_it_is_bound_to() {
    let issuer = issuer();
    let token = issuer.issue(&spec(), now()).unwrap().token;
    let verify = |world: &World, at: Timestamp| issuer.verify(&token, &[], world, at);
    assert!(verify(&world("pod-uid"), now() + SignedDuration::from_mins(60)).is_ok(), "clocks differ a little");
    assert!(verify(&world("pod-uid"), now() + SignedDuration::from_mins(62)).is_err(), "expired");
    assert!(verify(&world("pod-uid"), now() - SignedDuration::from_mins(2)).is_err(), "not yet valid");
    assert!(verify(&world("other-uid"), now()).is_err(), "the pod was replaced");
    assert!(verify(&world("pod-uid!"), now()).is_err(), "the pod was deleted a while ago");
    assert!(verify(&World { objects: vec![ACCOUNT], ..World::default() }, now()).is_err(), "no pod");
    let no_account = World { objects: vec![(BoundKind::Pod, "web", "pod-uid")], ..World::default() };
    assert!(verify(&no_account, now()).is_err(), "no account");
}

#[test]
fn audiences_count() {
    let issuer = issuer();
    let vault = ["vault".to_owned()];
    let token = issuer.issue(&TokenSpec { audiences: &vault, ..spec() }, now()).unwrap().token;
    assert!(issuer.verify(&token, &[], &world("pod-uid"), now()).is_err(), "not for the API");
    let asked = ["other".to_owned(), "vault".to_owned()];
    let found = issuer.verify(&token, &asked, &world("pod-uid"), now()).unwrap().unwrap();
    assert_eq!(found.audiences, vault);
}

#[test]
fn forged_and_foreign_tokens() {
    let (ours, theirs) = (issuer(), issuer());
    let world = world("pod-uid");
    let forged = theirs.issue(&spec(), now()).unwrap().token;
    assert!(ours.verify(&forged, &[], &world, now()).is_err(), "our issuer's name, another's key");
    let token = ours.issue(&spec(), now()).unwrap().token;
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let claims = URL.encode(r#"{"iss":"https://kubernetes.default.svc","sub":"system:serviceaccount:ns:admin"}"#);
    assert!(ours.verify(&format!("{header}.{claims}.{signature}"), &[], &world, now()).is_err());
    let none = URL.encode(r#"{"alg":"none"}"#);
    assert!(ours.verify(&format!("{none}.{claims}."), &[], &world, now()).is_err(), "alg none is no signature");
    let foreign = URL.encode(r#"{"iss":"https://accounts.example.com"}"#);
    for other in ["", "x", "a.b.c", "....", &format!("{header}.{foreign}.{signature}"), &"A".repeat(100_000)] {
        assert_eq!(ours.verify(other, &[], &world, now()).unwrap(), None, "{:.40}", other);
    }
}

use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;

#[test]
fn keys_are_published() {
    let issuer = issuer();
    let jwks = issuer.jwks();
    assert_eq!(jwks["keys"][0]["crv"], "P-256");
    assert_eq!(URL.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap().len(), 32);
    let key: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwks["keys"][0].clone()).unwrap();
    let decoding = jsonwebtoken::DecodingKey::from_jwk(&key).unwrap();
    let token = issuer.issue(&spec(), Timestamp::now()).unwrap().token;
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(issuer.audiences());
    jsonwebtoken::decode::<Value>(&token, &decoding, &validation).expect("others can verify with the published key");
}

fn bootstrap(changes: &[(&str, Option<&str>)]) -> World {
    let encode = |text: &str| STANDARD.encode(text);
    let mut secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "data": {
            "token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
            "expiration": encode("2026-07-02T00:00:00Z"), "usage-bootstrap-authentication": encode("true"),
            "auth-extra-groups": encode("system:bootstrappers:workers"),
        },
    });
    for (field, value) in changes {
        secret["data"][field] = value.map_or(Value::Null, |value| encode(value).into());
    }
    World { secret, ..World::default() }
}

#[tokio::test]
async fn bootstrap_tokens() {
    let ask = async |world: World, token: &str| {
        let header = format!("Bearer {token}");
        let authenticator = BootstrapTokenAuthenticator::new(Arc::new(world), now);
        authenticator
            .authenticate(Credentials { authorization: Some(&header), ..Credentials::default() })
            .await
            .unwrap()
    };
    let good = "abcdef.0123456789abcdef";
    let found = ask(bootstrap(&[]), good).await.unwrap().user;
    assert_eq!(found.username, "system:bootstrap:abcdef");
    assert_eq!(found.groups, ["system:bootstrappers", "system:bootstrappers:workers", AUTHENTICATED]);
    assert!(ask(bootstrap(&[("expiration", None)]), good).await.is_some(), "no expiry");
    for bad in [
        "abcdef.0123456789abcdeF",
        "abcdef.0123456789abcde0",
        "abcdef",
        "abcdeg.0123456789abcdef",
        "",
        "../..x.0123456789abcdef",
    ] {
        assert_eq!(ask(bootstrap(&[]), bad).await, None, "{bad}");
    }
    for change in [
        ("expiration", Some("2026-06-30T00:00:00Z")),
        ("expiration", Some("soon")),
        ("usage-bootstrap-authentication", Some("false")),
        ("usage-bootstrap-authentication", None),
        ("auth-extra-groups", Some("system:masters")),
        ("token-id", Some("zzzzzz")),
        ("token-secret", None),
    ] {
        assert_eq!(ask(bootstrap(&[change]), good).await, None, "{change:?}");
    }
}

#[tokio::test]
async fn users_from_files() {
    let path = Path::new("users.csv");
    let tokens = StaticTokens::parse("secret-1,jane,u1,\"dev,ops\"\n\nsecret-2,joe,u2\n", path).unwrap();
    let ask = async |users: &dyn Authenticator, header: &str| {
        users.authenticate(Credentials { authorization: Some(header), ..Credentials::default() }).await
    };
    let jane = ask(&tokens, "Bearer secret-1").await.unwrap().unwrap().user;
    assert_eq!((jane.username.as_str(), jane.uid.as_str()), ("jane", "u1"));
    assert_eq!(jane.groups, ["dev", "ops", AUTHENTICATED]);
    assert_eq!(ask(&tokens, "Bearer secret-3").await.unwrap(), None);
    let basic = BasicUsers::parse("pa:ss,jane,u1\n", path).unwrap();
    let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
    assert_eq!(ask(&basic, &header("jane:pa:ss")).await.unwrap().unwrap().user.username, "jane");
    for bad in [header("jane:wrong"), header("nobody:pa:ss"), header("jane"), "Basic ???".into()] {
        assert!(ask(&basic, &bad).await.is_err(), "{bad}");
    }
    assert_eq!(ask(&basic, "Bearer x").await.unwrap(), None);
    for (text, line) in [("a,b", 1), ("a,b,c\n,x,y", 2), ("\"a,b,c", 1), ("a,,c", 1)] {
        let error = StaticTokens::parse(text, path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("users.csv, line {line}")), "{text}: {error}");
    }
    assert!(StaticTokens::load(Path::new("/nonexistent/users.csv")).unwrap_err().to_string().contains("/nonexistent"));
}

async fn ask_at(clock: fn() -> Timestamp, der: Option<&[u8]>) -> Result<Option<Authenticated>, AuthnError> {
    let certificate = der.map(ClientCertificate::read);
    let credentials = Credentials { certificate: certificate.as_ref(), ..Credentials::default() };
    CertificateAuthenticator::new(clock).authenticate(credentials).await
}

#[tokio::test]
async fn certificates_name_their_user() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path(), now()).unwrap();
    let admin = pki.leaf("admin", &Subject::client("jane", Some("ops")), now()).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(admin.cert_pem.as_bytes()).unwrap();
    let der = Some(pem.contents.as_slice());
    let ask = async |der| ask_at(now, der).await;
    let user = ask(der).await.unwrap().unwrap().user;
    assert_eq!(
        (user.username.as_str(), user.groups.as_slice()),
        ("jane", &["ops".to_owned(), AUTHENTICATED.to_owned()][..])
    );
    assert_eq!(ask(None).await.unwrap(), None);
    assert!(ask(Some(&[1, 2, 3])).await.is_err());
    assert!(ask_at(|| now() + pki::LEAF_LIFETIME, der).await.is_ok());
    let after = || now() + pki::LEAF_LIFETIME + SignedDuration::from_secs(1);
    assert!(ask_at(after, der).await.is_err(), "a connection may outlive its certificate");
}

#[tokio::test]
async fn the_union_asks_in_order() {
    let issuer = Arc::new(issuer());
    let token = issuer.issue(&spec(), now()).unwrap().token;
    let union = Union {
        certificates: Some(Arc::new(CertificateAuthenticator::new(now))),
        tokens: vec![
            Arc::new(StaticTokens::parse("fixed,jane,u", Path::new("t")).unwrap()),
            Arc::new(ServiceAccountAuthenticator::new(issuer, Arc::new(world("pod-uid")), now)),
        ],
        basic: None,
        anonymous_paths: ANONYMOUS_PATHS.map(Into::into).to_vec(),
    };
    let ask = async |authorization: Option<&str>, path: &str| {
        let found = union.authenticate(Credentials { authorization, path, ..Credentials::default() }).await;
        found.map(|found| found.map(|found| found.user.username))
    };
    assert_eq!(ask(Some("bearer fixed"), "/api").await.unwrap().as_deref(), Some("jane"));
    let account = ask(Some(&format!("Bearer {token}")), "/api").await.unwrap();
    assert_eq!(account.as_deref(), Some("system:serviceaccount:ns:robot"));
    assert!(ask(Some("Bearer unknown"), "/healthz").await.is_err(), "a bad token is not anonymous");
    for path in ["/healthz", "/livez/ping", "/readyz", "/version"] {
        assert_eq!(ask(None, path).await.unwrap().as_deref(), Some("system:anonymous"), "{path}");
    }
    for path in ["/", "/api", "/healthzz", "/versions", "/openapi/v3"] {
        assert_eq!(ask(None, path).await.unwrap(), None, "{path}");
    }
    for odd in ["Bearer", "Bearer ", "", " ", "Basic abc", "Digest x"] {
        assert_eq!(ask(Some(odd), "/api").await.unwrap(), None, "{odd:?}");
    }
}

#[test]
fn impersonation() {
    use super::impersonation::requested;
    let admin = UserInfo::new("admin", ["system:masters"]);
    let ask = |headers: &[(&'static str, &'static str)]| requested(headers.to_vec(), &admin);
    assert_eq!(ask(&[("accept", "x")]).unwrap(), None);
    let found = ask(&[
        ("Impersonate-User", "jane"),
        ("impersonate-group", "dev"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Extra-Acme.com%2fProject", "p1"),
        ("Impersonate-Uid", "u1"),
    ])
    .unwrap()
    .unwrap();
    assert_eq!(found.user.groups, ["dev", "ops", AUTHENTICATED]);
    assert_eq!(found.user.extra["acme.com/project"], ["p1"]);
    let asked: Vec<_> =
        found.required.iter().map(|a| format!("{}/{}/{} {}", a.group, a.resource, a.subresource, a.name)).collect();
    assert_eq!(
        asked,
        [
            "/users/ jane",
            "/groups/ dev",
            "/groups/ ops",
            "authentication.k8s.io/userextras/acme.com/project p1",
            "authentication.k8s.io/uids/ u1",
        ]
    );
    assert!(found.required.iter().all(|a| a.user == admin && a.verb == "impersonate"));
    let account = ask(&[("Impersonate-User", "system:serviceaccount:ns:robot")]).unwrap().unwrap();
    assert_eq!(account.user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", AUTHENTICATED]);
    assert_eq!(
        (account.required[0].resource.as_str(), account.required[0].namespace.as_str()),
        ("serviceaccounts", "ns")
    );
    // As `SplitUsername` of upstream's serviceaccount/util.go: what cannot be an account's name is a user's.
    for user in [
        "system:serviceaccount:ns:a:b",
        "system:serviceaccount:ns:",
        "system:serviceaccount::a",
        "system:serviceaccount:ns",
        "system:serviceaccount:Ns:a",
        "system:serviceaccount:n.s:a",
        "system:serviceaccount:ns:-a",
        "system:serviceaccount:ns:a..b",
    ] {
        let found = ask(&[("Impersonate-User", user)]).unwrap().unwrap();
        assert_eq!((found.required[0].resource.as_str(), found.required[0].name.as_str()), ("users", user));
        assert_eq!(found.user.groups, [AUTHENTICATED], "{user}");
    }
    let dotted = ask(&[("Impersonate-User", "system:serviceaccount:ns:a.b")]).unwrap().unwrap();
    assert_eq!(dotted.required[0].resource, "serviceaccounts");
    let anonymous = ask(&[("Impersonate-User", "system:anonymous")]).unwrap().unwrap();
    assert_eq!(anonymous.user.groups, [UNAUTHENTICATED]);
    for bad in [("Impersonate-Group", "x"), ("Impersonate-Uid", "x"), ("Impersonate-Extra-a", "x")] {
        assert!(ask(&[bad]).is_err(), "{bad:?}");
    }
    // Go's `url.PathUnescape` takes two hexadecimal digits and nothing else, or it takes nothing.
    for (header, key) in [
        ("Impersonate-Extra-%zz%", "%zz%"),
        ("Impersonate-Extra-a%+1", "a%+1"),
        ("Impersonate-Extra-a%2fb%zz", "a%2fb%zz"),
    ] {
        let found = ask(&[("Impersonate-User", "x"), (header, "y")]).unwrap().unwrap();
        assert_eq!(found.user.extra[key], ["y"], "{header}");
    }
}
