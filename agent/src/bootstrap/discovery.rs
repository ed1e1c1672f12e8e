//! Finds out whom to trust: reads `cluster-info` from a server that nobody vouches
//! for yet, believes what the token signed, and asks again under that CA.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, Config, Error};
use serde_json::Value;

use super::token::{Token, ca_hashes};
use super::{JoinError, request};
use crate::answers::bounded;

/// A token made a moment ago may not have signed yet.
const SIGNING: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A cluster that proved to be the token's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `https://host:port`, as it was named to us.
    pub server: String,
    /// The authorities that its servers' certificates come from.
    pub ca_pem: String,
}

impl Cluster {
    /// A way to the cluster, with the token as credentials.
    ///
    /// # Errors
    /// When the CA is no use.
    pub fn client(&self, token: &Token) -> Result<Client, JoinError> {
        let mut config = self.config()?;
        config.auth_info.token = Some(token.bearer().into());
        Client::try_from(config).map_err(JoinError::Api)
    }

    fn config(&self) -> Result<Config, JoinError> {
        let mut config = plain(&self.server)?;
        let mut authorities = Vec::new();
        for block in x509_parser::pem::Pem::iter_from_buffer(self.ca_pem.as_bytes()) {
            authorities.push(block.map_err(|error| no_info(&self.server, error.to_string()))?.contents);
        }
        config.root_cert = Some(authorities);
        Ok(config)
    }
}

fn plain(server: &str) -> Result<Config, JoinError> {
    let url = server.parse().map_err(|_| no_info(server, "https://host:port is needed".to_owned()))?;
    Ok(Config::new(url))
}

fn no_info(server: &str, reason: String) -> JoinError {
    JoinError::NoClusterInfo { server: server.to_owned(), reason }
}

/// Finds the cluster of `token` at `server`. With `hashes`, its CA must be one of them.
///
/// # Errors
/// When the server does not answer, or is not to be believed.
pub async fn discover(server: &str, token: &Token, hashes: &[String]) -> Result<Cluster, JoinError> {
    let mut config = plain(server)?;
    // Nothing secret is sent, and nothing is believed that the token did not sign.
    config.accept_invalid_certs = true;
    let client = Client::try_from(config).map_err(JoinError::Api)?;
    let deadline = tokio::time::Instant::now() + SIGNING;
    let cluster = loop {
        let data = read(&client, server).await?;
        match believe(server, &data, token, hashes) {
            Err(JoinError::UnknownToken { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            believed => break believed?,
        }
    };
    // Whoever passed the signed words on is not yet the one who holds the CA's key.
    let verified = Client::try_from(cluster.config()?).map_err(JoinError::Api)?;
    let again = read(&verified, server).await?;
    believe(server, &again, token, hashes)
}

async fn read(client: &Client, server: &str) -> Result<BTreeMap<String, String>, JoinError> {
    let api: Api<ConfigMap> = Api::namespaced(bounded(client.clone()), "kube-public");
    match request::retried(|| api.get("cluster-info")).await {
        Ok(map) => Ok(map.data.unwrap_or_default()),
        Err(JoinError::Api(Error::Api(status))) => Err(no_info(server, status.message.clone())),
        Err(JoinError::Api(source)) => Err(JoinError::Unreachable { server: server.to_owned(), source }),
        Err(JoinError::Unauthorized) => Err(no_info(server, "it shows it to nobody without credentials".to_owned())),
        Err(error) => Err(error),
    }
}

/// What `cluster-info` says, if the token signed it and the CA is one of `hashes`. Pure.
pub(crate) fn believe(
    server: &str,
    data: &BTreeMap<String, String>,
    token: &Token,
    hashes: &[String],
) -> Result<Cluster, JoinError> {
    let (server, id) = (server.to_owned(), token.id().to_owned());
    let Some(content) = data.get("kubeconfig") else {
        return Err(no_info(&server, "it has no kubeconfig".to_owned()));
    };
    let Some(signature) = data.get(&format!("jws-kubeconfig-{id}")) else {
        return Err(JoinError::UnknownToken { server, id });
    };
    if !token.signed(content, signature) {
        return Err(JoinError::WrongSignature { server, id });
    }
    let read: Value = serde_norway::from_str(content).map_err(|error| no_info(&server, error.to_string()))?;
    let encoded = read["clusters"][0]["cluster"]["certificate-authority-data"].as_str().unwrap_or_default();
    let pem = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let ca_pem = pem.ok_or_else(|| no_info(&server, "its CA is not to be read".to_owned()))?;
    let found = ca_hashes(&ca_pem).map_err(|reason| no_info(&server, reason))?;
    if !hashes.is_empty() && !found.iter().any(|hash| hashes.contains(hash)) {
        return Err(JoinError::WrongCa { server, found: found.join(", ") });
    }
    Ok(Cluster { server, ca_pem })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, EncodingKey};

    fn sign(content: &str, token: &Token) -> String {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, token.id()));
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
        let key = EncodingKey::from_secret(token.secret().as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{header}..{signature}")
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_nothing_is_given_up() {
        let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        });
        let client = Client::new(silent, "default");
        let read = tokio::time::timeout(Duration::from_secs(86_400), read(&client, "https://192.0.2.1:6443")).await;
        let error = read.expect("it ends").unwrap_err();
        assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
    }

    #[test]
    fn only_what_the_token_signed_is_believed() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let content =
            |ca: &str| format!("clusters: [{{cluster: {{certificate-authority-data: {}}}}}]", STANDARD.encode(ca));
        let info = |content: &str, token: &Token| {
            BTreeMap::from([
                ("kubeconfig".to_owned(), content.to_owned()),
                ("jws-kubeconfig-abcdef".to_owned(), sign(content, token)),
            ])
        };
        let good = info(&content(&ca), &token);
        let server = "https://192.0.2.1:6443";
        let cluster = Cluster { server: server.to_owned(), ca_pem: ca.clone() };
        assert_eq!(believe(server, &good, &token, &[]).unwrap(), cluster);
        assert_eq!(believe(server, &good, &token, &ca_hashes(&ca).unwrap()).unwrap(), cluster);
        assert!(cluster.config().unwrap().root_cert.unwrap().len() == 1);
        let wrong = believe(server, &good, &token, &["sha256:00".to_owned()]).unwrap_err();
        assert!(matches!(wrong, JoinError::WrongCa { .. }));
        let other: Token = "abcdef.fedcba9876543210".parse().unwrap();
        assert!(matches!(believe(server, &good, &other, &[]), Err(JoinError::WrongSignature { .. })));
        let unknown: Token = "aaaaaa.0123456789abcdef".parse().unwrap();
        assert!(matches!(believe(server, &good, &unknown, &[]), Err(JoinError::UnknownToken { .. })));
        let mut changed = good.clone();
        changed.insert("kubeconfig".to_owned(), content("another"));
        assert!(matches!(believe(server, &changed, &token, &[]), Err(JoinError::WrongSignature { .. })));
        for garbage in ["", "[", "clusters: 3", &content(""), &content("garbage")] {
            let answer = believe(server, &info(garbage, &token), &token, &[]);
            assert!(matches!(answer, Err(JoinError::NoClusterInfo { .. })), "{garbage}: {answer:?}");
        }
        assert!(believe(server, &BTreeMap::new(), &token, &[]).is_err());
    }
}
