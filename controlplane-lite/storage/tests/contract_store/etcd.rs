//! A real etcd on loopback for the time of a test.

use std::net::Ipv4Addr;
use std::process::Stdio;

use harness::net::own_address;
use harness::{sys, time};

/// A running etcd; killed and removed on drop.
pub struct Etcd {
    process: std::process::Child,
    address: Ipv4Addr,
    url: String,
    _directory: tempfile::TempDir,
}

impl Etcd {
    /// Starts `etcd` from PATH; a missing one fails the test.
    pub async fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), ("http", own_address()), &[]).await
    }

    /// The same over TLS, for clients that show a certificate of `ca`.
    pub async fn start_tls(ca: &Authority) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = own_address();
        let (certificate, key) = ca.issue(address);
        let file = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (ca, certificate, key) = (file("ca", &ca.pem), file("certificate", &certificate), file("key", &key));
        let tls = ["--client-cert-auth", "--trusted-ca-file", &ca, "--cert-file", &certificate, "--key-file", &key];
        Self::start_with(directory, ("https", address), &tls).await
    }

    async fn start_with(
        directory: tempfile::TempDir,
        (scheme, address): (&'static str, Ipv4Addr),
        tls: &[&str],
    ) -> Self {
        let client = format!("{scheme}://{address}:2379");
        let peer = format!("http://{address}:2380");
        let mut command = std::process::Command::new("etcd");
        command
            .args(["--data-dir", directory.path().join("data").to_str().unwrap()])
            .args(tls)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap", "--log-level", "error"])
            .env_remove("ETCD_LISTEN_CLIENT_URLS")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = sys::end_with_us(&mut command).spawn();
        let process = process.expect("etcd must be installed to test the etcd backend");
        let etcd = Self { process, address, url: client, _directory: directory };
        let ready = async || Ok(tokio::net::TcpStream::connect((address, 2379)).await?);
        time::eventually("etcd", ready).await.unwrap();
        etcd
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Its address, which its certificate has to name.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It is our child: already gone is the only way this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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

    /// A certificate for a server at this address and for clients, and its key.
    pub fn issue(&self, address: Ipv4Addr) -> (String, String) {
        use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new([address.to_string()]).unwrap();
        params.extended_key_usages = vec![ServerAuth, ClientAuth];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}
