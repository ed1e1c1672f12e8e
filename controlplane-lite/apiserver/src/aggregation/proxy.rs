//! Carrying a request to the server of an aggregated API, and its answer back, as it comes
//! (k8s.io/kube-aggregator/pkg/apiserver/handler_proxy.go).

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::Remote;
use crate::backends;
use crate::body::{Body, BodyError, boxed, raw};
use crate::request_info::RequestInfo;
use crate::server::Server;
use crate::status::ApiError;
use crate::tunnel::{self, Target};
use auth::authn::UserInfo;

/// Discovery has to be there by then: clients ask every server for it.
const DISCOVERY: Duration = Duration::from_secs(5);
/// Anything else that does not last, to its last byte.
const DEADLINE: Duration = Duration::from_secs(60);

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";

/// Answers of this server in place of the other one are plain text.
fn refused(code: StatusCode, text: &str) -> Response<Body> {
    raw(code, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// Where a path of an aggregated API is.
///
/// # Errors
/// Why it is nowhere.
pub(super) async fn target(server: &Server, remote: &Remote, path_and_query: &str) -> Result<Target, String> {
    let tls = remote.tls.clone()?;
    let address = backends::resolve(server, &remote.service).await?;
    Ok(Target {
        host: address.ip().to_string(),
        port: address.port(),
        tls: Some(tls),
        server_name: Some(remote.server_name()),
        path_and_query: path_and_query.to_owned(),
    })
}

/// Says who asks, whatever the client said (`SetAuthProxyHeaders` of k8s.io/client-go/transport/round_trippers.go).
///
/// # Errors
/// When a name cannot stand in a header.
pub(super) fn identify(headers: &mut HeaderMap, user: &UserInfo) -> Result<(), http::Error> {
    let extra: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(EXTRA)).cloned().collect();
    for name in extra.into_iter().chain([USER, UID, GROUP]) {
        headers.remove(name);
    }
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(http::Error::from);
    headers.insert(USER, value(&user.username)?);
    if !user.uid.is_empty() {
        headers.insert(UID, value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(GROUP, value(group)?);
    }
    for (key, values) in &user.extra {
        let name = HeaderName::from_bytes(format!("{EXTRA}{}", escaped(key)).as_bytes())?;
        for text in values {
            headers.append(&name, value(text)?);
        }
    }
    Ok(())
}

/// A key as part of a header's name: what may not stand there is written in percent.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Carries a request to whoever serves it. What fails is told as upstream tells it, in plain text.
pub(crate) async fn forward(
    server: &Arc<Server>,
    remote: &Remote,
    mut request: Request<Body>,
    info: &RequestInfo,
    user: &UserInfo,
) -> Response<Body> {
    if !remote.available {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
    }
    if let Err(text) = &remote.tls {
        return refused(StatusCode::INTERNAL_SERVER_ERROR, text);
    }
    // Whoever cleans paths would read another one than was authorized.
    if info.path.split('/').any(|part| matches!(part, "." | "..")) {
        return crate::endpoints::not_found();
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let target = match target(server, remote, &path).await {
        Ok(target) => target,
        Err(error) => {
            tracing::warn!(api_service = remote.name, error, "cannot resolve the Service of an aggregated API");
            return refused(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
        }
    };
    if let Err(error) = identify(request.headers_mut(), user) {
        return refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string());
    }
    let lasts = info.long_running() || tunnel::wants_upgrade(request.headers());
    let allowed = if info.is_resource { DEADLINE } else { DISCOVERY };
    let started = tokio::time::Instant::now();
    let answer = tunnel::forward(request, &target);
    let answer = if lasts {
        answer.await
    } else {
        let late = || Err(ApiError::timeout("context deadline exceeded"));
        tokio::time::timeout(allowed, answer).await.unwrap_or_else(|_| late())
    };
    match answer {
        Err(error) => refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => response,
        Ok(response) => response.map(|inner| {
            let until = if lasts { None } else { Some(tokio::time::sleep_until(started + allowed).boxed()) };
            boxed(Passing { inner, until, stopping: server.stopping.clone().cancelled_owned().boxed() })
        }),
    }
}

/// A body that passes: at the latest with the server it ends, and with its deadline it breaks off.
struct Passing {
    inner: Body,
    until: Option<BoxFuture<'static, ()>>,
    stopping: BoxFuture<'static, ()>,
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if polled.is_ready() {
            return polled;
        }
        if self.until.as_mut().is_some_and(|until| until.poll_unpin(cx).is_ready()) {
            return Poll::Ready(Some(Err(BodyError("the answer did not end in time".into()))));
        }
        self.stopping.poll_unpin(cx).map(|()| None)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// k8s.io/client-go/transport/round_trippers_test.go, `TestAuthProxyRoundTripper` and `TestHeaderEscapeRoundTrip`.
    #[test]
    fn names_stand_in_headers() {
        for (key, expect) in [
            ("alpha", "alpha"),
            ("alpha@example.com", "alpha%40example.com"),
            ("example.com/one", "example.com%2Fone"),
            ("percent%2Fencoded", "percent%252Fencoded"),
            ("\u{e9}", "%C3%A9"),
            ("a b:c", "a%20b%3Ac"),
        ] {
            assert_eq!(escaped(key), expect);
        }
        let mut headers = HeaderMap::new();
        let mut user = UserInfo::new("j\u{f6}rg", ["a", "b"]);
        identify(&mut headers, &user).unwrap();
        assert_eq!(headers[USER].as_bytes(), "j\u{f6}rg".as_bytes());
        assert_eq!(headers.get_all(GROUP).iter().count(), 3);
        user.username = "two\nlines".into();
        assert!(identify(&mut headers, &user).is_err());
    }
}
