//! Trees of directories that containers may have shaped: removing and measuring.
//!
//! A container can nest directories without end, and deeper than a path can
//! say. So nothing here recurses, builds long paths, or holds more than a fixed
//! number of descriptors: of the levels between the root and the present one
//! only the lowest [`MAX_OPEN`] stay open. The others are opened again through
//! `..` on the way back, if that still leads where we came from.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, dup, unlinkat};

/// Levels of a tree that are open at the same time.
const MAX_OPEN: usize = 16;
/// Subdirectories of one level that are remembered at the same time when removing.
const MAX_PENDING: usize = 256;
/// How many of all levels together are remembered when measuring, which finds those again by counting.
const MAX_MEASURED: usize = 1 << 16;
/// Files with several names that are remembered when measuring.
const MAX_LINKED: usize = 1 << 17;
/// How often a directory is gone over that somebody else fills meanwhile.
const MAX_PASSES: u32 = 100;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Device and inode.
type Identity = (u64, u64);

fn identity(stat: &FileStat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// A directory on the way from the root of a tree to where we are.
struct Level {
    dir: Dir,
    id: Identity,
    /// Subdirectories to go into, the present one last.
    pending: Vec<OsString>,
    passes: u32,
    progress: Progress,
}

/// How far a level is measured, by the places of its entries in the listing.
#[derive(Clone, Default)]
struct Progress {
    /// Entries before this one are counted.
    counted: usize,
    /// Subdirectories before this one were gone into.
    entered: usize,
    /// Subdirectories to go into, with their places, and whether there may be more.
    pending: VecDeque<(usize, OsString)>,
    more: bool,
}

impl Progress {
    /// The next subdirectory to go into. What it was remembered in does not stay.
    fn take_next(&mut self) -> Option<OsString> {
        let (place, name) = self.pending.pop_front()?;
        self.entered = place + 1;
        if self.pending.capacity() > 2 * self.pending.len() {
            self.pending.shrink_to_fit();
        }
        Some(name)
    }

    /// Forgets names; they are found again by their places.
    fn forget(&mut self) {
        self.more |= !self.pending.is_empty();
        self.pending = VecDeque::new();
    }
}

impl Level {
    fn new(fd: OwnedFd) -> nix::Result<Self> {
        let id = identity(&fstat(&fd)?);
        Ok(Self { dir: Dir::from_fd(fd)?, id, pending: Vec::new(), passes: 0, progress: Progress::default() })
    }

    /// Opens a directory that is no link and on its parent's file system.
    fn below(parent: impl AsFd, name: &OsStr) -> nix::Result<Self> {
        let resolve = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS;
        Self::new(openat2(parent, name, OpenHow::new().flags(DIRECTORY).resolve(resolve))?)
    }
}

/// What a level that was closed for the lack of room is to have again.
struct Closed {
    id: Identity,
    progress: Progress,
}

/// The levels from the root of a tree to where we are.
#[derive(Default)]
struct Descent {
    closed: Vec<Closed>,
    open: VecDeque<Level>,
}

impl Descent {
    /// Goes down one level. What is being removed is found again by looking: a level that is closed keeps its progress
    /// in being measured alone.
    fn push(&mut self, level: Level) {
        self.open.push_back(level);
        if self.open.len() > MAX_OPEN
            && let Some(top) = self.open.pop_front()
        {
            self.closed.push(Closed { id: top.id, progress: top.progress });
        }
    }

    /// Goes up one level; returns whether the parent had to be opened again.
    fn pop(&mut self) -> nix::Result<bool> {
        let Some(left) = self.open.pop_back() else { return Ok(false) };
        if !self.open.is_empty() {
            return Ok(false);
        }
        let Some(closed) = self.closed.pop() else { return Ok(false) };
        let fd = openat(&left.dir, "..", DIRECTORY, Mode::empty())?;
        let mut parent = Level::new(fd)?;
        if parent.id != closed.id {
            // Moved elsewhere meanwhile.
            return Err(Errno::ESTALE);
        }
        parent.progress = closed.progress;
        self.open.push_back(parent);
        Ok(true)
    }

    /// What is known of each level in being measured.
    fn progress(&mut self) -> impl Iterator<Item = &mut Progress> {
        let closed = self.closed.iter_mut().map(|level| &mut level.progress);
        closed.chain(self.open.iter_mut().map(|level| &mut level.progress))
    }
}

/// Removes a tree without ever entering a mount or following a link, whatever
/// changes meanwhile. Absent is success.
pub fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("the root cannot be removed"));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = match open(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    remove_in(parent, name)
}

