//! `fsGroup`: the group and permission bits of a writable volume.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Bits every file of a writable volume gets.
const FILE_BITS: u32 = 0o660;
/// Bits every directory gets: the set-group-id bit hands the group on.
const DIR_BITS: u32 = 0o2770;

/// Gives `root` and all below it to `group`. With `only_on_mismatch` nothing
/// happens when the root has group and bits already. Links are not followed.
pub fn set_group(root: &Path, group: u32, only_on_mismatch: bool) -> io::Result<()> {
    let meta = fs::symlink_metadata(root)?;
    if only_on_mismatch && meta.gid() == group && meta.permissions().mode() & DIR_BITS == DIR_BITS {
        return Ok(());
    }
    // Children first: a root that fits tells that all below it fits.
    if meta.is_dir() {
        for entry in fs::read_dir(root)? {
            set_group(&entry?.path(), group, false)?;
        }
    }
    lchown(root, None, Some(group))?;
    if meta.is_symlink() {
        return Ok(());
    }
    let bits = if meta.is_dir() { DIR_BITS } else { FILE_BITS };
    fs::set_permissions(root, Permissions::from_mode(meta.permissions().mode() & 0o7777 | bits))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn whole_tree_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        let root = dir.path().join("volume");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(&outside, "x").unwrap();
        fs::write(root.join("sub/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        set_group(&root, 1234, false).unwrap();
        let look = |path: &Path| {
            let meta = fs::metadata(path).unwrap();
            (meta.gid(), meta.permissions().mode() & 0o7777)
        };
        assert_eq!(look(&root.join("sub")), (1234, 0o2775));
        assert_eq!(look(&root.join("sub/file")), (1234, 0o664));
        assert_ne!(look(&outside).0, 1234);
        // A root that fits stops the walk.
        lchown(root.join("sub/file"), None, Some(1)).unwrap();
        set_group(&root, 1234, true).unwrap();
        assert_eq!(look(&root.join("sub/file")).0, 1);
        set_group(&root, 1234, false).unwrap();
        assert_eq!(look(&root.join("sub/file")).0, 1234);
    }
}
