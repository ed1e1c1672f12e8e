//! Bootstrap tokens, `ID.SECRET`: read, made, and their signatures verified. Pure
//! but for the dice.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use rand::RngExt;
use sha2::{Digest, Sha256};

const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A token of the right form.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: String,
    secret: String,
}

impl std::fmt::Debug for Token {
    /// The secret stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::str::FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || "a bootstrap token is 6 and 16 lower case letters or digits with a dot between".to_owned();
        let (id, secret) = text.split_once('.').ok_or_else(bad)?;
        let made_of = |part: &str, length| part.len() == length && part.bytes().all(|b| ALPHABET.contains(&b));
        if !made_of(id, ID_LENGTH) || !made_of(secret, SECRET_LENGTH) {
            return Err(bad());
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }
}

impl Token {
    /// A token that nobody knows yet.
    pub fn generate() -> Self {
        let mut dice = rand::rng();
        let mut word = |length: usize| -> String {
            (0..length).map(|_| char::from(ALPHABET[dice.random_range(0..ALPHABET.len())])).collect()
        };
        Self { id: word(ID_LENGTH), secret: word(SECRET_LENGTH) }
    }

    /// The public half, which names the token.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The other half.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Both halves, as `Authorization` has them.
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// Whether `signature`, a JWS without its content, is this token's over `content`.
    pub fn signed(&self, content: &str, signature: &str) -> bool {
        let Some((header, signature)) = signature.split_once("..") else { return false };
        let read =
            URL_SAFE_NO_PAD.decode(header).ok().and_then(|h| serde_json::from_slice::<serde_json::Value>(&h).ok());
        let Some(read) = read else { return false };
        if read["alg"] != "HS256" || read["kid"] != self.id.as_str() {
            return false;
        }
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
        let key = DecodingKey::from_secret(self.secret.as_bytes());
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, Algorithm::HS256).unwrap_or(false)
    }
}

/// `sha256:` and the hash of each certificate's public key, as `--ca-cert-hash` names it.
///
/// # Errors
/// When it is no PEM of certificates.
pub fn ca_hashes(pem: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for block in x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|error| error.to_string())?;
        let certificate = block.parse_x509().map_err(|error| error.to_string())?;
        let digest = Sha256::digest(certificate.public_key().raw);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        found.push(format!("sha256:{hex}"));
    }
    if found.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_have_one_form() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        assert_eq!((token.id(), token.secret()), ("abcdef", "0123456789abcdef"));
        for bad in ["", "abcdef", "abcde.0123456789abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdeé"] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
        let (one, two) = (Token::generate(), Token::generate());
        assert_ne!(one, two);
        assert_eq!(one.bearer().parse(), Ok(one));
        assert!(!format!("{two:?}").contains(two.secret()));
    }

    #[test]
    fn signatures_are_verified() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        // Made with an independent implementation.
        let good = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..psz1NayrXM3IaFzKZGsb5n_mBl7MjtlsZ1xE8MRmF_4";
        assert!(token.signed("content", good));
        assert!(!token.signed("Content", good));
        let other: Token = "abcdef.0123456789abcdee".parse().unwrap();
        assert!(!other.signed("content", good));
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"abcdef"}"#);
        for bad in ["", "..", "x..y", &format!("{none}.."), &good.replace("..", "."), &good[..good.len() - 1]] {
            assert!(!token.signed("content", bad), "{bad}");
        }
    }

    #[test]
    fn a_ca_is_known_by_its_key() {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let again = rcgen::CertificateParams::new(["x".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let hashes = ca_hashes(&pem).unwrap();
        assert_eq!(hashes, ca_hashes(&again).unwrap());
        assert!(hashes[0].starts_with("sha256:") && hashes[0].len() == 7 + 64);
        assert_eq!(ca_hashes(&format!("{pem}{again}")).unwrap().len(), 2);
        for bad in ["", "garbage", &key.serialize_pem()] {
            assert!(ca_hashes(bad).is_err(), "{bad}");
        }
    }
}
