//! A real etcd for the time of a test, with and without TLS.

use std::net::Ipv4Addr;

use harness::net::own_address;

/// A running etcd; killed and removed on drop.
pub struct Etcd {
    process: harness::etcd::Etcd,
    address: Ipv4Addr,
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

    async fn start_with(directory: tempfile::TempDir, at: (&'static str, Ipv4Addr), tls: &[&str]) -> Self {
        let process = harness::etcd::Etcd::start_with(directory.path(), at, tls).await.unwrap();
        Self { process, address: at.1, _directory: directory }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        self.process.url().to_owned()
    }

    /// Its address, which its certificate has to name.
    pub fn address(&self) -> Ipv4Addr {
        self.address
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
