//! Static pods from a URL that is read now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio_util::sync::CancellationToken;

use super::merge::Merger;
use super::{PodOrigin, static_pod};
use crate::clock::Clock;
use crate::config::StaticPods;
use crate::ids::PodUid;

const MAX_BYTES: usize = 10 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

async fn fetch(url: &str, headers: &[(String, String)]) -> Result<String, String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let mut request = http::Request::get(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::new()).map_err(|e| e.to_string())?;
    let work = async {
        let response = client.request(request).await.map_err(|e| e.to_string())?;
        if !response.status().is_success() {
            return Err(format!("answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(|e| e.to_string())?;
        String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "not UTF-8 text".to_owned())
    };
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
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
                tracing::warn!(url, error, "static pods of the URL not readable");
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
}
