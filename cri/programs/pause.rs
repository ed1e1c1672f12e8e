//! `pause`: the process that holds a sandbox's namespaces open.
//!
//! It reaps orphans (it is process 1 where a pod shares its PID namespace) and
//! ends on SIGTERM or SIGINT. No libc and no std: a few kilobytes, and one page
//! of private memory per pod.
#![no_std]
#![no_main]

const SIGINT: u64 = 2;
const SIGTERM: u64 = 15;
const SIGCHLD: u64 = 17;

/// Called by `_start`. Blocked signals stay pending even for process 1, which
/// the kernel otherwise shields from signals without a handler.
#[unsafe(no_mangle)]
extern "C" fn pause_main() -> ! {
    let wanted = 1 << (SIGINT - 1) | 1 << (SIGTERM - 1) | 1 << (SIGCHLD - 1);
    sys::block(wanted);
    loop {
        match sys::wait_signal(wanted) {
            SIGCHLD => while sys::reap() {},
            SIGINT | SIGTERM => sys::exit(0),
            // Interrupted, for instance by a tracer.
            _ => {}
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(2)
}

mod sys {
    //! The few system calls, by number.
    #![allow(unsafe_code)]

    use core::arch::{asm, global_asm};

    #[cfg(target_arch = "x86_64")]
    mod number {
        pub const RT_SIGPROCMASK: u64 = 14;
        pub const WAIT4: u64 = 61;
        pub const RT_SIGTIMEDWAIT: u64 = 128;
        pub const EXIT_GROUP: u64 = 231;
    }
    #[cfg(target_arch = "aarch64")]
    mod number {
        pub const RT_SIGPROCMASK: u64 = 135;
        pub const WAIT4: u64 = 260;
        pub const RT_SIGTIMEDWAIT: u64 = 137;
        pub const EXIT_GROUP: u64 = 94;
    }

    // The kernel enters with an aligned stack and no return address.
    #[cfg(target_arch = "x86_64")]
    global_asm!(".globl _start", "_start:", "xor %ebp, %ebp", "call pause_main", options(att_syntax));
    #[cfg(target_arch = "aarch64")]
    global_asm!(".globl _start", "_start:", "bl pause_main");

    const SIG_BLOCK: u64 = 0;
    const WNOHANG: u64 = 1;
    const SIGSET_BYTES: u64 = 8;

    /// A system call of up to four arguments.
    ///
    /// # Safety
    /// Pointers among the arguments must be valid for what the call does.
    #[cfg(target_arch = "x86_64")]
    unsafe fn call(number: u64, a: u64, b: u64, c: u64, d: u64) -> i64 {
        let result: i64;
        // SAFETY: the caller vouches for the arguments; rcx and r11 are the
        // registers that the kernel clobbers.
        unsafe {
            asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
                 lateout("rcx") _, lateout("r11") _, options(nostack));
        }
        result
    }

    /// A system call of up to four arguments.
    ///
    /// # Safety
    /// Pointers among the arguments must be valid for what the call does.
    #[cfg(target_arch = "aarch64")]
    unsafe fn call(number: u64, a: u64, b: u64, c: u64, d: u64) -> i64 {
        let result: i64;
        // SAFETY: the caller vouches for the arguments.
        unsafe {
            asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
                 options(nostack));
        }
        result
    }

    pub fn block(set: u64) {
        // SAFETY: the set outlives the call; no old set is asked for.
        unsafe { call(number::RT_SIGPROCMASK, SIG_BLOCK, &raw const set as u64, 0, SIGSET_BYTES) };
    }

    /// The next pending signal of the set, or 0.
    pub fn wait_signal(set: u64) -> u64 {
        // SAFETY: the set outlives the call; neither details nor a timeout are asked for.
        let signal = unsafe { call(number::RT_SIGTIMEDWAIT, &raw const set as u64, 0, 0, SIGSET_BYTES) };
        u64::try_from(signal).unwrap_or(0)
    }

    /// Whether a dead child was there to be reaped.
    pub fn reap() -> bool {
        // SAFETY: no pointers are passed; -1 means any child.
        unsafe { call(number::WAIT4, u64::MAX, 0, WNOHANG, 0) > 0 }
    }

    pub fn exit(code: u64) -> ! {
        loop {
            // SAFETY: no pointers are passed.
            unsafe { call(number::EXIT_GROUP, code, 0, 0, 0) };
        }
    }
}
