//! The node's resolver configuration: which name servers it names now. It is looked at again
//! whenever its file changed, since DHCP, a VPN or a late start of the network rewrites it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where systemd-resolved's stub listens: on loopback, and so on the node alone.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
/// The name servers that the stub itself asks.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// Tells whether a file is the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let modified = (meta.mtime(), meta.mtime_nsec());
        Some(Self { device: meta.dev(), inode: meta.ino(), size: meta.size(), modified })
    }
}

/// A resolver configuration that is followed.
#[derive(Debug)]
pub struct ResolvConf {
    path: PathBuf,
    behind_stub: PathBuf,
    /// What both files looked like when they were read; `None` before the first time.
    seen: Option<[Option<Stamp>; 2]>,
}

impl ResolvConf {
    /// Follows the file at `path`, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, behind_stub: BEHIND_STUB.into(), seen: None }
    }

    /// The name servers, if they may have changed since the last call. Looks at files only, which
    /// are the kernel's to keep in memory: quick enough to be asked before each question.
    pub fn changed(&mut self) -> Option<io::Result<Vec<IpAddr>>> {
        let seen = [Stamp::of(&self.path), Stamp::of(&self.behind_stub)];
        if self.seen.replace(seen) == Some(seen) {
            return None;
        }
        let read = fs::read_to_string(&self.path).map(|text| {
            let servers = name_servers(&text);
            // A node in a network namespace of its own cannot reach the stub, and upstream's tools
            // give what is behind it, too.
            match fs::read_to_string(&self.behind_stub) {
                Ok(behind) if servers.iter().all(|server| *server == STUB) && !servers.is_empty() => {
                    name_servers(&behind)
                }
                _ => servers,
            }
        });
        Some(read)
    }
}

/// The name servers of a resolv.conf; anything else is skipped.
pub(crate) fn name_servers(text: &str) -> Vec<IpAddr> {
    let value = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten().and_then(|word| word.parse().ok())
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_name_servers_are_read() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 192.168.1.1 \n\tnameserver\t::1\nnameserver junk\n";
        assert_eq!(name_servers(text), ips(&["192.168.1.1", "::1"]));
    }

    #[test]
    fn a_file_is_read_again_when_it_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, behind) = (directory.path().join("resolv.conf"), directory.path().join("behind"));
        let mut conf = ResolvConf { behind_stub: behind.clone(), ..ResolvConf::new(path.clone()) };
        assert!(conf.changed().unwrap().is_err(), "not there yet");
        assert!(conf.changed().is_none());
        fs::write(&path, "").unwrap();
        assert_eq!(conf.changed().unwrap().unwrap(), ips(&[]), "empty at boot");
        assert!(conf.changed().is_none());
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(conf.changed().unwrap().unwrap(), ips(&["192.0.2.1"]));
        let other = directory.path().join("new");
        fs::write(&other, "nameserver 192.0.2.2\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(conf.changed().unwrap().unwrap(), ips(&["192.0.2.2"]), "replaced, as most programs do");
        assert!(conf.changed().is_none());
    }

    #[test]
    fn behind_the_stub_stand_the_real_servers() {
        let directory = tempfile::tempdir().unwrap();
        let (path, behind) = (directory.path().join("resolv.conf"), directory.path().join("behind"));
        let mut conf = ResolvConf { behind_stub: behind.clone(), ..ResolvConf::new(path.clone()) };
        fs::write(&path, "nameserver 127.0.0.53\noptions edns0\n").unwrap();
        assert_eq!(conf.changed().unwrap().unwrap(), ips(&["127.0.0.53"]), "all there is");
        fs::write(&behind, "nameserver 192.0.2.9\n").unwrap();
        assert_eq!(conf.changed().unwrap().unwrap(), ips(&["192.0.2.9"]));
        fs::write(&path, "nameserver 127.0.0.53\nnameserver 192.0.2.7\n").unwrap();
        assert_eq!(conf.changed().unwrap().unwrap(), ips(&["127.0.0.53", "192.0.2.7"]), "somebody wrote it himself");
    }
}
