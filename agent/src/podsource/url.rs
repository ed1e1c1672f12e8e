//! Static pods from a URL that is read now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use tokio_util::sync::CancellationToken;

use super::merge::Merger;
use super::{PodOrigin, static_pod};
use crate::clock::Clock;
use crate::config::StaticPods;
use crate::ids::PodUid;

const MAX_BYTES: usize = 10 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the URL has no pods for us.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("invalid URL or header")]
    Request(#[from] http::Error),
    #[error("no client for it")]
    Client(#[source] kube::Error),
    #[error("no answer")]
    Connection(#[source] kube::Error),
    #[error("answered {0}")]
    Status(http::StatusCode),
    #[error("answer not readable")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("not UTF-8 text")]
    Text(#[from] std::string::FromUtf8Error),
    #[error("no answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

/// Reads the URL; https is verified against the system's authorities.
async fn fetch(url: &str, headers: &[(String, String)]) -> Result<String, FetchError> {
    let parts = http::Uri::try_from(url).map_err(http::Error::from)?.into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", |p| p.as_str()).to_owned();
    let mut server = http::uri::Parts::default();
    (server.scheme, server.authority) = (parts.scheme, parts.authority);
    server.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    let server = http::Uri::from_parts(server).map_err(http::Error::from)?;
    let client = kube::Client::try_from(kube::Config::new(server)).map_err(FetchError::Client)?;
    let mut request = http::Request::get(path);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(kube::client::Body::empty())?;
    let work = async {
        let response = client.send(request).await.map_err(FetchError::Connection)?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(FetchError::Body)?;
        Ok(String::from_utf8(body.to_bytes().to_vec())?)
    };
    tokio::time::timeout(TIMEOUT, work).await?
}

/// One pod, or a list of pods.
fn parse(
    text: &str,
    node_name: &str,
    seen: &str,
) -> Result<BTreeMap<PodUid, Arc<k8s_openapi::api::core::v1::Pod>>, String> {
    let value: serde_json::Value = serde_norway::from_str(text).map_err(|e| e.to_string())?;
    let one = |v: &serde_json::Value| {
        let text = v.to_string();
        static_pod::parse(&text, PodOrigin::Url, node_name, seen).map_err(|e| e.to_string())
    };
    let pods = match value.get("items").and_then(|i| i.as_array()) {
        Some(items) => items
            .iter()
            .map(|item| {
                let mut item = item.clone();
                // Items of a typed list leave their kind out.
                if let Some(map) = item.as_object_mut() {
                    map.entry("kind").or_insert("Pod".into());
                    map.entry("apiVersion").or_insert("v1".into());
                }
                one(&item)
            })
            .collect::<Result<Vec<_>, _>>()?,
        None => vec![one(&value)?],
    };
    Ok(pods.into_iter().map(|p| (PodUid::of(&p), Arc::new(p))).collect())
}

/// Reads the URL until cancelled. While it fails, the last good answer holds.
pub async fn run(settings: StaticPods, node_name: String, merger: Merger, clock: Clock, token: CancellationToken) {
    let Some(url) = settings.url.clone() else { return };
    let mut last = None;
    let mut complained = false;
    loop {
        match fetch(&url, &settings.url_headers).await {
            Ok(text) if last.as_ref() == Some(&text) => {}
            Ok(text) => match parse(&text, &node_name, &clock.now().to_string()) {
                Ok(pods) => {
                    merger.replace(PodOrigin::Url, pods);
                    last = Some(text);
                    complained = false;
                }
                Err(error) => {
                    tracing::warn!(url, error, "static pods of the URL ignored");
                }
            },
            Err(error) if !complained => {
                complained = true;
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(url, %error, cause, "static pods of the URL not readable");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(settings.url_interval.max(Duration::from_secs(1))) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pods_and_lists() {
        let pod = "metadata: {name: NAME}\nspec: {containers: [{name: a, image: i}]}";
        let one = format!("apiVersion: v1\nkind: Pod\n{}", pod.replace("NAME", "a"));
        assert_eq!(parse(&one, "n", "t").unwrap().len(), 1);
        let list = "apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: a}, spec: {containers: [{name: a, image: i}]}}, {metadata: {name: b}, spec: {containers: [{name: a, image: i}]}}]";
        assert_eq!(parse(list, "n", "t").unwrap().len(), 2);
        for text in ["", "[", "items: [1]", "items: [{kind: Node}]"] {
            assert!(parse(text, "n", "t").is_err(), "{text}");
        }
    }

    /// Answers one connection with these bytes and returns what was asked.
    async fn answer(listener: tokio::net::TcpListener, with: &'static [u8]) -> Vec<u8> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let n = stream.read(&mut asked).await.unwrap();
        stream.write_all(with).await.unwrap();
        asked.truncate(n);
        asked
    }

    #[tokio::test]
    async fn http_and_https() {
        let listen = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = listen().await;
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(answer(listener, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npods"));
        let headers = [("X-Key".to_owned(), "1".to_owned())];
        assert_eq!(fetch(&format!("http://127.0.0.1:{port}/a/b?c=d"), &headers).await.unwrap(), "pods");
        let asked = String::from_utf8(server.await.unwrap()).unwrap().to_lowercase();
        assert!(asked.starts_with("get /a/b?c=d http/1.1\r\n") && asked.contains("x-key: 1\r\n"), "{asked}");

        let listener = listen().await;
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(answer(listener, b"HTTP/1.1 200 OK\r\n\r\n"));
        let error = fetch(&format!("https://127.0.0.1:{port}/"), &[]).await.unwrap_err();
        assert!(matches!(error, FetchError::Connection(_)), "{error:?}");
        assert_eq!(server.await.unwrap()[0], 22, "a handshake of TLS and nothing in the clear");
        assert!(matches!(fetch("no url", &[]).await, Err(FetchError::Request(_))));
    }
}
