//! The one way to read a file whole. A pod may have made of it what it likes: far longer than memory is, or a pipe that
//! nobody writes to. Blocking.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

/// More than any file of the kernel, or of the node's administrator, has.
pub const MUCH: u64 = 64 << 20;

/// The bytes of a file that has no more than `limit` of them.
pub fn bytes(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes"));
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.len() > limit {
        return Err(too_large());
    }
    // It may grow meanwhile, and the kernel's own files do not say how long they are.
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) { Ok(bytes) } else { Err(too_large()) }
}

/// The same as text.
pub fn text(path: impl AsRef<Path>, limit: u64) -> io::Result<String> {
    String::from_utf8(bytes(path, limit)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_so_much_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, sparse, pipe) = (dir.path().join("f"), dir.path().join("s"), dir.path().join("p"));
        std::fs::write(&file, "abc").unwrap();
        std::fs::File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(bytes(&file, 3).unwrap(), b"abc");
        let kind = |path: &Path, limit| bytes(path, limit).unwrap_err().kind();
        assert_eq!(kind(&file, 2), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(&sparse, MUCH), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(Path::new("/dev/zero"), 10), io::ErrorKind::FileTooLarge, "it does not say how long it is");
        assert_eq!(bytes(&pipe, 3).unwrap(), b"", "nobody writes to it");
        assert_eq!(kind(&dir.path().join("none"), 3), io::ErrorKind::NotFound);
        assert!(text("/proc/meminfo", MUCH).unwrap().contains("MemTotal"));
        std::fs::write(&file, b"\xff").unwrap();
        assert_eq!(text(&file, 1).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
