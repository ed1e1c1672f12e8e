//! Which tokens are over, and what `cluster-info` has to say. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey};
use k8s_openapi::api::core::v1::Secret;

use super::TOKEN_TYPE;

const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

/// A token, as far as this is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    id: String,
    secret: String,
    signs: bool,
    /// When it ends; a time that cannot be read has passed.
    pub(super) ends: Option<Timestamp>,
}

impl Token {
    /// The token a Secret holds; `None` when it holds none.
    pub(super) fn read(secret: &Secret) -> Option<Self> {
        let field = |name: &str| String::from_utf8(secret.data.as_ref()?.get(name)?.0.clone()).ok();
        let id = field("token-id")?;
        let named = secret.metadata.name.as_deref() == Some(&format!("bootstrap-token-{id}"));
        (named && secret.type_.as_deref() == Some(TOKEN_TYPE)).then(|| Self {
            secret: field("token-secret").unwrap_or_default(),
            signs: field("usage-bootstrap-signing").as_deref() == Some("true"),
            ends: field("expiration").map(|text| text.parse().unwrap_or(Timestamp::MIN)),
            id,
        })
    }

    /// Whether its time has come.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

/// The data of `cluster-info` with the signatures of the tokens that may sign; `None` when it is so already, or when
/// there is nothing to sign.
pub(super) fn signed(
    have: &BTreeMap<String, String>,
    tokens: &[Token],
    now: Timestamp,
) -> Result<Option<BTreeMap<String, String>>, jsonwebtoken::errors::Error> {
    let Some(content) = have.get(KUBECONFIG) else { return Ok(None) };
    let mut wanted = have.clone();
    wanted.retain(|key, _| !key.starts_with(SIGNATURE_PREFIX));
    for token in tokens.iter().filter(|token| token.signs && !token.secret.is_empty() && !token.is_over(now)) {
        wanted.insert(format!("{SIGNATURE_PREFIX}{}", token.id), signature(content, token)?);
    }
    Ok((&wanted != have).then_some(wanted))
}

/// A JWS over `content` that does not contain it.
fn signature(content: &str, token: &Token) -> Result<String, jsonwebtoken::errors::Error> {
    let header = serde_json::json!({"alg": "HS256", "kid": token.id}).to_string();
    let header = URL_SAFE_NO_PAD.encode(header);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = EncodingKey::from_secret(token.secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256)?;
    Ok(format!("{header}..{signature}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(fields: &[(&str, &str)]) -> Secret {
        let mut secret = Secret { type_: Some(TOKEN_TYPE.into()), ..Secret::default() };
        secret.metadata.name = Some("bootstrap-token-abcdef".into());
        let data = fields.iter().map(|(name, value)| ((*name).to_owned(), ByteString(value.as_bytes().to_vec())));
        secret.data = Some(data.collect());
        secret
    }

    const WHOLE: [(&str, &str); 4] = [
        ("token-id", "abcdef"),
        ("token-secret", "0123456789abcdef"),
        ("usage-bootstrap-signing", "true"),
        ("expiration", "2026-01-01T00:00:00Z"),
    ];

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn tokens_end_when_they_say_so_or_say_nonsense() {
        let token = Token::read(&secret(&WHOLE)).unwrap();
        assert!(!token.is_over(at("2025-12-31T23:59:59Z")) && token.is_over(at("2026-01-01T00:00:00Z")));
        assert!(!Token::read(&secret(&WHOLE[..3])).unwrap().is_over(Timestamp::MAX));
        let nonsense = [WHOLE[0], ("expiration", "tomorrow")];
        assert!(Token::read(&secret(&nonsense)).unwrap().is_over(at("2020-01-01T00:00:00Z")));
    }

    #[test]
    fn what_is_no_token_is_left_alone() {
        assert_eq!(Token::read(&Secret::default()), None);
        assert_eq!(Token::read(&secret(&[("token-id", "ghijkl")])), None, "named after another");
        let mut other = secret(&WHOLE);
        other.type_ = Some("Opaque".into());
        assert_eq!(Token::read(&other), None);
    }

    #[test]
    fn signatures_follow_tokens_and_content() {
        let token = Token::read(&secret(&WHOLE)).unwrap();
        let (now, tokens) = (at("2025-01-01T00:00:00Z"), [token.clone()]);
        let mut have = BTreeMap::from([(KUBECONFIG.to_owned(), "content".to_owned())]);
        let once = signed(&have, &tokens, now).unwrap().unwrap();
        // Made with an independent implementation.
        let expected = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..psz1NayrXM3IaFzKZGsb5n_mBl7MjtlsZ1xE8MRmF_4";
        assert_eq!(once["jws-kubeconfig-abcdef"], expected);
        assert_eq!(signed(&once, &tokens, now).unwrap(), None);
        assert_eq!(signed(&once, &tokens, Timestamp::MAX).unwrap(), Some(have.clone()));
        assert_eq!(signed(&once, &[Token { signs: false, ..token }], now).unwrap(), Some(have.clone()));
        have.insert(KUBECONFIG.to_owned(), "changed".to_owned());
        have.insert("jws-kubeconfig-abcdef".into(), once["jws-kubeconfig-abcdef"].clone());
        assert_ne!(signed(&have, &tokens, now).unwrap().unwrap()["jws-kubeconfig-abcdef"], expected);
        assert_eq!(signed(&BTreeMap::new(), &tokens, now).unwrap(), None);
    }
}
