//! The problems of one object, bounded in number and in bytes: an object of a few megabytes can break a rule in every
//! few bytes, and a rule may refuse a whole list.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::{FieldError, FieldErrorKind, Path, go_quote};

/// Problems that one object is told of. A body can have one in every few bytes, each as long as a list of supported
/// values.
const MAX_ERRORS: usize = 1000;
/// Bytes of paths, values and words that one object is told. They are printed into the message and into the causes,
/// each escaped, so that an answer is some times as long.
pub const MAX_BYTES: usize = 256 * 1024;
/// What stands for the rest of a text that was cut.
const CUT: &str = "…";

/// A value that a rule refuses, not copied before it is known whether there is room for it.
pub trait BadValue {
    /// The value as it is told, and about the bytes of it; a long one is cut to about `room`.
    fn told(self, room: usize) -> (Value, usize);
}

impl BadValue for &Value {
    fn told(self, room: usize) -> (Value, usize) {
        match self {
            Value::String(text) => text.as_str().told(room),
            Value::Array(_) | Value::Object(_) => composite(self, || self.clone(), room),
            small => (small.clone(), SMALL),
        }
    }
}

impl BadValue for &[Value] {
    fn told(self, room: usize) -> (Value, usize) {
        composite(self, || self.to_vec().into(), room)
    }
}

impl BadValue for &String {
    fn told(self, room: usize) -> (Value, usize) {
        self.as_str().told(room)
    }
}

/// A list or map as it is, or what there is room for of its JSON.
fn composite(value: &(impl Serialize + ?Sized), whole: impl FnOnce() -> Value, room: usize) -> (Value, usize) {
    let mut text = Limited::new(room);
    let fits = serde_json::to_writer(&mut text, value).is_ok();
    let length = text.bytes.len();
    if fits { (whole(), length) } else { (text.finish().into(), length) }
}

impl BadValue for &str {
    fn told(self, room: usize) -> (Value, usize) {
        (cut(self, room).into(), self.len().min(room))
    }
}

/// Bytes of a number.
const SMALL: usize = 8;

macro_rules! bad_values {
    ($($owned:ty),*) => {$(
        impl BadValue for $owned {
            fn told(self, room: usize) -> (Value, usize) {
                (&Value::from(self)).told(room)
            }
        }
    )*};
}

bad_values!(Value, String, i32, i64, u32, u64, usize, bool);

/// A text of at most about `room` bytes.
fn cut(text: &str, room: usize) -> String {
    if text.len() <= room {
        return text.to_owned();
    }
    let mut end = room;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT}", &text[..end])
}

/// Takes as many bytes as it has room for, and fails at the next.
struct Limited {
    bytes: Vec<u8>,
    room: usize,
}

impl Limited {
    fn new(room: usize) -> Self {
        Self { bytes: Vec::new(), room }
    }

    fn take(&mut self, bytes: &[u8]) -> bool {
        let room = self.room - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        bytes.len() <= room
    }

