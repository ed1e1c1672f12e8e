//! Tokens that lie in Secrets of type `kubernetes.io/service-account-token`: good for the API as long as the Secret
//! holds them and the account is there, without an expiry, as upstream's pkg/serviceaccount/legacy.go.

use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{IssueError, Reference, TokenIssuer};
use crate::authn::{Authenticated, AuthnError, BoundKind, Lookup, UserInfo, same_secret};

/// Who signs them, whatever the URL of the API's issuer.
pub const ISSUER: &str = "kubernetes/serviceaccount";
/// Marks a Secret whose token is not accepted any more.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default)]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default)]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", default)]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", default)]
    uid: String,
    #[serde(default)]
    sub: String,
}

impl TokenIssuer {
    /// Signs the token that the Secret `secret` of a namespace is to hold.
    ///
    /// # Errors
    /// When the key does not sign.
    pub fn issue_for_secret(&self, namespace: &str, account: &Reference, secret: &str) -> Result<String, IssueError> {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.name.clone(),
            uid: account.uid.clone(),
            sub: format!("system:serviceaccount:{namespace}:{}", account.name),
        };
        let header = Header { kid: Some(self.key_id.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(IssueError::Sign)
    }

    /// Verifies a token of a Secret; `None` when it is none.
    pub(super) fn verify_of_secret(
        &self,
        token: &str,
        lookup: &dyn Lookup,
    ) -> Result<Option<Authenticated>, AuthnError> {
        match jsonwebtoken::dangerous::insecure_decode_claims::<Value>(token) {
            Ok(claims) if claims["iss"] == ISSUER => {}
            _ => return Ok(None),
        }
        let refuse = |reason: &str| AuthnError::Token(reason.to_owned());
        let mut validation = Validation::new(Algorithm::ES256);
        // It has neither times nor audiences.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation);
        let claims = decoded.map_err(|error| AuthnError::Token(error.to_string()))?.claims;
        if [&claims.namespace, &claims.secret, &claims.account, &claims.uid].iter().any(|claim| claim.is_empty()) {
            return Err(refuse("a claim of the service account token is missing"));
        }
        if claims.sub != format!("system:serviceaccount:{}:{}", claims.namespace, claims.account) {
            return Err(refuse("subject and service account claims do not match"));
        }
        let secret = lookup.secret(&claims.namespace, &claims.secret);
        let secret = secret.filter(|secret| secret["metadata"]["deletionTimestamp"].is_null());
        let Some(secret) = secret else { return Err(refuse("service account token has been invalidated")) };
        if !holds(&secret, token) {
            return Err(refuse("service account token does not match server's copy"));
        }
        let account = lookup.find(BoundKind::ServiceAccount, &claims.namespace, &claims.account);
        if account.is_none_or(|account| account.deleted.is_some() || account.uid != claims.uid) {
            return Err(refuse("the service account of the token has been deleted or replaced"));
        }
        if secret["metadata"]["labels"][INVALID_SINCE].as_str().is_some_and(|since| !since.is_empty()) {
            return Err(refuse("the token of the Secret has been marked invalid"));
        }
        let user = UserInfo { uid: claims.uid, ..UserInfo::service_account(&claims.namespace, &claims.account) };
        Ok(Some(Authenticated { user, audiences: self.audiences.clone() }))
    }
}

fn holds(secret: &Value, token: &str) -> bool {
    use base64::Engine as _;
    let data = secret["data"]["token"].as_str().unwrap_or_default();
    let held = base64::engine::general_purpose::STANDARD.decode(data).unwrap_or_default();
    !held.is_empty() && same_secret(&held, token.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::Engine as _;
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::authn::Found;
    use pki::ServiceAccountKey;

    #[derive(Debug)]
    struct World {
        account: Option<Found>,
        secret: Option<Value>,
    }

    impl Lookup for World {
        fn find(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<Found> {
            assert_eq!((kind, namespace, name), (BoundKind::ServiceAccount, "ns", "robot"));
            self.account.clone()
        }
        fn secret(&self, namespace: &str, name: &str) -> Option<Value> {
            assert_eq!((namespace, name), ("ns", "robot-token"));
            self.secret.clone()
        }
    }

    fn issuer() -> TokenIssuer {
        let url = "https://kubernetes.default.svc";
        TokenIssuer::new(&ServiceAccountKey::generate().unwrap(), url, vec![url.into()]).unwrap()
    }

    fn token(issuer: &TokenIssuer) -> String {
        issuer.issue_for_secret("ns", &Reference::new("robot", "sa-uid"), "robot-token").unwrap()
    }

    fn secret(token: &str) -> Value {
        let data = base64::engine::general_purpose::STANDARD.encode(token);
        json!({"metadata": {"name": "robot-token", "namespace": "ns"}, "data": {"token": data}})
    }

    fn account(uid: &str) -> Option<Found> {
        Some(Found { uid: uid.into(), deleted: None })
    }

    #[test]
    fn the_claims_are_upstreams() {
        let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(token(&issuer())).unwrap();
        assert_eq!(
            claims,
            json!({
                "iss": "kubernetes/serviceaccount",
                "kubernetes.io/serviceaccount/namespace": "ns",
                "kubernetes.io/serviceaccount/secret.name": "robot-token",
                "kubernetes.io/serviceaccount/service-account.name": "robot",
                "kubernetes.io/serviceaccount/service-account.uid": "sa-uid",
                "sub": "system:serviceaccount:ns:robot",
            })
        );
    }

    #[test]
    fn a_token_is_good_while_its_secret_and_account_are_there() {
        let issuer = issuer();
        let token = token(&issuer);
        let good = World { account: account("sa-uid"), secret: Some(secret(&token)) };
        let found = issuer.verify_of_secret(&token, &good).unwrap().unwrap();
        assert_eq!(
            (found.user.username.as_str(), found.user.uid.as_str()),
            ("system:serviceaccount:ns:robot", "sa-uid")
        );
        assert_eq!(found.user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
        assert_eq!(found.audiences, ["https://kubernetes.default.svc"]);

        let refused = |world: World| issuer.verify_of_secret(&token, &world).is_err();
        let with = |change: &dyn Fn(&mut Value)| {
            let mut secret = secret(&token);
            change(&mut secret);
            World { account: account("sa-uid"), secret: Some(secret) }
        };
        assert!(refused(World { secret: None, ..with(&|_| ()) }));
        assert!(refused(with(&|s| s["metadata"]["deletionTimestamp"] = json!("2026-07-01T12:00:00Z"))));
        assert!(refused(with(&|s| s["data"]["token"] = json!("b3RoZXI="))), "another token took its place");
        assert!(refused(with(&|s| s["data"] = json!({}))));
        assert!(refused(with(&|s| s["metadata"]["labels"] = json!({INVALID_SINCE: "2026-07-01"}))));
        assert!(refused(World { account: None, ..with(&|_| ()) }));
        assert!(refused(World { account: account("other"), ..with(&|_| ()) }));
        let deleted = Some(Found { uid: "sa-uid".into(), deleted: Some(Timestamp::UNIX_EPOCH) });
        assert!(refused(World { account: deleted, ..with(&|_| ()) }));
    }

    #[test]
    fn a_secret_alone_makes_no_token() {
        // Who may write Secrets may write any token into one: the signature counts.
        let (issuer, forger) = (issuer(), issuer());
        let forged = token(&forger);
        let world = World { account: account("sa-uid"), secret: Some(secret(&forged)) };
        assert!(issuer.verify_of_secret(&forged, &world).is_err());
        for other in ["", "a.b.c", "not a token"] {
            assert_eq!(issuer.verify_of_secret(other, &world).unwrap(), None);
        }
    }
}
