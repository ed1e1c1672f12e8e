//! A real etcd on loopback for the time of a test.

use std::process::Stdio;
use std::time::Duration;

/// A running etcd; killed and removed on drop.
pub struct Etcd {
    process: std::process::Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Etcd {
    /// Starts `etcd` from PATH; a missing one fails the test.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [port, peer] = free_ports();
        let client = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer}");
        let process = std::process::Command::new("etcd")
            .args(["--data-dir", directory.path().to_str().unwrap()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap", "--log-level", "error"])
            .env_remove("ETCD_LISTEN_CLIENT_URLS")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd must be installed to test the etcd backend");
        let etcd = Self { process, port, _directory: directory };
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
        format!("http://127.0.0.1:{}", self.port)
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
