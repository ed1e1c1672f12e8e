//! A real etcd on loopback for the time of a test.

use std::process::Stdio;
use std::time::Duration;

/// A running etcd; killed and removed on drop.
pub struct Etcd {
    process: std::process::Child,
    port: u16,
    scheme: &'static str,
    _directory: tempfile::TempDir,
}

impl Etcd {
    /// Starts `etcd` from PATH; a missing one fails the test.
    pub async fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), "http", &[]).await
    }

    /// The same over TLS, for clients that show a certificate of `ca`.
    pub async fn start_tls(ca: &Authority) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = ca.issue();
        let file = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (ca, certificate, key) = (file("ca", &ca.pem), file("certificate", &certificate), file("key", &key));
        let tls = ["--client-cert-auth", "--trusted-ca-file", &ca, "--cert-file", &certificate, "--key-file", &key];
        Self::start_with(directory, "https", &tls).await
    }

    async fn start_with(directory: tempfile::TempDir, scheme: &'static str, tls: &[&str]) -> Self {
        let [port, peer] = free_ports();
        let client = format!("{scheme}://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer}");
        let process = std::process::Command::new("etcd")
            .args(["--data-dir", directory.path().join("data").to_str().unwrap()])
            .args(tls)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap", "--log-level", "error"])
            .env_remove("ETCD_LISTEN_CLIENT_URLS")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd must be installed to test the etcd backend");
        let etcd = Self { process, port, scheme, _directory: directory };
        let ready = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready).await.expect("etcd listens within 20 s");
        etcd
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It is our child: already gone is the only way this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// A CA for the time of a test.
pub struct Authority {
    pub pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A certificate for servers on loopback and for clients, and its key.
    pub fn issue(&self) -> (String, String) {
        use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ServerAuth, ClientAuth];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}
