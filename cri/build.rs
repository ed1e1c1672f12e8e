//! Compiles the programs of the pause and demo images: static, with the
//! compiler that builds this crate, and puts them into `OUT_DIR` for
//! `src/images.rs` to embed.

use std::env;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Small before fast: these programs wait for most of their lives.
const COMMON: &[&str] = &[
    "--edition=2024",
    "--crate-type=bin",
    "-Copt-level=s",
    "-Clto=fat",
    "-Ccodegen-units=1",
    "-Cpanic=abort",
    "-Cstrip=symbols",
    "-Crelocation-model=static",
    "-Ctarget-feature=+crt-static",
    "-Clink-arg=-Wl,--build-id=none",
];

/// No libc at all; one segment saves a page per pod.
const FREESTANDING: &[&str] =
    &["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-static", "-Clink-arg=-Wl,-z,noseparate-code"];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=programs");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    compile("pause", Path::new("programs/pause.rs"), FREESTANDING, &out)?;
    compile("demo", Path::new("programs/demo/main.rs"), &[], &out)
}

fn compile(name: &str, source: &Path, flags: &[&str], out: &Path) -> Result<()> {
    let binary = out.join(name);
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("RUSTC is not set")?);
    rustc.args(COMMON).args(flags).arg("--crate-name").arg(name).arg("-o").arg(&binary).arg(source);
    let target = env::var("TARGET")?;
    if target != env::var("HOST")? {
        rustc.arg("--target").arg(&target);
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut flag = std::ffi::OsString::from("-Clinker=");
        flag.push(linker);
        rustc.arg(flag);
    }
    let status = rustc.status()?;
    if !status.success() {
        return Err(format!("{} does not compile as a static program: {status}", source.display()).into());
    }
    let mut packed = GzEncoder::new(fs::File::create(out.join(format!("{name}.gz")))?, Compression::best());
    packed.write_all(&fs::read(&binary)?)?;
    packed.finish()?.sync_all()?;
    Ok(())
}
