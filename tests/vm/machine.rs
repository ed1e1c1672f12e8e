//! The machine: qemu without acceleration, network or disk, and with a limit to
//! its time. It switches itself off.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::image::{self, Init};
use crate::report::Report;

/// How long the machine may run: several times what it takes on two idle cores.
const LIMIT: Duration = Duration::from_secs(900);

/// Ends the emulator however the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a machine left: what it told, and what it printed beside.
#[derive(Debug)]
pub struct Outcome {
    pub report: Report,
    /// The first serial port: the kernel's messages and the script's.
    pub console: String,
}

/// Builds the machine, lets it run and reads what it told. One that had to be
/// stopped has told less; what is missing then is for the checks to find.
pub fn run(init: Init) -> Result<Outcome> {
    let directory = tempfile::Builder::new().prefix("copepod-vm-").tempdir()?;
    let initramfs = directory.path().join("initramfs");
    image::build(&initramfs, init).context("build the machine's file system")?;
    let (console, report) = (directory.path().join("console"), directory.path().join("report"));
    let mut running = Running(start(&initramfs, &console, &report)?);
    let deadline = Instant::now() + LIMIT;
    while running.0.try_wait().context("wait for qemu")?.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended = running.0.try_wait().context("wait for qemu")?;
    drop(running);
    let text = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut console = text(&console).unwrap_or_default();
    match ended {
        None => console.push_str(&format!("\nstopped after {LIMIT:?}\n")),
        Some(status) if !status.success() => console.push_str(&format!("\nqemu: {status}\n")),
        Some(_) => {}
    }
    Ok(Outcome { report: Report::parse(&text(&report).unwrap_or_default()), console })
}

fn start(initramfs: &Path, console: &Path, report: &Path) -> Result<Child> {
    let kernel = Path::new(image::FETCHED).join("vmlinuz");
    // An emulator whose test is killed must not run on.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    command.args(["-append", "console=ttyS0 loglevel=4 panic=-1 no_timer_check mitigations=off random.trust_cpu=on"]);
    command.arg("-serial").arg(format!("file:{}", console.display()));
    command.arg("-serial").arg(format!("file:{}", report.display()));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().context("start qemu-system-x86_64: run `make vm`")
}
