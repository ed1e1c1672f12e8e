//! A suite with a `main` of its own, in a world of its own: nothing of it can leak or stay. Its tests run
//! one after the other.
//!
//! New network, mount and PID namespaces: there is no way out, mounts are the suite's alone, and when its
//! process ends the kernel ends everything in it.

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::watchdog::Watchdog;
use crate::{machine, sys, time, token};

/// Tells the process inside which cgroup is its own.
const INSIDE: &str = "COPEPOD_TEST_CGROUP";

/// Tests of a module by their names, in the order they run: functions of one world.
#[macro_export]
macro_rules! tests {
    ($module:ident: $($name:ident)*) => { &[$((stringify!($name), |w| Box::pin($module::$name(w))),)*] };
}

/// Runs `inside` in the new namespaces, with the cgroup that all its pods live under; whether every test passed.
pub fn run(name: &str, inside: impl FnOnce(&str) -> Result<bool>) -> ExitCode {
    let outcome = match env::var(INSIDE) {
        Ok(cgroup) => enter().and_then(|()| inside(&cgroup)),
        Err(_) => run_inside(name),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program again inside the new namespaces, and cleans up after it.
fn run_inside(name: &str) -> Result<bool> {
    let _token = token::take()?;
    let cgroup = format!("/copepod-test-{name}-{}", std::process::id());
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    unshare(flags).context("new namespaces: the suite needs root")?;
    let mut again = Command::new(env::current_exe()?);
    let status = sys::end_with_us(again.args(env::args_os().skip(1)).env(INSIDE, &cgroup)).status();
    let status = status.context("run inside the new namespaces")?;
    remove_cgroups(&cgroup)?;
    Ok(status.success())
}

/// First thing inside: its own /proc and /run, and the loopback interface.
fn enter() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("keep mounts private")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).context("mount /proc")?;
    // Shims put their sockets below /run/containerd, wherever containerd is.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).context("mount /run")?;
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("run ip")?;
    ensure!(status.success(), "ip cannot start the loopback interface");
    Ok(())
}

/// Removes a cgroup with all below it, in every hierarchy.
fn remove_cgroups(cgroup: &str) -> Result<()> {
    let name = Path::new(cgroup).strip_prefix("/")?;
    let root = Path::new("/sys/fs/cgroup");
    let mut bases = vec![root.to_owned()];
    bases.extend(fs::read_dir(root)?.flatten().map(|e| e.path()).filter(|p| p.is_dir()));
    // A hierarchy may be nested for this process: ask what is mounted where.
    for base in bases {
        remove_tree(&base.join(name)).with_context(|| format!("remove cgroup {}", base.join(name).display()))?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<()> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries.flatten().filter(|e| e.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    // The kernel needs a moment after the last process.
    time::until("the end of its processes", || Ok(fs::remove_dir(path)?))
}

/// What came of the tests that the command line names: all whose names have every argument in them.
#[derive(Debug)]
pub struct Report {
    filters: Vec<String>,
    passed: usize,
    failed: Vec<String>,
}

impl Report {
    /// Of the tests that this process was asked for.
    #[must_use]
    pub fn of_arguments() -> Self {
        let filters = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
        Self { filters, passed: 0, failed: Vec::new() }
    }

    /// Whether that test was asked for.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.filters.iter().all(|filter| name.contains(filter.as_str()))
    }

    /// Runs a test to its end, and no longer than a scenario may take; `explain` adds to what a failed one says.
    pub async fn run(&mut self, name: &str, work: impl Future<Output = Result<()>>, explain: impl FnOnce() -> String) {
        let (begin, limit) = (Instant::now(), time::scenario());
        // One that keeps its thread notices no limit: then everything inside ends with process 1.
        let dog = Watchdog::within(limit + time::limit(), name, processes, || std::process::exit(1));
        let outcome = tokio::time::timeout(limit, work).await;
        drop(dog);
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("it hangs, after {limit:?}; there are\n{}", processes())));
        match outcome {
            Ok(()) => {
                println!("test {name} ... ok ({:.2} s)", begin.elapsed().as_secs_f32());
                self.passed += 1;
            }
            Err(error) => {
                println!("test {name} ... FAILED\n    {error:#}{}", explain());
                self.failed.push(name.to_owned());
            }
        }
    }

    /// Whether all have passed.
    ///
    /// # Errors
    /// When no test was run.
    pub fn conclude(self, suite: &str) -> Result<bool> {
        ensure!(self.passed + self.failed.len() > 0, "no test matches");
        println!("\n{suite}: {} passed, {} failed {:?}", self.passed, self.failed.len(), self.failed);
        Ok(self.failed.is_empty())
    }
}

fn processes() -> String {
    machine::processes_below(Path::new("/proc"))
}
