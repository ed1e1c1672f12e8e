//! A client for parts that may lack rights: what the API server refused is asked
//! for again after growing pauses only, whatever the part's watches do meanwhile,
//! and the first refusal is said.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// What was refused, and until when it is not asked for again.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    until: Instant,
    pause: Duration,
}

#[derive(Debug, Default)]
struct Refusals {
    by_path: Mutex<HashMap<String, Refusal>>,
    said: AtomicBool,
}

impl Refusals {
    fn holds(&self, path: &str) -> bool {
        let refusals = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.get(path).is_some_and(|refusal| Instant::now() < refusal.until)
    }

    fn note(&self, path: &str, status: StatusCode, hint: &str) {
        let mut refusals = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        if status != StatusCode::FORBIDDEN {
            refusals.remove(path);
            return;
        }
        let pause = refusals.get(path).map_or(FIRST_PAUSE, |refusal| (refusal.pause * 2).min(LONGEST_PAUSE));
        refusals.insert(path.to_owned(), Refusal { until: Instant::now() + pause, pause });
        if !self.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(path, hint, "the API server refuses what this node needs");
        }
    }
}

/// `client`, with patience. `hint` says what the operator can do. Needs a running
/// runtime.
pub fn patient(client: Client, hint: &'static str) -> Client {
    let refusals = Arc::new(Refusals::default());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, refusals) = (client.clone(), refusals.clone());
        async move {
            // Watches and lists; writes are somebody's decision each.
            let path = (request.method() == http::Method::GET).then(|| request.uri().path().to_owned());
            if let Some(path) = path.as_deref().filter(|path| refusals.holds(path)) {
                return Ok(refused(path));
            }
            let answer = client.send(request).await?;
            if let Some(path) = &path {
                refusals.note(path, answer.status(), hint);
            }
            Ok::<_, kube::Error>(answer)
        }
    });
    Client::new(service, "default")
}

/// The answer the API server would give again.
fn refused(path: &str) -> Response<Body> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": format!("{path} was refused a moment ago"),
    });
    let mut answer = Response::new(Body::from(status.to_string().into_bytes()));
    *answer.status_mut() = StatusCode::FORBIDDEN;
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refusals_are_waited_out() {
        let (asked, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (asks, is_open) = (asked.clone(), open.clone());
        let server = tower::service_fn(move |_: Request<Body>| {
            asks.fetch_add(1, Ordering::SeqCst);
            let status = if is_open.load(Ordering::SeqCst) { 200 } else { 403 };
            async move { Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(Body::empty()).unwrap()) }
        });
        let client = patient(Client::new(server, "default"), "hint");
        let get = async |path: &'static str| {
            client.send(Request::get(path).body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
        };
        // A watch that tries twice a second for 25 seconds.
        for _ in 0..50 {
            assert_eq!(get("/refused?watch=1").await, 403);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3, "at 0, 5 and 15 s");
        // Another path is another matter, and rights that come are noticed.
        open.store(true, Ordering::SeqCst);
        assert_eq!(get("/other").await, 200);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!((get("/refused").await, get("/refused").await), (200, 200));
        assert_eq!(asked.load(Ordering::SeqCst), 6);
    }
}
