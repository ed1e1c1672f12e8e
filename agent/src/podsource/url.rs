//! Static pods from a URL that is read now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::merge::Merger;
use super::{PodOrigin, manifest, static_pod};
use crate::clock::Clock;
use crate::config::StaticPods;
use crate::events::{EventRecorder, EventType};
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

pub(crate) type Pods = BTreeMap<PodUid, Arc<Pod>>;

/// Pods by UID, and what is wrong with others.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) pods: Pods,
    pub(crate) problems: Vec<String>,
}

/// One pod, or a list of pods. An item that is none is skipped: of a pod that was `known` under its name, that stays.
/// Nothing at all is an empty list (pkg/kubelet/config/http.go).
pub(crate) fn parse(text: &str, known: &Pods, node_name: &str, seen: &str) -> Result<Answer, String> {
    if text.is_empty() {
        return Ok(Answer { pods: Pods::new(), problems: vec!["zero-length data received".to_owned()] });
    }
    let value = manifest::read(text)?;
    let one = |v: &serde_json::Value| {
        let text = v.to_string();
        static_pod::parse(&text, PodOrigin::Url, node_name, seen).map_err(|e| e.to_string())
    };
    let Some(items) = value.get("items").and_then(|i| i.as_array()) else {
        let pod = one(&value)?;
        return Ok(Answer { pods: [(PodUid::of(&pod), Arc::new(pod))].into(), problems: Vec::new() });
    };
    let (mut answer, mut names) = (Answer::default(), static_pod::Names::default());
    for (place, item) in items.iter().enumerate() {
        let mut item = item.clone();
        // Items of a typed list leave their kind out.
        if let Some(map) = item.as_object_mut() {
            map.entry("kind").or_insert("Pod".into());
            map.entry("apiVersion").or_insert("v1".into());
        }
        let pod = one(&item).map(Arc::new).or_else(|problem| {
            answer.problems.push(format!("item {place}: {problem}"));
            let before = known.values().find(|pod| static_pod::is_named(pod, &item, node_name));
            before.cloned().ok_or(())
        });
        let Ok(pod) = pod else { continue };
        match names.take(&pod) {
            Ok(()) => _ = answer.pods.insert(PodUid::of(&pod), pod),
            Err(problem) => answer.problems.push(format!("item {place}: {problem}")),
        }
    }
    Ok(answer)
}

/// Says what is wrong with the URL, each time that it is something else.
struct Complaints {
    url: String,
    node_name: String,
    events: EventRecorder,
    last: Option<String>,
}

impl Complaints {
    fn say(&mut self, problem: Option<String>) {
        if let Some(problem) = problem.as_ref().filter(|problem| self.last.as_ref() != Some(problem)) {
            tracing::warn!(url = self.url, problem, "static pods of the URL ignored");
            let text = format!("{}: {problem}", self.url);
            self.events.node(&self.node_name, EventType::Warning, "InvalidStaticPod", text);
        }
        self.last = problem;
    }
}