    /// What was taken, and the mark of a cut.
    fn finish(self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        text.push_str(CUT);
        text
    }
}

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.take(bytes) { Ok(bytes.len()) } else { Err(std::io::ErrorKind::StorageFull.into()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.take(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Collects problems while validating, up to a number and a size.
#[derive(Debug, Default, Clone)]
pub struct FieldErrors(pub Vec<FieldError>, Spent);

/// Bytes that the collected problems have.
#[derive(Debug, Default, Clone, Copy)]
struct Spent(usize);

impl PartialEq for FieldErrors {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl FieldErrors {
    /// Nothing wrong yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nothing more is taken.
    #[must_use]
    pub fn full(&self) -> bool {
        self.0.len() >= MAX_ERRORS || self.1.0 >= MAX_BYTES
    }

    /// Any problem, with the words it is told in.
    pub fn push(&mut self, path: &Path<'_>, kind: FieldErrorKind, bad_value: impl BadValue, detail: impl Into<String>) {
        if self.full() {
            return;
        }
        let mut text = Limited::new(MAX_BYTES.saturating_sub(self.1.0));
        let whole = fmt::Write::write_fmt(&mut text, format_args!("{path}")).is_ok();
        self.1.0 += text.bytes.len();
        // Whole texts were written, so they are text.
        let path = if whole { String::from_utf8_lossy(&text.bytes).into_owned() } else { text.finish() };
        let (bad_value, length) = bad_value.told(MAX_BYTES.saturating_sub(self.1.0));
        self.1.0 += length;
        let detail = detail.into();
        let room = MAX_BYTES.saturating_sub(self.1.0);
        self.1.0 += detail.len().min(room);
        let detail = if detail.len() > room { cut(&detail, room) } else { detail };
        self.0.push(FieldError { path, kind, bad_value, detail });
    }

    /// A mandatory field is missing.
    pub fn required(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.push(path, FieldErrorKind::Required, &Value::Null, detail);
    }

    /// The value breaks a rule that `detail` states.
    pub fn invalid(&mut self, path: &Path<'_>, value: impl BadValue, detail: impl Into<String>) {
        self.push(path, FieldErrorKind::Invalid, value, detail);
    }

    /// The value is none of `supported`.
    pub fn not_supported(&mut self, path: &Path<'_>, value: impl BadValue, supported: &[&str]) {
        if self.full() {
            return;
        }
        let mut sorted: Vec<String> = supported.iter().map(|s| go_quote(s)).collect();
        sorted.sort();
        let detail = if sorted.is_empty() { String::new() } else { format!("supported values: {}", sorted.join(", ")) };
        self.push(path, FieldErrorKind::NotSupported, value, detail);
    }

    /// The value occurs a second time.
    pub fn duplicate(&mut self, path: &Path<'_>, value: impl BadValue) {
        self.push(path, FieldErrorKind::Duplicate, value, "");
    }

    /// A referenced thing does not exist.
    pub fn not_found(&mut self, path: &Path<'_>, value: impl BadValue) {
        self.push(path, FieldErrorKind::NotFound, value, "");
    }

    /// The field must not be set (so).
    pub fn forbidden(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.push(path, FieldErrorKind::Forbidden, &Value::Null, detail);
    }

    /// A text longer than `max` bytes.
    pub fn too_long(&mut self, path: &Path<'_>, max: usize) {
        let unit = if max == 1 { "byte" } else { "bytes" };
        self.push(path, FieldErrorKind::TooLong, &Value::Null, format!("may not be more than {max} {unit}"));
    }

    /// A list longer than `max` items.
    pub fn too_many(&mut self, path: &Path<'_>, actual: usize, max: usize) {
        let unit = if max == 1 { "item" } else { "items" };
        self.push(path, FieldErrorKind::TooMany, actual, format!("must have at most {max} {unit}"));
    }

    /// Takes over other problems. They are whole; the last may go beyond the bound by itself.
    pub fn extend(&mut self, other: FieldErrors) {
        for error in other.0 {
            if self.full() {
                return;
            }
            let (_, value) = (&error.bad_value).told(MAX_BYTES);
            self.1.0 += error.path.len() + error.detail.len() + value;
            self.0.push(error);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_are_bounded() {
        let mut errors = FieldErrors::new();
        for n in 0..3 * MAX_ERRORS {
            errors.not_supported(&Path::new("a").index(n), "x", &["y"]);
        }
        assert_eq!(errors.0.len(), MAX_ERRORS);
        errors.extend(errors.clone());
        assert_eq!(errors.0.len(), MAX_ERRORS);
    }

    fn size(errors: &FieldErrors) -> usize {
        errors.0.iter().map(|e| e.path.len() + e.body().len()).sum()
    }

    #[test]
    fn their_bytes_are_bounded_whatever_part_is_long() {
        let long = "x".repeat(3 << 20);
        let list: Vec<Value> = vec![json!("y"); 1 << 20];
        let map = json!({"a": list});
        for n in 0..4 {
            let mut errors = FieldErrors::new();
            for _ in 0..10 {
                match n {
                    0 => errors.invalid(&Path::new("a").key(&long), 1, "b"),
                    1 => errors.invalid(&Path::new("a"), long.as_str(), "b"),
                    2 => errors.invalid(&Path::new("a"), list.as_slice(), "b"),
                    _ => errors.invalid(&Path::new("a"), &map, long.as_str()),
                }
            }
            let mut twice = errors.clone();
            twice.extend(errors.clone());
            for errors in [&errors, &twice] {
                // Quoting may double a cut list.
                assert!(size(errors) < 3 * MAX_BYTES, "{n}: {}", size(errors));
                assert!(!errors.is_empty());
            }
        }
    }

    #[test]
    fn what_fits_is_told_whole() {
        let mut errors = FieldErrors::new();
        errors.invalid(&Path::new("a"), json!([{"b": 1}]), "c");
        errors.invalid(&Path::new("a"), "é", "c");
        assert_eq!(errors.0[0].to_string(), "a: Invalid value: [{\"b\":1}]: c");
        assert_eq!(errors.0[1].to_string(), "a: Invalid value: \"é\": c");
        errors.invalid(&Path::new("a"), "é".repeat(MAX_BYTES).as_str(), "c");
        assert!(errors.0[2].bad_value.as_str().unwrap().ends_with("é…"));
    }
}
