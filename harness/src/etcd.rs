//! A real etcd on loopback, for tests and benchmarks.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::net::own_address;
use crate::{sys, time};

/// A running etcd; killed on drop.
#[derive(Debug)]
pub struct Etcd {
    process: Child,
    url: String,
}

impl Etcd {
    /// Starts `etcd` from PATH with its data below `directory`.
    ///
    /// # Errors
    /// When there is none, or it does not listen.
    pub async fn start(directory: &Path) -> Result<Self> {
        Self::start_with(directory, ("http", own_address()), &[]).await
    }

    /// The same at an address of the loopback, with further arguments.
    ///
    /// # Errors
    /// When there is none, or it does not listen.
    pub async fn start_with(
        directory: &Path,
        (scheme, address): (&'static str, Ipv4Addr),
        arguments: &[&str],
    ) -> Result<Self> {
        let url = format!("{scheme}://{address}:2379");
        let peer = format!("http://{address}:2380");
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(directory.join("etcd"))
            .args(arguments)
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap", "--log-level", "error"])
            .env_remove("ETCD_LISTEN_CLIENT_URLS")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = sys::end_with_us(&mut command).spawn().context("start etcd, which must be installed")?;
        let etcd = Self { process, url };
        time::eventually("etcd", async || Ok(tokio::net::TcpStream::connect((address, 2379)).await?)).await?;
        Ok(etcd)
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It is our child: already gone is the only way this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
