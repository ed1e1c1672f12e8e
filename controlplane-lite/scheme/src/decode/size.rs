//! What a decoded object costs: its length as JSON and an estimate of its memory.

use std::io;

use serde_json::Value;

/// Memory that one request's decoded object may take, about. An honest body of three megabytes takes a third of it; one
/// of tiny objects would take eighty times its length.
pub const MAX_DECODED: usize = 64 * 1024 * 1024;

/// A value itself, in its parent.
const NODE: usize = size_of::<Value>();
/// An entry of an object beside its value.
const ENTRY: usize = size_of::<String>() + 8;
/// What the first entry of an object allocates: a whole leaf.
const LEAF: usize = 600;
/// What the first item of a list allocates.
const FIRST_ITEMS: usize = 4 * NODE;

/// Memory that is left for a request's object.
#[derive(Debug)]
pub struct Budget {
    left: std::cell::Cell<usize>,
}

/// The object is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the decoded object is larger than {MAX_DECODED} bytes")]
pub struct TooLarge;

impl Default for Budget {
    fn default() -> Self {
        Self { left: MAX_DECODED.into() }
    }
}

impl Budget {
    fn spend(&self, bytes: usize) -> Result<(), TooLarge> {
        self.left.set(self.left.get().checked_sub(bytes).ok_or(TooLarge)?);
        Ok(())
    }

    /// An item of a list; `first` says whether it is the list's first.
    ///
    /// # Errors
    /// When the budget is spent, as all of these.
    pub fn item(&self, first: bool) -> Result<(), TooLarge> {
        self.spend(if first { NODE + FIRST_ITEMS } else { NODE })
    }

    /// An entry of an object.
    ///
    /// # Errors
    /// As [`Budget::item`].
    pub fn entry(&self, key: &str, first: bool) -> Result<(), TooLarge> {
        self.spend(key.len() + if first { LEAF } else { NODE + ENTRY })
    }

    /// A text.
    ///
    /// # Errors
    /// As [`Budget::item`].
    pub fn text(&self, length: usize) -> Result<(), TooLarge> {
        self.spend(length)
    }
}

/// Memory that a value takes, about.
#[must_use]
pub fn memory(value: &Value) -> usize {
    NODE + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => FIRST_ITEMS + items.iter().map(memory).sum::<usize>(),
        Value::Object(map) => LEAF + map.iter().map(|(key, value)| key.len() + ENTRY + memory(value)).sum::<usize>(),
        _ => 0,
    }
}

/// Length of a value as JSON.
#[must_use]
pub fn encoded(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}
