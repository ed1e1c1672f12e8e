//! Reads /proc/self/smaps: which mappings hold nothing but the program's file. Pure.

use std::ops::Range;

/// Mappings of `program` that cannot be written and of which no page differs from the file. Whatever cannot be
/// understood is no such mapping.
pub fn unchanged(smaps: &str, program: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if let Some(header) = Header::parse(line) {
            candidate = header.is_unwritable_file(program).then_some(header.range);
        } else if let Some(kib) = line.strip_prefix("Anonymous:") {
            // A page that was written while its mapping allowed it, as relocations are, is anonymous.
            found.extend(candidate.take().filter(|_| kib.trim() == "0 kB"));
        }
    }
    found
}

/// `55d0-5600 r-xp 00001000 fe:00 1234   /usr/local/bin/copepod`
struct Header<'a> {
    range: Range<usize>,
    permissions: &'a str,
    path: &'a str,
}

impl<'a> Header<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (addresses, rest) = line.split_once(' ')?;
        let (start, end) = addresses.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        // Offset, device and inode have no spaces; the path may.
        let mut fields = rest.splitn(5, ' ');
        let permissions = fields.next()?;
        let path = fields.nth(3).map(str::trim_start).unwrap_or_default();
        Some(Self { range, permissions, path })
    }

    fn is_unwritable_file(&self, program: &str) -> bool {
        let unwritable = matches!(self.permissions, "r--p" | "r-xp");
        unwritable && !self.range.is_empty() && !program.is_empty() && self.path == program
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "/opt/a b/copepod";

    fn mapping(header: &str, anonymous: &str) -> String {
        format!(
            "{header}\nSize:      4 kB\nRss:       4 kB\nAnonymous:   {anonymous}\nSwap:      0 kB\nVmFlags: rd mr mw me\n"
        )
    }

    fn check(smaps: &str, expect: &[Range<usize>]) {
        assert_eq!(unchanged(smaps, PROGRAM), expect, "{smaps}");
    }

    #[test]
    fn text_and_constants_are_found() {
        let smaps = [
            mapping("00200000-00300000 r--p 00000000 fe:00 77                         /opt/a b/copepod", "0 kB"),
            mapping("00300000-00900000 r-xp 00100000 fe:00 77                         /opt/a b/copepod", "0 kB"),
            mapping("7f0000000000-7f0000001000 r--p 00000000 00:00 0                  [vvar]", "0 kB"),
        ];
        check(&smaps.concat(), &[0x20_0000..0x30_0000, 0x30_0000..0x90_0000]);
    }

    #[test]
    fn what_could_differ_from_the_file_is_left_alone() {
        for (header, anonymous) in [
            // Relocations, written before they were sealed.
            ("00900000-00980000 r--p 00700000 fe:00 77   /opt/a b/copepod", "512 kB"),
            ("00900000-00980000 r--p 00700000 fe:00 77   /opt/a b/copepod", "4 kB"),
            ("00980000-00990000 rw-p 00780000 fe:00 77   /opt/a b/copepod", "0 kB"),
            ("00980000-00990000 r--s 00780000 fe:00 77   /opt/a b/copepod", "0 kB"),
            ("00980000-00990000 -w-p 00780000 fe:00 77   /opt/a b/copepod", "0 kB"),
            // Others' files, and no file.
            ("00980000-00990000 r-xp 00780000 fe:00 78   /opt/a b/copepod2", "0 kB"),
            ("00980000-00990000 r-xp 00780000 fe:00 77   /opt/a b/copepod (deleted)", "0 kB"),
            ("00980000-00990000 r-xp 00000000 00:00 0", "0 kB"),
            ("00980000-00990000 r-xp 00000000 00:00 0    [vdso]", "0 kB"),
        ] {
            check(&mapping(header, anonymous), &[]);
        }
    }

    #[test]
    fn garbage_is_no_mapping() {
        for garbage in [
            "",
            "\n\n",
            "Anonymous: 0 kB\n",
            "00200000-00300000 r-xp 0 fe:00 7 /opt/a b/copepod",
            "00200000-00300000 r-xp 0 fe:00 7 /opt/a b/copepod\nAnonymous: 0",
            "00200000-00300000 r-xp 0 fe:00 7 /opt/a b/copepod\nAnonymous: zero kB",
            "00300000-00200000 r-xp 0 fe:00 7 /opt/a b/copepod\nAnonymous: 0 kB",
            "00200000-00200000 r-xp 0 fe:00 7 /opt/a b/copepod\nAnonymous: 0 kB",
            "zz200000-00300000 r-xp 0 fe:00 7 /opt/a b/copepod\nAnonymous: 0 kB",
            "fffffffffffffffff-1 r-xp 0 fe:00 7 /opt/a b/copepod\nAnonymous: 0 kB",
            "00200000 r-xp 0 fe:00 7 /opt/a b/copepod\nAnonymous: 0 kB",
            "00200000-00300000\nAnonymous: 0 kB",
            "00200000-00300000 r-xp\nAnonymous: 0 kB",
        ] {
            check(garbage, &[]);
        }
        // The line of one mapping is not taken for that of the one before it.
        let two =
            "00200000-00300000 r-xp 0 fe:00 7 /opt/a b/copepod\n00300000-00400000 rw-p 0 00:00 0 \nAnonymous: 0 kB\n";
        check(two, &[]);
        assert!(unchanged("00200000-00300000 r-xp 0 00:00 0 \nAnonymous: 0 kB\n", "").is_empty());
    }
}
