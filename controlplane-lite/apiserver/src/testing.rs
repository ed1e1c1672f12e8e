//! A server over a memory store, with certificates made for the test, and ways to talk to it.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::{ApiServer, Config};
use auth::authn::UserInfo;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use pki::{LEAF_LIFETIME, Pki, Subject};
use serde_json::Value;
use storage::memory::MemoryStore;

/// The certificates of a test's cluster.
#[derive(Debug)]
pub struct Ca {
    pub pki: Pki,
    _dir: tempfile::TempDir,
}

impl Default for Ca {
    fn default() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::load_or_create(dir.path(), jiff::Timestamp::now()).unwrap();
        Self { pki, _dir: dir }
    }
}

impl Ca {
    /// Certificate and key of a user in a group.
    pub fn issue(&self, name: &str, group: &str) -> (String, String) {
        let subject = Subject::client(name, Some(group).filter(|g| !g.is_empty()));
        let issued = self.pki.ca().issue(&subject, LEAF_LIFETIME, jiff::Timestamp::now()).unwrap();
        (issued.cert_pem, issued.key_pem)
    }

    pub fn pem(&self) -> &str {
        self.pki.ca().cert_pem()
    }
}

pub fn config(ca: &Ca) -> Config {
    let advertise = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 6443);
    Config::new(Arc::new(MemoryStore::default()), &ca.pki, advertise).unwrap()
}

pub fn admin() -> UserInfo {
    UserInfo::new("copepod-admin", ["system:masters"])
}

/// A server and an administrator's client.
pub async fn start() -> (ApiServer, kube::Client) {
    let server = ApiServer::new(config(&Ca::default())).await.unwrap();
    let client = server.client(admin());
    (server, client)
}

/// The same, with plugins of the test's own.
pub async fn start_with(plugins: Vec<crate::admission::Plugin>) -> (ApiServer, kube::Client) {
    let server = ApiServer::new(Config { plugins, ..config(&Ca::default()) }).await.unwrap();
    let client = server.client(admin());
    (server, client)
}

/// One raw request as administrator; the answer's code and body.
pub async fn send(client: &kube::Client, method: &str, path: &str, kind: &str, body: impl Into<Bytes>) -> (u16, Value) {
    let body: Bytes = body.into();
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
    if !kind.is_empty() {
        request = request.header("content-type", kind);
    }
    let request = request.body(kube::client::Body::from(body.to_vec())).unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into())))
}

pub async fn get(client: &kube::Client, path: &str) -> (u16, Value) {
    send(client, "GET", path, "", "").await
}

pub async fn post(client: &kube::Client, path: &str, body: &Value) -> (u16, Value) {
    send(client, "POST", path, "application/json", body.to_string()).await
}

pub async fn put(client: &kube::Client, path: &str, body: &Value) -> (u16, Value) {
    send(client, "PUT", path, "application/json", body.to_string()).await
}

pub async fn patch(client: &kube::Client, path: &str, kind: &str, body: &Value) -> (u16, Value) {
    send(client, "PATCH", path, &format!("application/{kind}"), body.to_string()).await
}

pub async fn delete(client: &kube::Client, path: &str) -> (u16, Value) {
    send(client, "DELETE", path, "", "").await
}

#[track_caller]
pub fn expect(answer: (u16, Value), code: StatusCode) -> Value {
    assert_eq!(answer.0, code.as_u16(), "{}", answer.1);
    answer.1
}

/// A server on a loopback port with a kubeconfig for it.
pub struct Served {
    server: ApiServer,
    pub client: kube::Client,
    pub ca: Ca,
    pub address: std::net::SocketAddr,
    pub dir: tempfile::TempDir,
    token: tokio_util::sync::CancellationToken,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

pub async fn serve() -> Served {
    serve_as(|_| {}).await
}

/// The same, of a server that is all on this machine: so may be its kubelets.
pub async fn serve_locally() -> Served {
    serve_as(|config| config.advertise = (IpAddr::V4(Ipv4Addr::LOCALHOST), 6443)).await
}

/// The same with other ways to authenticate and authorize.
pub async fn serve_with(auth: crate::AuthOptions) -> Served {
    serve_as(|config| config.auth = auth).await
}

async fn serve_as(change: impl FnOnce(&mut Config)) -> Served {
    let ca = Ca::default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = config(&ca);
    change(&mut config);
    let server = ApiServer::new(config).await.unwrap();
    let client = server.client(admin());
    let token = tokio_util::sync::CancellationToken::new();
    let (serving, stop) = (server.clone(), token.clone());
    tokio::spawn(async move { serving.serve(listener, stop).await });
    let dir = tempfile::tempdir().unwrap();
    let served = Served { server, client, ca, address, dir, token };
    served.kubeconfig("admin", "copepod-admin", "system:masters");
    served
}

impl Served {
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// Writes a kubeconfig for a certificate user and returns its path.
    pub fn kubeconfig(&self, file: &str, user: &str, group: &str) -> std::path::PathBuf {
        use base64::Engine as _;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let (cert, key) = self.ca.issue(user, group);
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{}", self.address), "certificate-authority-data": encode(self.ca.pem())}}],
            "users": [{"name": "test", "user": {
                "client-certificate-data": encode(&cert), "client-key-data": encode(&key)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        let path = self.dir.path().join(file);
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

impl Served {
    /// A TLS connection without a client certificate.
    pub async fn connect(&self) -> Sender {
        connect(self.address, self.ca.pem(), None).await
    }

    /// One GET over a connection of its own; `header` is a name and a value, or empty.
    pub async fn get(&self, path: &str, header: (&str, &str)) -> (u16, String) {
        let mut request = Request::get(path).header("host", "localhost");
        if !header.0.is_empty() {
            request = request.header(header.0, header.1);
        }
        let request = request.body(http_body_util::Full::default()).unwrap();
        let response = self.connect().await.send_request(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&bytes).into_owned())
    }
}

pub type Sender = hyper::client::conn::http1::SendRequest<http_body_util::Full<Bytes>>;

/// A TLS connection speaking HTTP/1.1, with a client certificate and key or without.
pub async fn connect(address: std::net::SocketAddr, ca_pem: &str, identity: Option<(&str, &str)>) -> Sender {
    let stream = tls(address, ca_pem, identity).await;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

pub type Sender2 = hyper::client::conn::http2::SendRequest<http_body_util::Full<Bytes>>;

/// A TLS connection speaking HTTP/2 whose client takes no byte of any answer, and the task that ends with it.
pub async fn connect_taking_nothing(
    address: std::net::SocketAddr,
    ca_pem: &str,
    identity: Option<(&str, &str)>,
) -> (Sender2, tokio::task::JoinHandle<()>) {
    let stream = tls_speaking(address, ca_pem, identity, "h2").await;
    let (sender, connection) = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(hyper_util::rt::TokioIo::new(stream))
        .await
        .unwrap();
    // How it ends is the server's affair.
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

/// A TLS connection on which nothing was sent yet.
pub async fn tls(
    address: std::net::SocketAddr,
    ca_pem: &str,
    identity: Option<(&str, &str)>,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    tls_speaking(address, ca_pem, identity, "http/1.1").await
}

async fn tls_speaking(
    address: std::net::SocketAddr,
    ca_pem: &str,
    identity: Option<(&str, &str)>,
    protocol: &str,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    tls.alpn_protocols = vec![protocol.into()];
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
}
