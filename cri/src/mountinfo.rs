//! The table of mounts as the kernel writes it: the one parser. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Mount points of a mountinfo table, in its order. Pure; odd lines are skipped.
pub fn mount_points(mountinfo: &[u8]) -> Vec<PathBuf> {
    let lines = mountinfo.split(|b| *b == b'\n');
    lines.filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(unescape).collect()
}

/// Undoes the octal escapes (`\040`) of mountinfo.
pub fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = tail.get(..3).filter(|_| *first == b'\\').and_then(octal);
        match escaped {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

fn octal(digits: &[u8]) -> Option<u8> {
    // Digits alone: a number may have a sign, and what is escaped has none.
    if !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_mountinfo() {
        let table = b"22 1 0:20 / /proc rw - proc proc rw\n\
            30 22 8:1 /x /var/a\\040b\\134c rw,relatime shared:1 - ext4 /dev/sda rw\n\
            short line\n31 22 8:1 / /end\\04 rw\n32 22 8:1 / /a\\+40b rw";
        let expect: Vec<PathBuf> = ["/proc", "/var/a b\\c", "/end\\04", "/a\\+40b"].map(PathBuf::from).into();
        assert_eq!(mount_points(table), expect);
    }

    #[test]
    fn names_are_bytes() {
        let line = [b"1 2 3 / /a".as_slice(), &[0xff, 0xc3], b"\\303\\251 rw\n"].concat();
        let expect = PathBuf::from(OsString::from_vec(vec![b'/', b'a', 0xff, 0xc3, 0o303, 0o251]));
        assert_eq!(mount_points(&line), [expect]);
        assert_eq!(unescape(b"a\\zb\\"), PathBuf::from("a\\zb\\"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = mount_points(&bytes);
        }
    }
}
