//! subPath: one part of a volume, bound so that no link can lead outside.
//!
//! Every step is resolved by the kernel beneath an open descriptor of the
//! volume's root; what was opened is bound through that descriptor, so nothing
//! swapped in between matters.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, fstat, mkdirat};

use super::mounts;

/// Checks a subPath as written: relative and without `..`.
pub fn check(sub_path: &str) -> Result<(), String> {
    if sub_path.starts_with('/') {
        return Err(format!("subPath {sub_path:?} must be a relative path"));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(format!("subPath {sub_path:?} must not contain \"..\""));
    }
    Ok(())
}

/// Expands `$(NAME)` of a subPathExpr; an unknown name is an error. `$$` is `$`.
pub fn expand(expression: &str, env: &[(String, String)]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = expression;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = rest.strip_prefix('(').and_then(|tail| tail.split_once(')')) {
            let value = env.iter().rev().find(|(key, _)| key == name);
            let (_, value) = value.ok_or_else(|| format!("missing value for {name:?}"))?;
            out.push_str(value);
            rest = tail;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn describe(sub_path: &str) -> impl Fn(Errno) -> String {
    move |errno| match errno {
        Errno::EXDEV | Errno::ELOOP => format!("subPath {sub_path:?} is outside the volume"),
        other => format!("open subPath {sub_path:?}: {other}"),
    }
}

fn open_beneath(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(root, path, how) {
            // The tree changed while it was walked.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// Opens a part of a volume, making missing directories with the root's mode.
fn open_or_create(volume: &Path, sub_path: &str) -> Result<OwnedFd, String> {
    let inspect = |errno: Errno| format!("open volume {}: {errno}", volume.display());
    let root = open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(inspect)?;
    match open_beneath(&root, sub_path) {
        Err(Errno::ENOENT) => {}
        done => return done.map_err(describe(sub_path)),
    }
    let bits = Mode::from_bits_truncate(fstat(&root).map_err(inspect)?.st_mode & 0o7777);
    let mut done = String::from(".");
    for part in sub_path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        let parent = open_beneath(&root, &done).map_err(describe(sub_path))?;
        match mkdirat(&parent, part, bits) {
            Ok(()) => {
                // The umask took its part; the new name cannot be a link's.
                let made = open_beneath(&parent, part).map_err(describe(sub_path))?;
                let permissions = std::os::unix::fs::PermissionsExt::from_mode(bits.bits());
                let by_descriptor = format!("/proc/self/fd/{}", made.as_raw_fd());
                fs::set_permissions(by_descriptor, permissions)
                    .map_err(|error| format!("set mode of subPath {sub_path:?}: {error}"))?;
            }
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(format!("create subPath {sub_path:?}: {errno}")),
        }
        done.push('/');
        done.push_str(part);
    }
    open_beneath(&root, sub_path).map_err(describe(sub_path))
}

/// Binds `sub_path` of `volume` at `target` (made below its existing parent) and
/// returns `target`. A right mount that stands already is kept, a stale one
/// replaced.
pub fn bind(volume: &Path, sub_path: &str, target: &Path) -> Result<PathBuf, String> {
    let source = open_or_create(volume, sub_path)?;
    let stat = fstat(&source).map_err(|errno| format!("inspect subPath {sub_path:?}: {errno}"))?;
    let fail = |error: io::Error| format!("bind subPath {sub_path:?} at {}: {error}", target.display());
    if !mounts::mounts_below(target).map_err(fail)?.is_empty() {
        let there = fs::symlink_metadata(target).map_err(fail)?;
        if (there.dev(), there.ino()) == (stat.st_dev, stat.st_ino) {
            return Ok(target.to_owned());
        }
        mounts::unmount(target).map_err(fail)?;
    }
    let is_dir = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    make_target(target, is_dir).map_err(fail)?;
    let by_descriptor = format!("/proc/self/fd/{}", source.as_raw_fd());
    mount(Some(by_descriptor.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| fail(errno.into()))?;
    Ok(target.to_owned())
}

fn make_target(target: &Path, is_dir: bool) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_dir() == is_dir => return Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir(target)?,
        Ok(_) => fs::remove_file(target)?,
        Err(_) => {}
    }
    if is_dir { fs::create_dir(target) } else { File::create(target).map(drop) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn expressions() {
        let env = [("A".to_owned(), "x".to_owned()), ("A".to_owned(), "y".to_owned())];
        for (text, expect) in [
            ("plain", Ok("plain")),
            ("$(A)/b", Ok("y/b")),
            ("$$(A)", Ok("$(A)")),
            ("a$", Ok("a$")),
            ("$(A", Ok("$(A")),
            ("$(B)", Err("missing value for \"B\"")),
        ] {
            assert_eq!(expand(text, &env).as_deref().map_err(String::as_str), expect, "{text}");
        }
        assert!(check("a/b").is_ok());
        assert!(check("/a").is_err());
        assert!(check("a/../b").is_err());
    }

    #[test]
    fn missing_directories_are_made_with_the_roots_mode() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2777)).unwrap();
        open_or_create(dir.path(), "a/b/c").unwrap();
        let mode = fs::metadata(dir.path().join("a/b/c")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o2777);
    }

    #[test]
    fn links_do_not_lead_outside() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("in")).unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        symlink("/etc", volume.join("absolute")).unwrap();
        symlink("../out", volume.join("up")).unwrap();
        symlink("in", volume.join("fine")).unwrap();
        symlink("loop", volume.join("loop")).unwrap();
        open_or_create(&volume, "fine").unwrap();
        open_or_create(&volume, "fine/new").unwrap();
        for bad in ["absolute", "absolute/passwd", "absolute/made", "up", "up/made", "loop"] {
            let error = open_or_create(&volume, bad).unwrap_err();
            assert!(error.contains("outside the volume"), "{bad}: {error}");
        }
        assert!(!dir.path().join("out/made").exists());
    }
}
