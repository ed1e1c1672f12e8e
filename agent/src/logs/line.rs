//! The CRI log format: one line, and from lines to what a reader gets. Pure.
//!
//! `2016-10-06T00:17:09.669794202Z stdout P content`: time, stream, tags
//! (`P` partial, `F` full), content. Longer output is cut into partial lines.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::options::{LogOptions, LogStream};

/// One line of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    pub time: Timestamp,
    /// Stdout or stderr.
    pub stream: LogStream,
    /// Whether the program's line goes on in the next one.
    pub partial: bool,
    /// Without the newline.
    pub content: &'a [u8],
}

/// Reads one line (with or without its newline); `None` for anything else.
pub fn parse(line: &[u8]) -> Option<LogLine<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = match parts.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    let partial = match parts.next()?.split(|b| *b == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    // An empty content may come without the space before it.
    Some(LogLine { time, stream, partial, content: parts.next().unwrap_or_default() })
}

/// Whether a reader wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// The byte limit is reached.
    Done,
}

/// Turns file lines into the reader's bytes: filters, time stamps, limit.
#[derive(Debug)]
pub struct Renderer {
    stream: LogStream,
    timestamps: bool,
    since: Option<Timestamp>,
    /// Bytes that may still be given out.
    left: Option<u64>,
    at_line_start: bool,
}

impl Renderer {
    /// A renderer for one reader. `now` is what `sinceSeconds` counts from.
    pub fn new(options: &LogOptions, now: Timestamp) -> Self {
        Self {
            stream: options.stream,
            timestamps: options.timestamps,
            since: options.since_at(now),
            left: options.limit_bytes,
            at_line_start: true,
        }
    }

    /// Appends what the reader gets of one line; lines that are none are skipped.
    pub fn push(&mut self, line: &[u8], out: &mut Vec<u8>) -> Flow {
        if self.left == Some(0) {
            return Flow::Done;
        }
        let Some(line) = parse(line) else { return Flow::Continue };
        let wanted = self.stream == LogStream::All || self.stream == line.stream;
        if !wanted || self.since.is_some_and(|since| line.time < since) {
            return Flow::Continue;
        }
        let start = out.len();
        if self.timestamps && self.at_line_start {
            let time = line.time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string();
            out.extend_from_slice(time.as_bytes());
        }
        out.extend_from_slice(line.content);
        self.at_line_start = !line.partial;
        if !line.partial {
            out.push(b'\n');
        }
        let Some(left) = &mut self.left else { return Flow::Continue };
        let written = (out.len() - start) as u64;
        if written >= *left {
            let keep = usize::try_from(*left).unwrap_or(usize::MAX);
            out.truncate(start.saturating_add(keep));
            *left = 0;
            return Flow::Done;
        }
        *left -= written;
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const LOG: &[&str] = &[
        "2016-10-06T00:17:09.669794202Z stdout F one",
        "garbage",
        "2016-10-06T00:17:10.1Z stderr F two",
        "2016-10-06T00:17:11Z stdout P thr",
        "2016-10-06T00:17:11.5Z stdout F ee",
        "2016-10-06T02:17:12+02:00 stdout F:x four  spaced",
        "2016-10-06T00:17:13Z stdout F ",
        "2016-10-06T00:17:13Z stdout F",
        "",
    ];

    fn render(options: &LogOptions) -> String {
        let now = "2016-10-06T00:17:20Z".parse().unwrap();
        let (mut renderer, mut out) = (Renderer::new(options, now), Vec::new());
        for line in LOG {
            if renderer.push(format!("{line}\n").as_bytes(), &mut out) == Flow::Done {
                break;
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn joins_parts_and_skips_garbage() {
        assert_eq!(render(&LogOptions::default()), "one\ntwo\nthree\nfour  spaced\n\n\n");
    }

    #[test]
    fn filters() {
        let by = |stream| render(&LogOptions { stream, ..LogOptions::default() });
        assert_eq!(by(LogStream::Stderr), "two\n");
        assert_eq!(by(LogStream::Stdout), "one\nthree\nfour  spaced\n\n\n");
        let since = render(&LogOptions { since_seconds: Some(8), ..LogOptions::default() });
        assert_eq!(since, "four  spaced\n\n\n");
        let at = "2016-10-06T00:17:13Z".parse().unwrap();
        assert_eq!(render(&LogOptions { since_time: Some(at), ..LogOptions::default() }), "\n\n");
    }

    #[test]
    fn time_stamps_stand_at_line_starts_only() {
        let expect = "2016-10-06T00:17:09.669794202Z one\n2016-10-06T00:17:10.100000000Z two\n\
             2016-10-06T00:17:11.000000000Z three\n2016-10-06T00:17:12.000000000Z four  ";
        let limit_bytes = Some(expect.len() as u64);
        assert_eq!(render(&LogOptions { timestamps: true, limit_bytes, ..LogOptions::default() }), expect);
    }

    #[test]
    fn limits_are_exact() {
        let limited = |n| render(&LogOptions { limit_bytes: Some(n), ..LogOptions::default() });
        assert_eq!(limited(0), "");
        assert_eq!(limited(2), "on");
        assert_eq!(limited(4), "one\n");
        assert_eq!(limited(5), "one\nt");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_a_runtime_writes_is_read(content in proptest::collection::vec(any::<u8>().prop_filter("newline", |b| *b != b'\n'), 0..100),
            second in 0i64..4_000_000_000, stderr in any::<bool>(), partial in any::<bool>()) {
            let time = Timestamp::from_second(second).unwrap();
            let stream = if stderr { "stderr" } else { "stdout" };
            let tag = if partial { "P" } else { "F" };
            let mut line = format!("{time} {stream} {tag} ").into_bytes();
            line.extend(&content);
            line.push(b'\n');
            let parsed = parse(&line).unwrap();
            prop_assert_eq!(parsed.content, content.as_slice());
            prop_assert_eq!(parsed.time, time);
            prop_assert_eq!(parsed.partial, partial);
        }

        #[test]
        fn a_limit_cuts_the_unlimited_output(limit in 0u64..60) {
            let all = render(&LogOptions::default());
            let cut = render(&LogOptions { limit_bytes: Some(limit), ..LogOptions::default() });
            let expect: String = all.chars().take(usize::try_from(limit).unwrap()).collect();
            prop_assert_eq!(cut, expect);
        }
    }
}
