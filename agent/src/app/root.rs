//! The kubelet's own directories. Tokens and Secrets lie below them, readable
//! for the containers' users: so other users of the machine are kept out here.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// As upstream: for root and its group.
const MODE: u32 = 0o750;

/// Makes the directories, and closes those an earlier version left open.
pub(super) fn make(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let pods = root.join("pods");
    for directory in [root, &pods] {
        if !directory.exists() {
            fs::create_dir(directory)?;
        }
        fs::set_permissions(directory, Permissions::from_mode(MODE))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn others_are_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data/kubelet");
        fs::create_dir_all(root.join("pods")).unwrap();
        fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
        make(&root).unwrap();
        make(&root).unwrap();
        for directory in [root.clone(), root.join("pods")] {
            assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o750);
        }
    }
}
