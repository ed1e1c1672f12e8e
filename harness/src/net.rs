//! Connections from inside network namespaces, and ports that refuse them.

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::time;

/// A port of the loopback that refuses whoever comes, and that nobody else is given meanwhile: one that
/// was merely free a moment ago may be another test's by now.
#[derive(Debug)]
pub struct ClosedPort {
    socket: OwnedFd,
    number: u16,
}

impl ClosedPort {
    /// Bound, and nobody listens.
    ///
    /// # Errors
    /// When no port is free.
    pub fn tcp() -> Result<Self> {
        Self::bound(SockType::Stream)
    }

    /// Bound, and listening to one peer alone, which is nobody.
    ///
    /// # Errors
    /// When no port is free.
    pub fn udp() -> Result<Self> {
        let port = Self::bound(SockType::Datagram)?;
        socket::connect(port.socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 1))?;
        Ok(port)
    }

    fn bound(kind: SockType) -> Result<Self> {
        let socket = socket::socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
        socket::bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
        let number = socket::getsockname::<SockaddrIn>(socket.as_raw_fd())?.port();
        Ok(Self { socket, number })
    }

    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// An address of the loopback that no other test is given, of this process or another: every port of it is free.
///
/// # Panics
/// When a process has had all of its own.
#[must_use]
pub fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let next = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| next.checked_add(1));
    Ipv4Addr::new(127, high | 0x80, low, next.expect("a process has 254 addresses"))
}

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

    use super::{ClosedPort, own_address};

    #[test]
    fn nobody_else_has_an_own_address() {
        let (one, other) = (own_address(), own_address());
        assert!(one != other && one.is_loopback() && other.is_loopback(), "{one} {other}");
        let _both = [one, other]
            .map(|address| TcpListener::bind((address, 53)).or_else(|_| TcpListener::bind((address, 5353))).unwrap());
    }

    #[test]
    fn closed_ports_refuse_at_once() {
        let closed = ClosedPort::tcp().unwrap();
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, closed.number())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let closed = ClosedPort::udp().unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, closed.number())).unwrap();
        socket.send(b"?").unwrap();
        assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, closed.number())).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    }
}
