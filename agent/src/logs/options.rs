//! What a reader of logs may ask for. Pure.

use jiff::{SignedDuration, Timestamp};

/// Which of a container's outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogStream {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// `PodLogOptions` as far as they concern one container's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since_seconds: Option<i64>,
    pub since_time: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub stream: LogStream,
}

/// Options that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogOptionsError {
    /// A value that is not of its type: 400.
    #[error("unable to decode query: {name}: invalid value {value:?}")]
    Malformed { name: &'static str, value: String },
    /// Values that contradict themselves or each other: 422.
    #[error("Invalid request: {0}")]
    Invalid(&'static str),
}

impl LogOptions {
    /// Reads options from decoded query pairs; unknown names are passed over.
    pub fn from_query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, LogOptionsError> {
        let mut options = Self::default();
        for (name, value) in pairs {
            options.set(name, value)?;
        }
        if options.since_seconds.is_some() && options.since_time.is_some() {
            return Err(LogOptionsError::Invalid("at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
        if options.stream != LogStream::All && options.tail_lines.is_some() {
            return Err(LogOptionsError::Invalid("`tailLines` and specific `stream` are mutually exclusive for now"));
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), LogOptionsError> {
        match name {
            "follow" => self.follow = flag("follow", value)?,
            "previous" => self.previous = flag("previous", value)?,
            "timestamps" => self.timestamps = flag("timestamps", value)?,
            // Upstream's kubelet takes "all" from old clients.
            "tailLines" | "tail" if value.is_empty() || value == "all" => {}
            "tailLines" | "tail" => {
                let lines = number("tailLines", value)?;
                let lines = u64::try_from(lines)
                    .map_err(|_| LogOptionsError::Invalid("tailLines: must be greater than or equal to 0"))?;
                self.tail_lines = Some(lines);
            }
            "limitBytes" if !value.is_empty() => {
                let limit = u64::try_from(number("limitBytes", value)?).ok().filter(|limit| *limit > 0);
                self.limit_bytes = Some(limit.ok_or(LogOptionsError::Invalid("limitBytes: must be greater than 0"))?);
            }
            "sinceSeconds" if !value.is_empty() => {
                let seconds = number("sinceSeconds", value)?;
                if seconds < 1 {
                    return Err(LogOptionsError::Invalid("sinceSeconds: must be greater than 0"));
                }
                self.since_seconds = Some(seconds);
            }
            "sinceTime" if !value.is_empty() => {
                let malformed = |_| LogOptionsError::Malformed { name: "sinceTime", value: value.to_owned() };
                self.since_time = Some(value.parse().map_err(malformed)?);
            }
            "stream" => {
                self.stream = match value {
                    "" | "All" => LogStream::All,
                    "Stdout" => LogStream::Stdout,
                    "Stderr" => LogStream::Stderr,
                    _ => {
                        return Err(LogOptionsError::Invalid(
                            "stream: supported values: \"All\", \"Stdout\", \"Stderr\"",
                        ));
                    }
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// The earliest line wanted.
    pub fn since_at(&self, now: Timestamp) -> Option<Timestamp> {
        let ago = self.since_seconds.map(|seconds| now.saturating_sub(SignedDuration::from_secs(seconds)));
        self.since_time.or(ago.map(|at| at.unwrap_or(Timestamp::MIN)))
    }
}

fn flag(name: &'static str, value: &str) -> Result<bool, LogOptionsError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(LogOptionsError::Malformed { name, value: value.to_owned() }),
    }
}

fn number(name: &'static str, value: &str) -> Result<i64, LogOptionsError> {
    value.parse().map_err(|_| LogOptionsError::Malformed { name, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_queries() {
        let got = LogOptions::from_query([
            ("follow", "true"),
            ("timestamps", "1"),
            ("previous", "false"),
            ("tailLines", "10"),
            ("limitBytes", "5"),
            ("sinceSeconds", "60"),
            ("pretty", "x"),
        ]);
        let expect = LogOptions {
            follow: true,
            timestamps: true,
            tail_lines: Some(10),
            limit_bytes: Some(5),
            since_seconds: Some(60),
            ..LogOptions::default()
        };
        assert_eq!(got, Ok(expect));
        let time = LogOptions::from_query([("sinceTime", "2020-01-01T00:00:00+01:00")]).unwrap().since_time;
        assert_eq!(time, Some("2019-12-31T23:00:00Z".parse().unwrap()));
        assert_eq!(LogOptions::from_query([("tailLines", "all")]), Ok(LogOptions::default()));
    }

    #[test]
    fn refuses_nonsense() {
        for query in [
            &[("follow", "maybe")][..],
            &[("tailLines", "-1")],
            &[("tailLines", "x")],
            &[("limitBytes", "0")],
            &[("sinceSeconds", "0")],
            &[("sinceTime", "yesterday")],
            &[("stream", "stdout")],
            &[("sinceSeconds", "1"), ("sinceTime", "2020-01-01T00:00:00Z")],
            &[("stream", "Stdout"), ("tailLines", "1")],
        ] {
            assert!(LogOptions::from_query(query.iter().copied()).is_err(), "{query:?}");
        }
        let huge = LogOptions { since_seconds: Some(i64::MAX), ..LogOptions::default() };
        assert_eq!(huge.since_at(Timestamp::UNIX_EPOCH), Some(Timestamp::MIN));
    }
}
