//! Image archives: OCI layouts and `docker save`.
#![no_main]

use std::path::PathBuf;
use std::sync::OnceLock;

use cri::fuzzing;
use libfuzzer_sys::fuzz_target;

static PATH: OnceLock<PathBuf> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let path = PATH.get_or_init(|| std::env::temp_dir().join(format!("fuzz-archive-{}", std::process::id())));
    match data {
        [b'f', rest @ ..] => fuzzing::image_files(path, rest),
        _ => fuzzing::image_archive(path, data),
    }
    let _ = std::fs::remove_file(path);
});
