//! What only the kernel can do for a program that a test starts.

#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;

/// Has the kernel kill what this starts when the thread that starts it ends, however that ends: a test
/// program that is killed leaves nothing running. Threads that wait for their programs outlive them.
pub fn end_with_us(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec this is one system call; nothing is allocated and no lock taken.
    unsafe { command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)) }
}
