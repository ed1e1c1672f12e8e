//! Trees far deeper than a path can say, on stacks far smaller than they need.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::mkdirat;
use proptest::prelude::*;

use super::*;

/// Makes `depth` directories, one in the other, each with a file beside.
fn nest(root: &Path, depth: usize) {
    let mut at = open(root, DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&at, "d", Mode::from_bits_truncate(0o755)).unwrap();
        at = openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
    }
}

/// Runs on a thread whose stack holds no recursion worth its name.
fn on_a_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap().join().unwrap()
}

/// How many descriptors of this process lead below a directory: other tests have some that lead elsewhere.
fn descriptors_below(root: &Path) -> usize {
    let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
    all.filter(|one| fs::read_link(one.path()).is_ok_and(|target| target.starts_with(root))).count()
}

/// File systems say what they like of their files.
#[test]
fn no_space_is_too_large() {
    let mut space = Space { bytes: u64::MAX, inodes: 1 };
    space += Space { bytes: 1, inodes: u64::MAX };
    assert_eq!(space, Space { bytes: u64::MAX, inodes: u64::MAX });
    let mut stat = nix::sys::stat::stat("/proc/self/exe").unwrap();
    (stat.st_blocks, stat.st_nlink) = (i64::MAX, 1);
    let mut seen = Count::new(0, 1, 1);
    seen.add(&stat);
    assert_eq!(seen.space, Space { bytes: u64::MAX, inodes: 1 });
}

#[test]
fn depth_costs_neither_stack_nor_descriptors() {
    // Deeper than a path can say; in memory, where that costs no disk.
    const DEPTH: usize = 3_000;
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    nest(&tree, DEPTH);
    let found = on_a_small_stack({
        let tree = tree.clone();
        move || space(&tree)
    });
    assert_eq!(found.inodes, DEPTH as u64 + 1);
    on_a_small_stack({
        let tree = tree.clone();
        move || remove(&tree).unwrap()
    });
    assert!(!tree.exists());
}

#[test]
fn open_levels_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    nest(dir.path(), 100);
    let mut descent = Descent::default();
    descent.push(Level::new(open(dir.path(), DIRECTORY, Mode::empty()).unwrap()).unwrap());
    for _ in 0..100 {
        let below = Level::below(&descent.open.back().unwrap().dir, OsStr::new("d")).unwrap();
        descent.push(below);
    }
    assert_eq!(descent.open.len(), MAX_OPEN);
    assert_eq!(descriptors_below(dir.path()), MAX_OPEN);
    while !descent.open.is_empty() {
        descent.pop().unwrap();
    }
    assert!(descent.closed.is_empty());
}

#[test]
fn the_way_back_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    nest(dir.path(), MAX_OPEN + 1);
    let mut descent = Descent::default();
    descent.push(Level::new(open(dir.path(), DIRECTORY, Mode::empty()).unwrap()).unwrap());
    for _ in 0..=MAX_OPEN {
        let below = Level::below(&descent.open.back().unwrap().dir, OsStr::new("d")).unwrap();
        descent.push(below);
    }
    // The directory that leads back up now lies elsewhere.
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(dir.path().join("d/d"), elsewhere.join("d")).unwrap();
    let mut last = Ok(false);
    while last.is_ok() && !descent.open.is_empty() {
        last = descent.pop();
    }
    assert_eq!(last, Err(Errno::ESTALE));
}

#[test]
fn removal_follows_no_links() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, precious) = (dir.path().join("tree"), dir.path().join("precious"));
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "x").unwrap();
    fs::write(tree.join("a/b/file"), "x").unwrap();
    symlink(&precious, tree.join("a/link")).unwrap();
    remove(&tree).unwrap();
    remove(&tree).unwrap();
    remove(&tree.join("below")).unwrap();
    assert!(!tree.exists() && precious.join("file").exists());
    // A link in the place of the tree goes, not what it points at.
    symlink(&precious, &tree).unwrap();
    remove(&tree).unwrap();
    assert!(fs::symlink_metadata(&tree).is_err() && precious.join("file").exists());
}

