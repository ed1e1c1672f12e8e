//! Rows of the file, for the fuzz targets.

use super::schema::{decode, encode, is_value, row, split};

/// A row's key and value: what is read is written as it was.
pub fn rows(bytes: &[u8]) {
    if let Some((key, revision)) = split(bytes) {
        assert_eq!(row(key, revision), bytes);
    }
    let value = decode(bytes);
    assert_eq!(value.is_some(), is_value(bytes));
    if let Some(value) = value {
        assert_eq!(encode(Some(&value)), bytes);
    }
}
