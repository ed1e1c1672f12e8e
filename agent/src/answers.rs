//! A client whose questions end. A server that is gone without a word, or that hangs, answers a request that reached it
//! neither with a result nor with an error, and nothing below waits for less than for ever.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;

/// How long an answer may take, to its last byte. An API server gives up itself by then (its `--request-timeout`).
pub const LONGEST: Duration = Duration::from_secs(60);

/// `client`, for answers that come within [`LONGEST`]. Watches have to begin by then, and go on: who watches notices by
/// itself that nothing comes any more. Needs a running runtime.
pub fn bounded(client: Client) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move {
            let watches = is_watch(&request);
            let answer = async {
                let begun = client.send(request).await?;
                if watches {
                    return Ok(begun);
                }
                let (head, body) = begun.into_parts();
                Ok(Response::from_parts(head, Body::from(body.collect().await?.to_bytes())))
            };
            let late = |_| Err(kube::Error::Service(format!("no answer within {LONGEST:?}").into()));
            tokio::time::timeout(LONGEST, answer).await.unwrap_or_else(late)
        }
    });
    Client::new(service, "default")
}

fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query
        .split('&')
        .any(|pair| matches!(pair.split_once('='), Some(("watch", value)) if value != "false" && value != "0"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use k8s_openapi::api::core::v1::Node;
    use kube::Api;
    use kube::api::{Patch, PatchParams, WatchParams};

    use super::*;

    /// A server that answers nothing, or begins to and does not end.
    fn silent(begins: bool) -> Client {
        let service = tower::service_fn(move |_: Request<Body>| async move {
            if !begins {
                std::future::pending::<()>().await;
            }
            let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data("{".into()))]);
            let frames = futures::StreamExt::chain(first, futures::stream::pending());
            Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
        });
        Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_silent_is_not_waited_for_without_end() {
        for begins in [false, true] {
            let nodes: Api<Node> = Api::all(bounded(silent(begins)));
            let (params, patch) = (PatchParams::default(), Patch::Merge(serde_json::json!({})));
            let day = Duration::from_secs(86_400);
            let got = tokio::time::timeout(day, nodes.get("n")).await.expect("it ends").unwrap_err();
            assert!(format!("{got:?}").contains("no answer within 60s"), "{got:?}");
            let patched = tokio::time::timeout(day, nodes.patch_status("n", &params, &patch)).await;
            patched.expect("it ends").unwrap_err();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_has_to_begin() {
        let nodes: Api<Node> = Api::all(bounded(silent(false)));
        let (params, day) = (WatchParams::default(), Duration::from_secs(86_400));
        let watch = tokio::time::timeout(day, nodes.watch(&params, "0")).await.expect("it ends");
        let refused = watch.map(drop).unwrap_err();
        assert!(format!("{refused:?}").contains("no answer within 60s"), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_may_be_silent() {
        let nodes: Api<Node> = Api::all(bounded(silent(true)));
        let mut watch = Box::pin(nodes.watch(&WatchParams::default(), "0").await.unwrap());
        let event = futures::StreamExt::next(&mut watch);
        assert!(tokio::time::timeout(LONGEST * 3, event).await.is_err());
    }
}
