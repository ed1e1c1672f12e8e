//! Who listens on a TCP port: read from /proc, for messages that name the process.

use std::fs;
use std::path::Path;

/// State of a listening socket in /proc/net/tcp.
const LISTEN: &str = "0A";

/// "process 7 (nginx)", for a port that is taken; `None` where it is free.
pub fn holder(port: u16) -> Option<String> {
    holder_by(|| listening_inodes(port), process_of)
}

/// The same, by looks at the sockets and at the processes. A child that has not yet become another program has what
/// its parent had: by the time that the processes are looked at, whoever listened may be gone, and so may its port.
fn holder_by(
    mut sockets: impl FnMut() -> Vec<String>,
    mut process: impl FnMut(&[String]) -> Option<u32>,
) -> Option<String> {
    for _ in 0..2 {
        let inodes = sockets();
        if inodes.is_empty() {
            return None;
        }
        if let Some(pid) = process(&inodes) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return Some(format!("process {pid} ({})", name.trim()));
        }
    }
    // Another PID namespace's processes are hidden.
    (!sockets().is_empty()).then(|| "another process".to_owned())
}

fn listening_inodes(port: u16) -> Vec<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| listening(table, port)).collect()
}

/// Inodes of the sockets that listen on `port`, by a table of the kernel's.
fn listening(table: &str, port: u16) -> Vec<String> {
    let wanted = format!("{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|row| row.get(3) == Some(&LISTEN));
    let rows = rows.filter(|row| row[1].rsplit(':').next() == Some(wanted.as_str()));
    rows.filter_map(|row| row.get(9).map(|inode| (*inode).to_owned())).collect()
}

fn process_of(inodes: &[String]) -> Option<u32> {
    let links: Vec<_> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let has = |pid: &u32| {
        let files = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).into_iter().flatten().flatten();
        let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
        targets.any(|target| links.iter().any(|link| target == Path::new(link)))
    };
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(has)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::IoSlice;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use anyhow::ensure;
    use harness::time;
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    /// Children of other tests have, until they become another program, what this process has open.
    fn eventually(what: &str, port: u16, is: impl Fn(Option<&str>) -> bool) {
        let look = || {
            let holder = holder(port);
            ensure!(is(holder.as_deref()), "{holder:?}");
            Ok(())
        };
        time::until(what, look).unwrap();
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = format!("process {} (", std::process::id());
        eventually("its own name", port, |holder| holder.is_some_and(|holder| holder.starts_with(&own)));
        drop(listener);
        eventually("a free port", port, |holder| holder.is_none());
    }

    /// In a message that nobody has received, a socket listens and no process has it.
    #[test]
    fn a_port_is_taken_whoever_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (near, far) = UnixStream::pair().unwrap();
        let descriptors = [listener.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(near.as_raw_fd(), &[IoSlice::new(b"x")], &message, MsgFlags::empty(), None).unwrap();
        drop(listener);
        eventually("nobody's name", port, |holder| holder == Some("another process"));
        drop(far);
        eventually("a free port", port, |holder| holder.is_none());
    }

    #[test]
    fn who_goes_while_being_looked_for_has_no_port() {
        let (gone, next): (&[&str], &[&str]) = (&[], &["8"]);
        let own = std::process::id();
        let named = fs::read_to_string("/proc/self/comm").unwrap();
        let named = format!("process {own} ({})", named.trim());
        let unknown = "another process".to_owned();
        // What each look at the sockets shows; a process has only the last of these.
        for (looks, expected) in [
            (vec![gone], None),
            (vec![&["7"], gone], None),
            (vec![&["7"], &["7"], gone], None),
            (vec![&["7"], next], Some(named.clone())),
            (vec![&["7"], &["7"], &["7"]], Some(unknown)),
            (vec![next], Some(named)),
        ] {
            let mut left = looks.iter();
            let sockets = || left.next().unwrap().iter().map(|inode| (*inode).to_owned()).collect();
            let found = holder_by(sockets, |inodes| (inodes == next).then_some(own));
            assert_eq!((found, left.len()), (expected, 0), "{looks:?}");
        }
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 00000000:280A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0\n\
            1: 0100007F:280A 0100007F:1111 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0\n\
            2: 00000000:280B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0\n\
            short\n";
        assert_eq!(listening(table, 0x280A), ["111"]);
        assert!(listening("", 1).is_empty());
    }
}
