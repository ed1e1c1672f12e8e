//! Replaces the files of a volume all at once; upstream's `AtomicWriter`
//! (pkg/volume/util/atomic_writer.go).
//!
//! The files live in a time-stamped directory; `..data` points at the current
//! one, and every visible name is a link through `..data`. A rename of `..data`
//! is the moment of change, so a reader sees the old set or the new one. Dying
//! at any line leaves the old set visible; the next call removes the rest, before it needs room for
//! its own. A call that fails, on a full disk for instance, removes what it wrote.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::payload::{FileProjection, Payload};
use crate::read;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// A step that failed, with the path it was about.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}: {source}", path.display())]
pub struct AtomicError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn at<T>(step: &'static str, path: &Path, result: io::Result<T>) -> Result<T, AtomicError> {
    result.map_err(|source| AtomicError { step, path: path.to_owned(), source })
}

/// Makes `dir` show exactly `payload`; `group` owns everything when given.
/// Returns whether anything changed.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> Result<bool, AtomicError> {
    let current = fs::read_link(dir.join(DATA)).ok();
    if current.as_ref().is_some_and(|link| shows(&dir.join(link), payload, group)) && links_complete(dir, payload) {
        return Ok(false);
    }
    remove_leftovers(dir, current.as_deref())?;
    let name = format!("..{}.{}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"), rand::random::<u32>());
    let fresh = dir.join(&name);
    let shown = write_all(&fresh, payload, group).and_then(|()| show(dir, &name, payload));
    let is_shown = fs::read_link(dir.join(DATA)).is_ok_and(|link| link == Path::new(&name));
    if shown.is_err() && !is_shown {
        // What cannot be removed either the next call tries again.
        let _ = cri::dirtree::remove(&fresh);
    }
    shown.map(|()| true)
}

/// Writes a whole set to a new directory, which nobody sees yet.
fn write_all(fresh: &Path, payload: &Payload, group: Option<u32>) -> Result<(), AtomicError> {
    at("create", fresh, fs::create_dir(fresh))?;
    at("set mode of", fresh, set_mode_and_group(fresh, 0o755, group, true))?;
    payload.iter().try_for_each(|(path, file)| write_file(fresh, path, file, group))
}

/// Shows the set in the directory `name`, and then removes the old one.
fn show(dir: &Path, name: &str, payload: &Payload) -> Result<(), AtomicError> {
    let wanted = top_names(payload);
    for top in &wanted {
        let link = dir.join(top);
        if fs::symlink_metadata(&link).is_err() {
            at("link", &link, symlink(Path::new(DATA).join(top), &link))?;
        }
    }
    let new = dir.join(DATA_NEW);
    if fs::symlink_metadata(&new).is_ok() {
        at("remove", &new, fs::remove_file(&new))?;
    }
    at("link", &new, symlink(name, &new))?;
    let data = dir.join(DATA);
    at("swap", &data, fs::rename(&new, &data))?;
    sweep(dir, name, &wanted)
}

/// Removes what writers that died left: everything of ours but the set that is shown.
fn remove_leftovers(dir: &Path, current: Option<&Path>) -> Result<(), AtomicError> {
    for entry in at("list", dir, fs::read_dir(dir))? {
        let entry = at("list", dir, entry)?;
        let name = entry.file_name();
        let left = name.as_encoded_bytes().starts_with(b"..") && name != DATA && Some(Path::new(&name)) != current;
        if left {
            remove(&entry)?;
        }
    }
    Ok(())
}

fn remove(entry: &fs::DirEntry) -> Result<(), AtomicError> {
    let path = entry.path();
    let is_dir = at("inspect", &path, entry.file_type())?.is_dir();
    at("remove", &path, if is_dir { cri::dirtree::remove(&path) } else { fs::remove_file(&path) })
}

/// Whether a set of files was written here before.
pub fn is_written(dir: &Path) -> bool {
    fs::metadata(dir.join(DATA)).is_ok_and(|meta| meta.is_dir())
}

