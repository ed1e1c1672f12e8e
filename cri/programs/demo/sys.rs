//! Signals and terminals by libc: the only unsafe code of `demo`.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_ulong, c_void};

const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
const SIG_IGN: usize = 1;
const SIG_BLOCK: c_int = 0;
const TIOCGWINSZ: c_ulong = 0x5413;

/// glibc's `sigset_t`: 1024 bits.
#[repr(C)]
#[derive(Clone, Copy)]
struct SigSet([u64; 16]);

#[repr(C)]
struct WinSize {
    rows: u16,
    columns: u16,
    pixels: [u16; 2],
}

unsafe extern "C" {
    fn sigaddset(set: *mut SigSet, signal: c_int) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SigSet, old: *mut SigSet) -> c_int;
    fn sigwait(set: *const SigSet, signal: *mut c_int) -> c_int;
    fn signal(signal: c_int, handler: usize) -> usize;
    fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int;
}

/// SIGTERM and SIGINT, blocked in this thread and the ones it starts later.
pub struct Signals(SigSet);

impl Signals {
    /// Call it before any thread starts.
    pub fn block() -> Self {
        let mut set = SigSet([0; 16]);
        // SAFETY: the set is ours, zeroed (empty), and outlives the calls.
        unsafe {
            sigaddset(&raw mut set, SIGTERM);
            sigaddset(&raw mut set, SIGINT);
            pthread_sigmask(SIG_BLOCK, &raw const set, std::ptr::null_mut());
        }
        Self(set)
    }

    /// Waits for one of them.
    pub fn wait(&self) -> i32 {
        let mut got = 0;
        // SAFETY: both pointers are valid for the call.
        while unsafe { sigwait(&raw const self.0, &raw mut got) } != 0 {}
        got
    }
}

/// Lets the kernel reap children that process 1 inherits.
pub fn ignore_children() {
    // SAFETY: ignoring needs no handler.
    unsafe { signal(SIGCHLD, SIG_IGN) };
}

/// Rows and columns of the terminal at standard input, or zeros.
pub fn window_size() -> (u16, u16) {
    let mut size = WinSize { rows: 0, columns: 0, pixels: [0; 2] };
    // SAFETY: TIOCGWINSZ fills one winsize, which `size` is.
    unsafe { ioctl(0, TIOCGWINSZ, (&raw mut size).cast()) };
    let _ = size.pixels;
    (size.rows, size.columns)
}
