//! `fsGroup` of a writable volume that the agent makes itself.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

/// Bits the directory gets: the set-group-id bit hands the group on to what is
/// made in it.
const BITS: u32 = 0o2770;

/// Gives a directory to `group`. What is in it stays as it is: a new volume is
/// empty, and in one that is in use containers could swap files for links while
/// we walk.
pub fn set_group(root: &Path, group: u32) -> io::Result<()> {
    lchown(root, None, Some(group))?;
    let mode = fs::symlink_metadata(root)?.permissions().mode() & 0o7777;
    fs::set_permissions(root, Permissions::from_mode(mode | BITS))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn hands_the_group_on() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o707)).unwrap();
        set_group(dir.path(), 1234).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o7777, 0o2777);
        fs::write(dir.path().join("file"), "x").unwrap();
        assert_eq!(fs::metadata(dir.path().join("file")).unwrap().gid(), 1234);
    }
}