fn set_mode_and_group(path: &Path, mode: u32, group: Option<u32>, is_dir: bool) -> io::Result<()> {
    let Some(group) = group else { return fs::set_permissions(path, Permissions::from_mode(mode)) };
    chown(path, None, Some(group))?;
    let mode = if is_dir { mode | 0o2550 } else { file_mode(mode, Some(group)) };
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A file's bits: with `fsGroup`, the group may read.
fn file_mode(mode: u32, group: Option<u32>) -> u32 {
    if group.is_some() { mode | 0o440 } else { mode }
}

fn write_file(root: &Path, path: &str, file: &FileProjection, group: Option<u32>) -> Result<(), AtomicError> {
    let full = root.join(path);
    let mut parent = root.to_owned();
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    for part in &parts[..parts.len().saturating_sub(1)] {
        parent.push(part);
        match fs::create_dir(&parent) {
            Ok(()) => at("set mode of", &parent, set_mode_and_group(&parent, 0o755, group, true))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return at("create", &parent, Err(error)),
        }
    }
    let mut out = at("create", &full, File::create_new(&full))?;
    at("write", &full, out.write_all(&file.data))?;
    if let Some(owner) = file.owner {
        at("set owner of", &full, chown(&full, Some(owner), None))?;
    }
    // Explicitly, since the umask took its part at creation.
    at("set mode of", &full, set_mode_and_group(&full, file.mode, group, false))
}

fn top_names(payload: &Payload) -> BTreeSet<OsString> {
    let top = |path: &String| path.split('/').find(|p| !p.is_empty() && *p != ".").map(OsString::from);
    payload.keys().filter_map(top).collect()
}

fn links_complete(dir: &Path, payload: &Payload) -> bool {
    top_names(payload).iter().all(|top| fs::symlink_metadata(dir.join(top)).is_ok())
}

/// Whether a directory holds the payload's files with their content and mode,
/// and no others.
fn shows(dir: &Path, payload: &Payload, group: Option<u32>) -> bool {
    if files_in(dir, payload.len()).is_none_or(|found| found != payload.len()) {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let full = dir.join(path);
        let mode_fits = fs::symlink_metadata(&full)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o7777 == file_mode(file.mode, group));
        mode_fits && same_content(&full, &file.data)
    })
}

fn same_content(path: &Path, data: &[u8]) -> bool {
    read::bytes(path, data.len() as u64).is_ok_and(|content| content == data)
}

/// How many files there are below a directory; stops soon after `enough`.
fn files_in(dir: &Path, enough: usize) -> Option<usize> {
    let (mut found, mut todo) = (0, vec![dir.to_owned()]);
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).ok()? {
            let entry = entry.ok()?;
            match entry.file_type().ok()?.is_dir() {
                true => todo.push(entry.path()),
                false => found += 1,
            }
        }
        if found > enough {
            break;
        }
    }
    Some(found)
}

