//! Reading and atomically replacing the files of the PKI directory.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::PkiError;

fn io(operation: &'static str, path: &Path) -> impl Fn(std::io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::Io { operation, path: path.clone(), source }
}

/// Creates the directory, for its owner only.
pub(super) fn create_directory(path: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create", path))
}

/// The file's text; `None` when there is no file.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(super::garbage(path, "PEM file", "it is not text")),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("read", path)(error)),
    }
}

/// Replaces the file in one step; on disk when this returns.
pub(super) fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let replace = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    replace().map_err(|error| {
        // What is left of it is of no use; that it cannot be removed either says nothing new.
        let _ = std::fs::remove_file(&temporary);
        io("write", path)(error)
    })
}

/// The same, unless it says so already.
pub(super) fn write_if_changed(path: &Path, text: &str) -> Result<(), PkiError> {
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) { Ok(()) } else { write(path, text) }
}