/// Reads the URL until cancelled. While it fails, the last good answer holds.
pub async fn run(
    settings: StaticPods,
    node_name: String,
    merger: Merger,
    events: EventRecorder,
    clock: Clock,
    token: CancellationToken,
) {
    let Some(url) = settings.url.clone() else { return };
    let mut complaints = Complaints { url: url.clone(), node_name: node_name.clone(), events, last: None };
    let (mut last, mut known) = (None, Pods::new());
    loop {
        match fetch(&url, &settings.url_headers).await {
            Ok(text) if last.as_ref() == Some(&text) => {}
            Ok(text) => match parse(&text, &known, &node_name, &clock.now().to_string()) {
                Ok(Answer { pods, problems }) => {
                    known.clone_from(&pods);
                    merger.replace(PodOrigin::Url, pods);
                    complaints.say((!problems.is_empty()).then(|| problems.join("; ")));
                    last = Some(text);
                }
                Err(problem) => complaints.say(Some(problem)),
            },
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                complaints.say(Some(format!("{error}{cause}")));
                // What comes back is looked at anew, so that a lasting problem with it is told again.
                last = None;
            }
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
        let parse = |text: &str| parse(text, &Pods::new(), "n", "t");
        let one = format!("apiVersion: v1\nkind: Pod\n{}", pod.replace("NAME", "a"));
        assert_eq!(parse(&one).unwrap().pods.len(), 1);
        let list = "apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: a}, spec: {containers: [{name: a, image: i}]}}, {metadata: {name: b}, spec: {containers: [{name: a, image: i}]}}]";
        let answer = parse(list).unwrap();
        assert_eq!((answer.pods.len(), answer.problems.len()), (2, 0));
        for text in ["[", "nothing", "kind: Node"] {
            assert!(parse(text).is_err(), "{text}");
        }
        // There is nothing to run, and something to say.
        for text in ["", "items: [1]", "items: [{kind: Node}]"] {
            let answer = parse(text).unwrap();
            assert_eq!((answer.pods.len(), answer.problems.len()), (0, 1), "{text}");
        }
    }

    #[test]
    fn an_item_that_is_no_pod_keeps_no_other_from_running() {
        let item = |name: &str, image: &str| {
            format!("{{metadata: {{name: {name}}}, spec: {{containers: [{{name: a, image: {image}}}]}}}}")
        };
        let list = |items: &[String]| format!("apiVersion: v1\nkind: PodList\nitems: [{}]", items.join(", "));
        let images = |pods: &Pods| {
            let image = |pod: &Arc<Pod>| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
            let mut all: Vec<String> = pods.values().map(image).collect();
            all.sort();
            all
        };
        let first = parse(&list(&[item("a", "a1"), item("b", "b1")]), &Pods::new(), "n", "t").unwrap();
        assert_eq!(images(&first.pods), ["a1", "b1"]);
        // One that ran goes on as it was, one of another's name is passed by.
        let second = list(&[item("a", "''"), item("b", "b2"), item("b", "b3"), item("c", "''"), item("d", "d1")]);
        let second = parse(&second, &first.pods, "n", "t").unwrap();
        assert_eq!(images(&second.pods), ["a1", "b2", "d1"]);
        let told: Vec<&str> = second.problems.iter().map(|p| p.split(':').next().unwrap()).collect();
        assert_eq!(told, ["item 0", "item 2", "item 3"]);
        let third = parse(&list(&[item("b", "b2")]), &second.pods, "n", "t").unwrap();
        assert_eq!(images(&third.pods), ["b2"], "what is left out is not wanted");
    }

    /// A URL that does not answer keeps nothing of another source from running (pkg/kubelet/config/config.go: `Merge`).
    #[tokio::test]
    async fn a_silent_url_holds_up_no_other_source() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let settings = StaticPods { url: Some(url), url_interval: Duration::from_secs(1), ..StaticPods::default() };
        let (merger, mut desired) = Merger::new(true, false, true);
        let (events, mut told) = EventRecorder::channel(8);
        let token = CancellationToken::new();
        let task = tokio::spawn(run(settings, "n".into(), merger.clone(), events, Clock::System, token.clone()));
        let pod: Pod = serde_norway::from_str("metadata: {uid: api}").unwrap();
        merger.replace(PodOrigin::Api, [(PodUid::new("api"), Arc::new(pod))].into());
        let runs = desired.wait_for(|d| d.wants(&PodUid::new("api")));
        harness::time::within("the pod of the API server is wanted", runs).await.unwrap().unwrap();
        assert!(!desired.borrow().ready.all());
        // An empty answer is one.
        for status in ["500 No", "200 OK"] {
            answer(&listener, format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
        }
        harness::time::within("it was read", desired.wait_for(|d| d.ready.all())).await.unwrap().unwrap();
        assert!(told.recv().await.unwrap().message.contains("answered 500"));
        assert!(told.recv().await.unwrap().message.contains("zero-length data"));
        token.cancel();
        task.await.unwrap();
    }

    /// Answers one connection with these bytes and returns what was asked.
    async fn answer(listener: &tokio::net::TcpListener, with: &[u8]) -> Vec<u8> {
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
        let server =
            tokio::spawn(async move { answer(&listener, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npods").await });
        let headers = [("X-Key".to_owned(), "1".to_owned())];
        assert_eq!(fetch(&format!("http://127.0.0.1:{port}/a/b?c=d"), &headers).await.unwrap(), "pods");
        let asked = String::from_utf8(server.await.unwrap()).unwrap().to_lowercase();
        assert!(asked.starts_with("get /a/b?c=d http/1.1\r\n") && asked.contains("x-key: 1\r\n"), "{asked}");

        let listener = listen().await;
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move { answer(&listener, b"HTTP/1.1 200 OK\r\n\r\n").await });
        let error = fetch(&format!("https://127.0.0.1:{port}/"), &[]).await.unwrap_err();
        assert!(matches!(error, FetchError::Connection(_)), "{error:?}");
        assert_eq!(server.await.unwrap()[0], 22, "a handshake of TLS and nothing in the clear");
        assert!(matches!(fetch("no url", &[]).await, Err(FetchError::Request(_))));
    }
}