/// The same of the tree of that name in a directory that is open.
pub fn remove_in(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    let mut descent = Descent::default();
    match enter(&parent, name)? {
        Some(root) => descent.push(root),
        None => return Ok(()),
    }
    while let Some(level) = descent.open.back_mut() {
        if level.pending.is_empty() {
            level.pending = remove_files(&mut level.dir)?;
            level.passes += 1;
        }
        if let Some(next) = level.pending.last() {
            match enter(&level.dir, next)? {
                Some(below) => descent.push(below),
                None => drop(level.pending.pop()),
            }
            continue;
        }
        let passes = level.passes;
        let removed = match descent.open.iter().rev().nth(1) {
            Some(above) => above.pending.last().map_or(Ok(true), |name| remove_empty(&above.dir, name)),
            None if descent.closed.is_empty() => remove_empty(&parent, name),
            // Its name is forgotten: the next pass of the parent finds it empty.
            None => Ok(true),
        };
        match removed {
            Ok(false) if passes < MAX_PASSES => continue,
            Ok(false) => return Err(Errno::ENOTEMPTY.into()),
            Ok(true) => {}
            Err(error) => return Err(error.into()),
        }
        if !descent.pop()?
            && let Some(above) = descent.open.back_mut()
        {
            above.pending.pop();
        }
    }
    Ok(())
}

/// Removes what is no directory, and opens what is one.
fn enter(parent: impl AsFd, name: &OsStr) -> io::Result<Option<Level>> {
    match Level::below(&parent, name) {
        Ok(level) => Ok(Some(level)),
        Err(Errno::ENOENT) => Ok(None),
        Err(Errno::EXDEV) => Err(still_mounted(name)),
        Err(Errno::ENOTDIR | Errno::ELOOP) => remove_file(&parent, name).map(|_| None),
        Err(error) => Err(error.into()),
    }
}

fn still_mounted(name: &OsStr) -> io::Error {
    io::Error::other(format!("{} is still mounted", name.display()))
}

/// Whether the name is free now; a directory stays.
fn remove_file(parent: impl AsFd, name: &OsStr) -> io::Result<bool> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR) => Ok(false),
        Err(Errno::EBUSY) => Err(still_mounted(name)),
        Err(error) => Err(error.into()),
    }
}

/// Whether the directory is gone; one that is not empty stays.
fn remove_empty(parent: impl AsFd, name: &OsStr) -> nix::Result<bool> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// One pass over a directory: removes its files; some of its subdirectories.
fn remove_files(dir: &mut Dir) -> io::Result<Vec<OsString>> {
    let (mut pending, mut doomed) = (Vec::new(), Vec::new());
    loop {
        // Removing while a listing is open may make it skip: batch by batch.
        for entry in dir.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || pending.iter().any(|known| known == name) {
                continue;
            }
            doomed.push(name.to_owned());
            if doomed.len() >= MAX_PENDING {
                break;
            }
        }
        if doomed.is_empty() || pending.len() >= MAX_PENDING {
            return Ok(pending);
        }
        for name in doomed.drain(..) {
            if !remove_file(&*dir, &name)? {
                pending.push(name);
            }
        }
    }
}

/// Part of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub bytes: u64,
    pub inodes: u64,
}

impl std::ops::AddAssign for Space {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes = self.inodes.saturating_add(other.inodes);
    }
}

/// What a file or tree takes on its own file system; mounts in it are not
/// entered. What cannot be read, or goes meanwhile, is not counted.
pub fn space(path: &Path) -> Space {
    space_by(path, MAX_MEASURED, MAX_LINKED)
}