/// Removes what the new set does not show: links of vanished names, old
/// directories, leftovers of a write that died.
fn sweep(dir: &Path, current: &str, wanted: &BTreeSet<OsString>) -> Result<(), AtomicError> {
    for entry in at("list", dir, fs::read_dir(dir))? {
        let entry = at("list", dir, entry)?;
        let name = entry.file_name();
        if name != DATA && name != current && !wanted.contains(&name) {
            remove(&entry)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read as _;

    use super::*;
    use proptest::prelude::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |(path, data, mode): &(&str, &str, u32)| {
            ((*path).to_owned(), FileProjection { data: data.as_bytes().to_vec(), mode: *mode, owner: None })
        };
        files.iter().map(file).collect()
    }

    fn visible(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| !n.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    fn hidden(dir: &Path) -> usize {
        fs::read_dir(dir)
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".."))
            .count()
    }

    #[test]
    fn swaps_whole_sets() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(!is_written(dir));
        assert!(write(dir, &payload(&[("a", "1", 0o644), ("d/e/f", "2", 0o400)]), None).unwrap());
        assert!(is_written(dir));
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("d/e/f")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("d/e/f")).unwrap().permissions().mode() & 0o7777, 0o400);
        assert!(fs::symlink_metadata(dir.join("a")).unwrap().is_symlink());

        let before = fs::read_link(dir.join(DATA)).unwrap();
        assert!(!write(dir, &payload(&[("a", "1", 0o644), ("d/e/f", "2", 0o400)]), None).unwrap(), "nothing changed");
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), before);

        assert!(write(dir, &payload(&[("a", "one", 0o644), ("g", "3", 0o644)]), None).unwrap());
        assert_eq!(visible(dir), ["a", "g"]);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "one");
        assert_eq!(hidden(dir), 2, "one data directory and its link");
    }

    #[test]
    fn an_open_directory_keeps_the_old_set() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1", 0o644)]), None).unwrap();
        let mut old = File::open(dir.path().join("a")).unwrap();
        write(dir.path(), &payload(&[("a", "2", 0o644)]), None).unwrap();
        let mut text = String::new();
        old.read_to_string(&mut text).unwrap();
        assert_eq!(text, "1");
    }

    #[test]
    fn leftovers_of_a_dead_writer_go() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, &payload(&[("a", "1", 0o644)]), None).unwrap();
        fs::create_dir(dir.join("..2020_01_01_00_00_00.1")).unwrap();
        symlink("..2020_01_01_00_00_00.1", dir.join(DATA_NEW)).unwrap();
        symlink("..data/new", dir.join("new")).unwrap();
        assert!(write(dir, &payload(&[("a", "2", 0o644)]), None).unwrap());
        assert_eq!(visible(dir), ["a"]);
        assert_eq!(hidden(dir), 2);
        // A removed link is put back though the data is the same.
        fs::remove_file(dir.join("a")).unwrap();
        assert!(write(dir, &payload(&[("a", "2", 0o644)]), None).unwrap());
        assert_eq!(visible(dir), ["a"]);
    }

    /// A full file system, as a small tmpfs.
    #[test]
    fn a_full_disk_leaves_the_old_set_and_takes_no_more_room() {
        crate::volume::tests::in_mount_namespace(|| async {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            crate::volume::mounts::mount_tmpfs(dir, Some(1 << 20), false).unwrap();
            let half = "x".repeat(600 << 10);
            write(dir, &payload(&[("a", &half, 0o644)]), None).unwrap();
            for _ in 0..3 {
                let error = write(dir, &payload(&[("a", &"y".repeat(600 << 10), 0o644)]), None).unwrap_err();
                assert_eq!(error.source.kind(), io::ErrorKind::StorageFull, "{error}");
                assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), half);
                assert_eq!((visible(dir), hidden(dir)), (vec!["a".to_owned()], 2), "nothing half-written stays");
            }
            assert!(write(dir, &payload(&[("a", "small", 0o644)]), None).unwrap());
            // What a writer that died left must not keep the next from having room.
            fs::create_dir(dir.join("..2020_01_01_00_00_00.1")).unwrap();
            fs::write(dir.join("..2020_01_01_00_00_00.1/a"), &half).unwrap();
            assert!(write(dir, &payload(&[("a", &half, 0o644)]), None).unwrap());
        });
    }

    #[test]
    fn groups_add_bits() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1", 0o600)]), Some(0)).unwrap();
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!write(dir.path(), &payload(&[("a", "1", 0o600)]), Some(0)).unwrap());
    }

    #[test]
    fn a_path_below_a_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(dir.path(), &payload(&[("a", "1", 0o644), ("a/b", "2", 0o644)]), None).unwrap_err();
        assert!(error.to_string().starts_with("create "), "{error}");
        assert!(!is_written(dir.path()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_last_set_is_what_stands(sets in proptest::collection::vec(
            proptest::collection::btree_map("[a-c]/[d-f]|[g-i]", "[a-z]{0,5}", 0..5), 1..5)) {
            let dir = tempfile::tempdir().unwrap();
            for set in &sets {
                let files: Vec<(&str, &str, u32)> = set.iter().map(|(p, d)| (p.as_str(), d.as_str(), 0o644)).collect();
                write(dir.path(), &payload(&files), None).unwrap();
                for (path, data) in set {
                    prop_assert_eq!(&fs::read_to_string(dir.path().join(path)).unwrap(), data);
                }
                let tops = top_names(&payload(&files));
                prop_assert_eq!(visible(dir.path()).len(), tops.len());
            }
        }
    }
}
