//! Tests of `outbound`: a server over TLS in the same process, and what is said of those that are none.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pki::{LEAF_LIFETIME, Subject};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::body;
use crate::serve::{ServingKey, serve, server_tls};
use crate::testing::Ca;

struct Nobody;

impl Resolve for Nobody {
    fn endpoint(&self, service: &ServicePort) -> Result<SocketAddr, String> {
        Err(format!("service {:?} not found", service.name))
    }
}

/// All Services are at one address.
struct At(SocketAddr);

impl Resolve for At {
    fn endpoint(&self, _: &ServicePort) -> Result<SocketAddr, String> {
        Ok(self.0)
    }
}

struct Server {
    address: SocketAddr,
    ca: Ca,
    /// What it was sent, with the protocol's version and the Host.
    seen: Arc<Mutex<Vec<(http::Version, String, Bytes)>>>,
    _stop: DropGuard,
}

async fn server(names: &[&str]) -> Server {
    let ca = Ca::default();
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let subject = Subject::server("peer", names, vec![Ipv4Addr::LOCALHOST.into()]);
    let issued = ca.pki.ca().issue(&subject, LEAF_LIFETIME, jiff::Timestamp::now()).unwrap();
    let key = Arc::new(ServingKey::new(&issued.cert_pem, &issued.key_pem).unwrap());
    let tls = server_tls(key, &[ca.pem()]).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, stop) = (Arc::<Mutex<Vec<_>>>::default(), CancellationToken::new());
    let noted = seen.clone();
    let handler = move |request: http::Request<body::Body>| {
        let noted = noted.clone();
        async move {
            let host = request.headers().get(http::header::HOST).map(|v| v.to_str().unwrap().to_owned());
            let host = host.or_else(|| request.uri().authority().map(ToString::to_string)).unwrap();
            let (version, said) = (request.version(), format!("{host}{}", request.uri().path_and_query().unwrap()));
            let bytes = body::collect(request.into_body()).await.unwrap();
            noted.lock().unwrap().push((version, said, bytes));
            body::raw(http::StatusCode::OK, "application/json", "{}")
        }
    };
    tokio::spawn(serve(listener, tls, handler, stop.clone()));
    Server { address, ca, seen, _stop: stop.drop_guard() }
}

fn peer(config: &Value) -> Result<Peer, Unusable> {
    Peer::new(config, &Arc::default())
}

const SECONDS: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));

fn parts(texts: &[&'static str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
}

#[tokio::test]
async fn an_address_on_this_machine_is_spoken_to_in_the_second_version() {
    let server = server(&["localhost"]).await;
    let bundle = STANDARD.encode(server.ca.pem());
    let peer = peer(&json!({"url": format!("https://{}/a/b", server.address), "caBundle": bundle})).unwrap();
    for _ in 0..2 {
        let answer = peer.post(&parts(&["ab", "", "cd"]), SECONDS, &Nobody).await.unwrap();
        assert_eq!((answer.code, answer.text, &answer.body[..]), (200, false, &b"{}"[..]));
    }
    let seen = server.seen.lock().unwrap().clone();
    let said = format!("{}/a/b?timeout=20s", server.address);
    assert_eq!(seen, vec![(http::Version::HTTP_2, said, Bytes::from_static(b"abcd")); 2]);
}

#[tokio::test]
async fn a_service_is_who_has_its_name() {
    let server = server(&["s.n.svc"]).await;
    let config = |name: &str| {
        json!({"service": {"name": name, "namespace": "n", "path": "/p", "port": 8443},
            "caBundle": STANDARD.encode(server.ca.pem())})
    };
    let peer_of = |name: &str| peer(&config(name)).unwrap();
    peer_of("s").post(&parts(&["x"]), SECONDS, &At(server.address)).await.unwrap();
    let seen = server.seen.lock().unwrap().remove(0);
    assert_eq!((seen.0, &*seen.1), (http::Version::HTTP_11, "s.n.svc:8443/p?timeout=20s"));
    let other = peer_of("t").post(&parts(&["x"]), SECONDS, &At(server.address)).await.unwrap_err().to_string();
    let said = "Post \"https://t.n.svc:8443/p?timeout=20s\": tls: failed to verify certificate: x509: certificate is not valid for t.n.svc";
    assert_eq!(other, said);
    let missing = peer_of("s").post(&parts(&["x"]), SECONDS, &Nobody).await.unwrap_err().to_string();
    assert!(missing.ends_with(": service \"s\" not found"), "{missing}");
}

#[test]
fn configurations_that_name_nobody() {
    for (config, why) in [
        (json!({}), "webhook configuration must have either service or URL"),
        (json!({"url": "https://a b/"}), "Unparsable URL: "),
        (
            json!({"url": "https://a/", "caBundle": "AAAA"}),
            "unable to load root certificates: unable to parse bytes as PEM block",
        ),
    ] {
        let told = peer(&config).unwrap_err().to_string();
        assert!(told.starts_with(why), "{config}: {told}");
    }
    assert!(peer(&json!({"url": "https://[::1]:8443/a", "caBundle": null})).is_ok());
}

/// A certificate that is its own authority, as webhooks like to make them.
#[tokio::test]
async fn a_certificate_in_the_bundle_is_trusted_for_its_names() {
    let made = |ca: bool| {
        let mut params = rcgen::CertificateParams::new(vec!["s.n.svc".to_owned()]).unwrap();
        if ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    for ca in [true, false] {
        let (cert, key) = made(ca);
        let key = Arc::new(ServingKey::new(&cert, &key).unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let handler = async |_: http::Request<body::Body>| body::raw(http::StatusCode::OK, "text/plain", "hello");
        tokio::spawn(serve(listener, server_tls(key, &[&cert]).unwrap(), handler, stop.clone()));
        let _stop = stop.drop_guard();
        let config =
            |name: &str| json!({"service": {"name": name, "namespace": "n"}, "caBundle": STANDARD.encode(&cert)});
        let answer = peer(&config("s")).unwrap().post(&parts(&["x"]), SECONDS, &At(address)).await.unwrap();
        assert_eq!((answer.text, &answer.body[..]), (true, &b"hello"[..]));
        assert!(peer(&config("t")).unwrap().post(&parts(&["x"]), SECONDS, &At(address)).await.is_err());
    }
}

/// A server that answers one request of each connection, and closes it without a word when the next one comes.
#[tokio::test]
async fn a_connection_that_ended_while_it_rested_is_no_failure() {
    let ca = Ca::default();
    let subject = Subject::server("peer", vec!["s.n.svc".into()], Vec::new());
    let issued = ca.pki.ca().issue(&subject, LEAF_LIFETIME, jiff::Timestamp::now()).unwrap();
    let key = Arc::new(ServingKey::new(&issued.cert_pem, &issued.key_pem).unwrap());
    let acceptor = tokio_rustls::TlsAcceptor::from(server_tls(key, &[ca.pem()]).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, accepted) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = accepted.clone();
    tokio::spawn(async move {
        loop {
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
            while !read.ends_with(b"body") {
                let length = stream.read(&mut buffer).await.unwrap();
                read.extend_from_slice(&buffer[..length]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let config = json!({"service": {"name": "s", "namespace": "n"}, "caBundle": STANDARD.encode(ca.pem())});
    let peer = peer(&config).unwrap();
    for n in 1..4 {
        let answer = peer.post(&parts(&["bo", "dy"]), SECONDS, &At(address)).await.unwrap();
        assert_eq!((&answer.body[..], accepted.load(Ordering::SeqCst)), (&b"ok"[..], n));
    }
}
