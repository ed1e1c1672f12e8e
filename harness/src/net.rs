//! Connections from inside network namespaces.

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::time;

/// A network namespace by path.
#[derive(Clone, Debug)]
pub struct Namespace(PathBuf);

impl Namespace {
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs `work` on a thread inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = File::open(&self.0).with_context(|| format!("open {}", self.0.display()))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).context("enter the namespace")?;
                work()
            });
            inside.join().map_err(|_| anyhow!("the thread inside the namespace panicked"))?
        })
    }

    /// One HTTP request on a connection of its own; the answer's body.
    pub fn get(&self, address: SocketAddr, path: &str) -> Result<String> {
        self.run(|| http_get(address, path))
    }

    /// How often each answer came in `count` requests, each on its own connection.
    pub fn tally(&self, address: SocketAddr, path: &str, count: usize) -> Result<BTreeMap<String, usize>> {
        self.run(|| {
            let mut answers = BTreeMap::new();
            for _ in 0..count {
                *answers.entry(http_get(address, path)?).or_default() += 1;
            }
            Ok(answers)
        })
    }
}

/// Asks once over an existing socket, so that its connection tracking entry is used.
pub fn udp_ask(socket: &UdpSocket, text: &str) -> Result<String> {
    socket.set_read_timeout(Some(time::attempt() / 4))?;
    socket.send(text.as_bytes())?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// GET over HTTP/1.0 from the current namespace.
pub fn http_get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream =
        TcpStream::connect_timeout(&address, time::attempt()).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(time::attempt()))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read from {address}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP answer: {answer:?}"))?;
    if !head.lines().next().unwrap_or_default().contains(" 200 ") {
        bail!("{address}{path}: {head}");
    }
    Ok(body.trim().to_owned())
}
