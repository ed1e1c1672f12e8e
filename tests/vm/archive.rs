//! An initramfs as the kernel reads it: cpio's "newc" format, not packed, since
//! unpacking would cost an emulated processor more than copying.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// An archive being written. Parent directories come by themselves, and the
/// first entry of a name wins.
#[derive(Debug)]
pub struct Archive {
    out: BufWriter<File>,
    names: BTreeSet<String>,
}

impl Archive {
    /// Begins an archive in a new file.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { out: BufWriter::new(File::create(path)?), names: BTreeSet::new() })
    }

    /// A file with its permissions.
    pub fn file(&mut self, name: &str, permissions: u32, data: &[u8]) -> io::Result<()> {
        self.entry(name, REGULAR | permissions, data, (0, 0))
    }

    /// A symbolic link.
    pub fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(name, SYMLINK | 0o777, target.as_bytes(), (0, 0))
    }

    /// An empty directory.
    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, DIRECTORY | 0o755, &[], (0, 0))
    }

    /// A character device by major and minor number.
    pub fn device(&mut self, name: &str, number: (u32, u32)) -> io::Result<()> {
        self.entry(name, CHARACTER | 0o600, &[], number)
    }

    /// Writes the end of the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.put("TRAILER!!!", 0, &[], (0, 0))?;
        self.out.flush()
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8], device: (u32, u32)) -> io::Result<()> {
        let name = name.trim_matches('/');
        if name.is_empty() || !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent)?;
        }
        self.put(name, mode, data, device)
    }

    fn put(&mut self, name: &str, mode: u32, data: &[u8], (major, minor): (u32, u32)) -> io::Result<()> {
        let size = u32::try_from(data.len()).map_err(io::Error::other)?;
        let length = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // ino, mode, uid, gid, nlink, mtime, filesize, two devices, namesize, check.
        // Numbers of inodes matter for hard links only, of which there are none.
        let fields = [0, mode, 0, 0, 1, 0, size, 0, 0, major, minor, length, 0];
        write!(self.out, "070701")?;
        for field in fields {
            write!(self.out, "{field:08X}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(110 + name.len() + 1)?;
        self.out.write_all(data)?;
        self.pad(data.len())
    }

    /// Everything begins at a multiple of four.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..(4 - written % 4) % 4])
    }
}