#[test]
fn wide_directories_are_measured_in_batches() {
    let dir = tempfile::tempdir().unwrap();
    // One in the other, deeper than what is open at the same time.
    let mut at = dir.path().join("tree");
    let (wide, deep) = (10, MAX_OPEN * 2);
    for _ in 0..deep {
        for n in 0..wide {
            fs::create_dir_all(at.join(format!("d{n}"))).unwrap();
            fs::write(at.join(format!("f{n}")), "x").unwrap();
        }
        at = at.join("d5");
    }
    let inodes = (1 + 2 * wide * deep) as u64;
    // However few names are remembered, and they never are more.
    for names in [1, 4, 5, 8, wide, 4 * wide, 4 * wide + 4, MAX_MEASURED] {
        assert_eq!(space_by(&dir.path().join("tree"), names, MAX_LINKED).inodes, inodes, "{names} names");
    }
}

#[test]
fn wide_directories_go_in_batches() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    for n in 0..MAX_PENDING * 3 {
        fs::create_dir_all(tree.join(format!("d{n}"))).unwrap();
        fs::write(tree.join(format!("f{n}")), "x").unwrap();
    }
    remove(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn links_count_once_and_what_is_gone_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let empty = space(dir.path());
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), vec![1; 100_000]).unwrap();
    fs::hard_link(dir.path().join("d/f"), dir.path().join("again")).unwrap();
    symlink("/", dir.path().join("root")).unwrap();
    let full = space(dir.path());
    assert_eq!(full.inodes, empty.inodes + 3);
    assert!((100_000..200_000).contains(&(full.bytes - empty.bytes)), "{full:?}");
    assert_eq!(space(&dir.path().join("none")), Space::default());
}

/// A pod makes as many links as its file system has room for; remembering all of them would take gigabytes.
#[test]
fn many_links_are_measured_with_few_remembered() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    for file in 0..30 {
        let first = dir.path().join(format!("f{file}"));
        fs::write(&first, vec![1; 50_000]).unwrap();
        for name in 0..=file % 7 {
            fs::hard_link(&first, dir.path().join(format!("d/f{file}-{name}"))).unwrap();
        }
    }
    let exact = space(dir.path());
    assert_eq!(exact.inodes, 32);
    for linked in [0, 1, 7, 29, 30] {
        let found = space_by(dir.path(), 8, linked);
        assert_eq!(found.inodes, exact.inodes, "{linked} remembered");
        assert!((exact.bytes..=exact.bytes + 30 * 8).contains(&found.bytes), "{linked} remembered: {found:?}");
    }
    let mut count = Count::new(0, 1, 5);
    let mut stat = nix::sys::stat::stat("/proc/self/exe").unwrap();
    for inode in 0..100 {
        (stat.st_ino, stat.st_nlink) = (inode, 2);
        count.add(&stat);
        count.add(&stat);
    }
    assert_eq!((count.links.len(), count.total().inodes), (5, 100));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn every_shape_is_measured_and_removed(paths in proptest::collection::btree_set("([ab]{1,2}/){0,30}[fg]{1,2}", 0..30)) {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut expect = std::collections::BTreeSet::from([String::new()]);
        for path in &paths {
            let full = tree.join(path);
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, "x").unwrap();
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            expect.extend(ends.map(|end| path[..end].to_owned()));
        }
        prop_assert_eq!(space(&tree).inodes, expect.len() as u64);
        prop_assert_eq!(space_by(&tree, 1, 0).inodes, expect.len() as u64);
        prop_assert_eq!(space_by(&tree, 5, MAX_LINKED).inodes, expect.len() as u64);
        remove(&tree).unwrap();
        prop_assert!(!tree.exists());
    }
}
