//! The server's front door: who may speak on a connection that is kept.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cri::fake::FakeRuntime;
use harness::time;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::config::{Authorization, ServerSettings};
use crate::events::EventRecorder;
use crate::ids::ObjectName;
use crate::podcache::PodCache;
use crate::podworker::PodWorkers;
use crate::probe::ProbeManager;
use crate::server::{PodView, ServerState, bind};
use crate::tasks::TaskRestarts;

#[derive(Debug)]
struct NoPods;

impl PodView for NoPods {
    fn pods(&self) -> Vec<Arc<Pod>> {
        Vec::new()
    }

    fn pod(&self, _: &ObjectName) -> Option<Arc<Pod>> {
        None
    }
}

/// An authority with the certificates of a server and of its client, in files.
struct Pki {
    dir: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Self { dir: tempfile::tempdir().unwrap(), authority };
        std::fs::write(pki.path("ca"), pki.authority.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(pki.path("crt"), params.signed_by(&key, &pki.authority).unwrap().pem()).unwrap();
        std::fs::write(pki.path("key"), key.serialize_pem()).unwrap();
        pki
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn settings(&self) -> ServerSettings {
        ServerSettings {
            enabled: true,
            address: [127, 0, 0, 1].into(),
            port: 0,
            cert_file: Some(self.path("crt")),
            key_file: Some(self.path("key")),
            client_ca_file: Some(self.path("ca")),
            authorization: Authorization::AlwaysAllow,
            tls_bootstrap: false,
            tls_min_version: Default::default(),
            cipher_suites: Vec::new(),
            webhook_authentication: false,
            anonymous: true,
        }
    }

    /// A client whose certificate ends after `life`.
    fn client(&self, life: Duration) -> TlsConnector {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver-kubelet-client");
        params.not_after = (SystemTime::now() + life).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca")).unwrap()).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let config = builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap();
        TlsConnector::from(Arc::new(config))
    }
}

fn state() -> ServerState {
    let runtime = FakeRuntime::new();
    let events = EventRecorder::channel(1).0;
    let probes = ProbeManager::new(runtime.clone(), events, Arc::new(|_, _| {}), "", CancellationToken::new());
    ServerState {
        node_name: "n1".to_owned(),
        view: Arc::new(NoPods),
        cache: Arc::new(PodCache::new()),
        runtime,
        client: None,
        probes,
        workers: PodWorkers::new(),
        log_dir: "/nonexistent".into(),
        root_dir: "/nonexistent".into(),
        configz: Arc::new(serde_json::json!({})),
        restarts: TaskRestarts::default(),
    }
}

async fn ask(connection: &mut SendRequest<Empty<Bytes>>) -> StatusCode {
    connection.ready().await.unwrap();
    let request = Request::get("/pods").header("host", "n1").body(Empty::new()).unwrap();
    let answer = connection.send_request(request).await.unwrap();
    let status = answer.status();
    // The connection is free again when the answer was read.
    http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    status
}

/// A connection of a client whose certificate ends after `life`.
async fn connect(pki: &Pki, port: u16, life: Duration) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = pki.client(life).connect(name, stream).await.unwrap();
    let (connection, work) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    (connection, tokio::spawn(work))
}

/// Upstream verifies a client's certificate for each request (its x509 authenticator), not for each connection.
#[tokio::test]
async fn a_certificate_that_ends_ends_the_rights_of_its_connection() {
    let pki = Pki::new();
    let server = bind(&pki.settings(), &[]).await.unwrap();
    let port = server.port();
    let token = CancellationToken::new();
    let serving = tokio::spawn(server.serve(state(), token.clone()));
    // A machine that is slow needs one that lives longer, to be served at all.
    let mut life = Duration::from_secs(2);
    let (mut connection, work) = loop {
        life *= 2;
        let (mut connection, work) = connect(&pki, port, life).await;
        if ask(&mut connection).await == StatusCode::OK {
            break (connection, work);
        }
    };
    let refused = async || ask(&mut connection).await == StatusCode::UNAUTHORIZED;
    time::eventually_true("the certificate's end", refused).await.unwrap();
    drop(connection);
    work.await.unwrap().unwrap();
    token.cancel();
    serving.await.unwrap();
}
