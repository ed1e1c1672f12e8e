//! Notes of what settings of the kernel were before they were changed, so that they can be undone. A note is replaced
//! as a whole: whoever dies in between leaves the former one.

use std::path::Path;
use std::{fs, io};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is noted; nothing where there is no file.
///
/// # Errors
/// When there is one that cannot be read.
pub fn read<T: Default + DeserializeOwned>(note: &Path) -> io::Result<T> {
    let text = match fs::read(note) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => return Err(error),
    };
    let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {error}", note.display()));
    serde_json::from_slice(&text).map_err(damaged)
}

/// Replaces what is noted.
///
/// # Errors
/// When the file cannot be written; names it.
pub fn write(note: &Path, settings: &impl Serialize) -> io::Result<()> {
    let named = |error: io::Error| io::Error::other(format!("note former settings in {}: {error}", note.display()));
    let temporary = note.with_extension("new");
    fs::write(&temporary, serde_json::to_vec(settings)?).and_then(|()| fs::rename(&temporary, note)).map_err(named)
}
