//! HTTP probes against small servers on the loopback.

#![allow(clippy::unwrap_used)]
use super::*;
use std::convert::Infallible;
use std::sync::Mutex;

use harness::net::ClosedPort;
use http_body_util::Full;
use hyper::service::service_fn;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// For an answer that comes.
fn plenty() -> Duration {
    harness::time::limit()
}

fn target(port: u16, path: &str) -> HttpTarget {
    HttpTarget { https: false, host: "127.0.0.1".into(), port, path: path.into(), headers: Vec::new() }
}

/// A server that answers by path and notes the last request's headers.
async fn serve() -> (u16, Arc<Mutex<Vec<http::HeaderMap>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let notes = notes.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                notes.lock().unwrap().push(request.headers().clone());
                let answer = Response::builder();
                let answer = match request.uri().path() {
                    "/ok" => answer.status(204),
                    "/bad" => answer.status(503),
                    "/here" => answer.status(302).header("location", "/ok"),
                    "/herebad" => answer.status(302).header("location", "bad"),
                    "/away" => answer.status(302).header("location", "http://elsewhere.invalid/bad"),
                    "/304" => answer.status(304),
                    "/lost" => answer.status(302).header("location", "/%zz"),
                    "/loop" => answer.status(302).header("location", "/loop"),
                    _ => answer.status(404),
                };
                let answer = answer.body(Full::new(Bytes::from(vec![b'x'; 100_000]))).unwrap();
                async { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (port, seen)
}

#[tokio::test]
async fn judges_by_status_and_follows_on_the_same_host() {
    let (port, seen) = serve().await;
    let failed_to_parse = || ProbeResult::Failure("Get \"/%zz\": failed to parse Location header \"/%zz\"".into());
    let failed = |status: u16| ProbeResult::Failure(format!("HTTP probe failed with statuscode: {status}"));
    for (path, expect) in [
        ("/ok", ProbeResult::Success),
        ("/bad", failed(503)),
        ("/none", failed(404)),
        ("/here", ProbeResult::Success),
        ("/herebad", failed(503)),
        ("/lost", failed_to_parse()),
        ("/loop", ProbeResult::Failure("Get \"/loop\": stopped after 10 redirects".into())),
    ] {
        seen.lock().unwrap().clear();
        assert_eq!(probe(&target(port, path), plenty()).await, expect, "{path}");
    }
    assert_eq!(seen.lock().unwrap().len(), 10, "requests of a loop");
    for path in ["/away", "/304"] {
        let ProbeResult::Warning(text) = probe(&target(port, path), plenty()).await else { panic!("{path}") };
        assert!(text.starts_with("Probe terminated redirects, Response body: "), "{path}: {text}");
    }
}

#[tokio::test]
async fn headers_are_sent_and_overridden() {
    let (port, seen) = serve().await;
    let mut target = target(port, "/ok");
    probe(&target, plenty()).await;
    target.headers = vec![("Host".into(), "me".into()), ("X-A".into(), "1".into()), ("User-Agent".into(), "u".into())];
    probe(&target, plenty()).await;
    let seen = seen.lock().unwrap();
    let get = |i: usize, name: &str| seen[i].get(name).map(|v| v.to_str().unwrap().to_owned());
    assert_eq!(get(0, "user-agent").unwrap(), PROBE_AGENT);
    assert_eq!(get(0, "host").unwrap(), format!("127.0.0.1:{port}"));
    assert_eq!(get(1, "host").unwrap(), "me");
    assert_eq!(get(1, "x-a").unwrap(), "1");
    assert_eq!(get(1, "user-agent").unwrap(), "u");
}

#[tokio::test]
async fn https_is_not_verified() {
    let cert = rcgen::generate_simple_self_signed(["wrong.name".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(cert.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))) });
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.unwrap();
    });
    assert_eq!(probe(&HttpTarget { https: true, ..target(port, "/") }, plenty()).await, ProbeResult::Success);
}

#[tokio::test]
async fn garbage_silence_and_refusal_are_failures() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first.write_all(b"\x00\x01garbage\r\n\r\n").await.unwrap();
        // The second client is left waiting.
        let second = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
        drop((first, second));
    });
    assert!(matches!(probe(&target(port, "/"), plenty()).await, ProbeResult::Failure(_)));
    let ProbeResult::Failure(text) = probe(&target(port, "/"), Duration::from_millis(50)).await else { panic!() };
    assert!(text.contains("context deadline exceeded"), "{text}");
    server.abort();
    let closed = ClosedPort::tcp().unwrap();
    let ProbeResult::Failure(text) = probe(&target(closed.number(), "/"), plenty()).await else { panic!() };
    assert!(text.contains("refused"), "{text}");
    let mut odd = target(port, "/");
    odd.headers = vec![("bad name".into(), "x".into())];
    assert!(matches!(probe(&odd, plenty()).await, ProbeResult::Error(_)));
}

#[test]
fn a_redirect_to_a_named_host_leaves_the_probes_own_behind() {
    let mut from = target(80, "/a/b?c");
    from.headers = vec![("host".into(), "me".into()), ("X-A".into(), "1".into())];
    let here = redirected(&from, "../x").unwrap();
    assert_eq!((here.path.as_str(), here.headers.len()), ("/x", 2));
    let there = redirected(&from, "https://127.0.0.1/y").unwrap();
    assert_eq!((there.https, there.port, there.path.as_str()), (true, 443, "/y"));
    assert_eq!(there.headers, [("X-A".to_owned(), "1".to_owned())]);
    assert_eq!(redirected(&from, "ht!tp://x\u{1}"), None);
}

#[tokio::test]
async fn hooks_are_content_with_any_answer_and_follow_redirects() {
    let (port, seen) = serve().await;
    for path in ["/ok", "/bad", "/304", "/here"] {
        assert_eq!(send(&target(port, path), plenty()).await, Ok(()), "{path}");
    }
    let agents = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(agents.len(), 5, "one of them is a redirect");
    assert!(agents.iter().all(|h| h["user-agent"] == LIFECYCLE_AGENT));
    // Without TLS when the server has none, and then without its secrets.
    let mut secure = HttpTarget { https: true, ..target(port, "/ok") };
    secure.headers = vec![("Authorization".into(), "secret".into()), ("X-A".into(), "1".into())];
    assert_eq!(send(&secure, plenty()).await, Ok(()));
    let last = seen.lock().unwrap().last().cloned().unwrap();
    assert!(last.get("authorization").is_none() && last["x-a"] == "1");
    // A probe stays with what it was told.
    let ProbeResult::Failure(text) = probe(&secure, plenty()).await else { panic!("no TLS there") };
    assert!(text.ends_with("http: server gave HTTP response to HTTPS client"), "{text}");
    assert!(send(&target(port, "/loop"), plenty()).await.unwrap_err().contains("stopped after 10 redirects"));
}
