//! The end of a log file, found without reading the rest.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;

use super::line::{Flow, Renderer};
use super::open;
use super::options::LogOptions;

const BLOCK: u64 = 16 * 1024;
/// What a termination message takes of the log: lines, then bytes.
const TERMINATION_LINES: u64 = 80;
const TERMINATION_BYTES: usize = 2048;

/// Where the last `lines` lines of a file begin. Blocking.
pub fn start_of_tail<F: Read + Seek>(file: &mut F, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let (mut at, mut found) = (end, 0);
    let mut block = Vec::new();
    while at > 0 {
        let size = BLOCK.min(at);
        at -= size;
        file.seek(SeekFrom::Start(at))?;
        block.clear();
        file.by_ref().take(size).read_to_end(&mut block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = at + index as u64 + 1;
            // The newline that ends the file begins no line.
            if after == end {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(after);
            }
        }
    }
    Ok(0)
}

/// The text that stands in for a termination message of a container that failed
/// and wrote none: its last 80 lines, at most 2,048 bytes. Blocking.
pub fn termination_text(log: &Path) -> io::Result<String> {
    let mut file = open::log(log)?;
    let start = start_of_tail(&mut file, TERMINATION_LINES)?;
    file.seek(SeekFrom::Start(start))?;
    let mut raw = Vec::new();
    // Lines have a prefix and are cut at 16 KiB: enough for all 80, not for a flood.
    file.take(TERMINATION_LINES * 17 * 1024).read_to_end(&mut raw)?;
    let (mut renderer, mut text) = (Renderer::new(&LogOptions::default(), Timestamp::UNIX_EPOCH), Vec::new());
    for line in raw.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        if renderer.push(line, &mut text) == Flow::Done {
            break;
        }
    }
    let start = text.len().saturating_sub(TERMINATION_BYTES);
    Ok(String::from_utf8_lossy(&text[start..]).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write as _;
    use std::io::Cursor;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn tails_are_as_counted(lines in proptest::collection::vec("[a-z]{0,40}", 0..1500), want in 0u64..2000, ended in any::<bool>()) {
            let mut text = lines.join("\n");
            if ended && !lines.is_empty() {
                text.push('\n');
            }
            let start = usize::try_from(start_of_tail(&mut Cursor::new(text.as_bytes()), want).unwrap()).unwrap();
            let all: Vec<&str> = text.split_inclusive('\n').collect();
            let keep = all.len().saturating_sub(usize::try_from(want).unwrap());
            prop_assert_eq!(&text[start..], all[keep..].concat());
        }
    }

    #[test]
    fn termination_messages_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let mut text = String::new();
        for i in 0..200 {
            writeln!(text, "2020-01-01T00:00:00Z stdout F line {i}").unwrap();
        }
        std::fs::write(&log, &text).unwrap();
        let message = termination_text(&log).unwrap();
        assert!(message.starts_with("line 120\n") && message.ends_with("line 199\n"), "{message}");
        std::fs::write(&log, format!("2020-01-01T00:00:00Z stdout F {}\n", "x".repeat(5000))).unwrap();
        assert_eq!(termination_text(&log).unwrap().len(), TERMINATION_BYTES);
        std::fs::write(&log, "").unwrap();
        assert_eq!(termination_text(&log).unwrap(), "");
        assert!(termination_text(&dir.path().join("none")).is_err());
    }
}
