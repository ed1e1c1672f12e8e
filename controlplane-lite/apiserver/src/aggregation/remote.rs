//! Asking a server of an aggregated API on this server's own behalf: whether it lives, which resources it has, and what
//! its OpenAPI documents say. Whatever it answers is bounded in time and in bytes.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;

use super::proxy::{identify, target};
use super::{AGGREGATOR, Known, Remote};
use crate::body;
use crate::server::Server;
use crate::tunnel;
use auth::authn::{MASTERS, UserInfo};
use scheme::discovery::{self, AggregatedVersion};
use scheme::openapi::Part;

/// An answer has to be there by then.
const TIMEOUT: Duration = Duration::from_secs(5);
/// So often a server is asked whether it lives before it is told not to.
const ATTEMPTS: usize = 5;
/// Bytes of a discovery document.
const DISCOVERY: usize = 2 << 20;
/// Bytes of an OpenAPI document.
const OPENAPI: usize = 4 << 20;

/// What came back.
struct Answer {
    status: StatusCode,
    content_type: String,
    bytes: Bytes,
}

/// Sends a GET, and reads at most `limit` bytes of the answer; none at all for 0.
async fn get(server: &Server, remote: &Remote, path: &str, accept: &str, limit: usize) -> Result<Answer, String> {
    let work = async {
        let target = target(server, remote, path).await?;
        let url = format!("https://{}{path}", target.authority());
        let failed = |text: String| format!("failing or missing response from {url}: {text}");
        let mut request = Request::new(body::full(""));
        if let Ok(accept) = HeaderValue::from_str(accept) {
            request.headers_mut().insert(header::ACCEPT, accept);
        }
        let user = UserInfo { groups: vec![MASTERS.into()], username: AGGREGATOR.into(), ..UserInfo::default() };
        identify(request.headers_mut(), &user).map_err(|error| error.to_string())?;
        let response = tunnel::forward(request, &target).await.map_err(|error| failed(error.to_string()))?;
        let status = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let content_type = content_type.unwrap_or("").to_owned();
        if limit == 0 {
            if status.is_success() {
                return Ok(Answer { status, content_type, bytes: Bytes::new() });
            }
            return Err(failed(format!("bad status from {url}: {}", status.as_u16())));
        }
        let read = Limited::new(response.into_body(), limit).collect().await;
        let bytes = read.map_err(|error| failed(error.to_string()))?.to_bytes();
        Ok(Answer { status, content_type, bytes })
    };
    let late = || format!("timed out waiting for {path} of {}", remote.name);
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(late()))
}

/// Whether the server answers what it has to. One answer of several is enough: the endpoints need not all be well.
///
/// # Errors
/// What it answered last.
pub(super) async fn lives(server: &Server, remote: &Remote) -> Result<(), String> {
    let path = remote.path();
    let Err(mut last) = get(server, remote, &path, "", 0).await else { return Ok(()) };
    let mut others: FuturesUnordered<_> = (1..ATTEMPTS).map(|_| get(server, remote, &path, "", 0)).collect();
    while let Some(answer) = others.next().await {
        match answer {
            Ok(_) => return Ok(()),
            Err(text) => last = text,
        }
    }
    Err(last)
}

/// Reads what the server says of its resources and documents.
pub(super) async fn learn(server: &Server, remote: &Remote) -> Known {
    let resources = resources(server, remote).await.map(Into::into);
    if resources.is_none() {
        return Known::default();
    }
    let (v3, v2) = futures::join!(v3(server, remote), v2(server, remote));
    Known { resources, v3, v2: v2.map(Into::into) }
}

fn json(answer: &Answer) -> Option<Value> {
    if answer.status == StatusCode::OK { serde_json::from_slice(&answer.bytes).ok() } else { None }
}

/// In one document for all of its groups, or from that of the one.
async fn resources(server: &Server, remote: &Remote) -> Option<Value> {
    let v2 = AggregatedVersion::V2.content_type();
    let all = get(server, remote, "/apis", &format!("{v2},application/json"), DISCOVERY).await.ok()?;
    if all.content_type.contains("as=APIGroupDiscoveryList") {
        return discovery::resources_of(&json(&all)?, &remote.group, &remote.version);
    }
    let one = get(server, remote, &remote.path(), "application/json", DISCOVERY).await.ok()?;
    discovery::converted(&json(&one)?, &remote.group, &remote.version)
}

async fn v3(server: &Server, remote: &Remote) -> Option<String> {
    let root = get(server, remote, "/openapi/v3", "application/json", DISCOVERY).await.ok()?;
    let path = remote.path();
    let url = json(&root)?["paths"][path.trim_start_matches('/')]["serverRelativeURL"].as_str()?.to_owned();
    // Nothing else of it is passed on than where its own document is.
    url.starts_with(&format!("/openapi/v3{path}")).then_some(url)
}

/// Parsed apart: it may be long.
async fn v2(server: &Server, remote: &Remote) -> Option<Part> {
    let whole = get(server, remote, "/openapi/v2", "application/json", OPENAPI).await.ok()?;
    let prefix = remote.path();
    server.flow.apart(async move { Part::of(json(&whole)?, &prefix) }).await.ok()?
}