/// The same with so many names of directories and so many linked files remembered at most.
fn space_by(path: &Path, names: usize, linked: usize) -> Space {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Space::default() };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let Ok(parent) = open(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) else {
        return Space::default();
    };
    // The root may be a mount itself: its own device is what counts.
    let Ok(stat) = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { return Space::default() };
    let mut count = Count::new(stat.st_dev, names, linked);
    count.add(&stat);
    if !is_directory(&stat) {
        return count.total();
    }
    let mut descent = Descent::default();
    match openat(&parent, name, DIRECTORY, Mode::empty()).and_then(Level::new) {
        Ok(root) => descent.push(count.begun(root)),
        Err(_) => return count.total(),
    }
    while let Some(level) = descent.open.back_mut() {
        if level.progress.pending.is_empty() && level.progress.more {
            count.go_on(level);
        }
        let Some(next) = level.progress.take_next() else {
            if descent.pop().is_err() {
                break;
            }
            continue;
        };
        count.remembered -= 1;
        if let Ok(below) = Level::below(&level.dir, &next) {
            if count.is_full() {
                descent.progress().for_each(Progress::forget);
                count.remembered = 0;
            }
            descent.push(count.begun(below));
        }
    }
    count.total()
}

fn is_directory(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

/// What was counted of a tree so far.
struct Count {
    device: u64,
    /// How many names of subdirectories may be remembered, and how many are.
    names: usize,
    remembered: usize,
    space: Space,
    /// How many files with several names may be remembered, and those that are.
    linked: usize,
    links: HashSet<Identity>,
    /// Of the others' inodes, in parts of [`WHOLE`].
    shares: u64,
}

/// An inode in as many parts as a file can have names, and more.
const WHOLE: u64 = 1 << 32;

impl Count {
    fn new(device: u64, names: usize, linked: usize) -> Self {
        Self { device, names, remembered: 0, space: Space::default(), linked, links: HashSet::new(), shares: 0 }
    }

    fn total(mut self) -> Space {
        self.space.inodes = self.space.inodes.saturating_add((self.shares + WHOLE / 2) / WHOLE);
        self.space
    }

    /// A level with what is in it counted, and its subdirectories pending.
    fn begun(&mut self, mut level: Level) -> Level {
        self.go_on(&mut level);
        level
    }

    /// Whether the levels above a new one have to forget names. Each is read once again for that, so it must not happen
    /// often: a level has a quarter of all names at most, and what was read again fits beside as many new ones.
    fn is_full(&self) -> bool {
        self.remembered > self.names / 2
    }

    /// Counts what is in a level one by one, however much that is, until enough subdirectories are pending. Entries
    /// are found again by their number: what is counted twice or not at all because somebody changes the directory
    /// meanwhile is theirs.
    fn go_on(&mut self, level: &mut Level) {
        let progress = &mut level.progress;
        progress.more = false;
        // The listing holds the directory.
        let Ok(here) = dup(&level.dir) else { return };
        for (place, entry) in level.dir.iter().map_while(Result::ok).enumerate().skip(progress.entered) {
            let is_new = place >= progress.counted;
            progress.counted = progress.counted.max(place + 1);
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let Ok(stat) = fstatat(&here, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            if stat.st_dev != self.device {
                continue;
            }
            if is_new {
                self.add(&stat);
            }
            if is_directory(&stat) {
                progress.pending.push_back((place, name.to_owned()));
                self.remembered += 1;
                debug_assert!(self.remembered <= self.names, "{} names", self.remembered);
                if progress.pending.len() >= (self.names / 4).max(1) {
                    progress.more = true;
                    return;
                }
            }
        }
    }

    /// Hard links share one inode, which counts once. When too many are there to remember them, each counts for its
    /// part: who can make a link to a file can mostly make it in the same tree alone.
    fn add(&mut self, stat: &FileStat) {
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        if is_directory(stat) || stat.st_nlink < 2 {
            self.space += Space { bytes, inodes: 1 };
        } else if self.links.len() < self.linked {
            if self.links.insert(identity(stat)) {
                self.space += Space { bytes, inodes: 1 };
            }
        } else if !self.links.contains(&identity(stat)) {
            #[allow(clippy::useless_conversion, reason = "the kernel's type is smaller elsewhere")]
            let names = u64::from(stat.st_nlink);
            self.space += Space { bytes: bytes.div_ceil(names), inodes: 0 };
            self.shares = self.shares.saturating_add(WHOLE / names);
        }
    }
}

#[cfg(test)]
mod tests;
