//! Memory given back to the kernel: the program's own pages, which can be read
//! again from its file, and what the allocator holds for later.

mod mappings;

use std::fs;
use std::io;

/// Lets go of the program's text and constants. Each page that is used again is mapped from the page cache, or read
/// from disk if the kernel has dropped it there meanwhile.
///
/// # Errors
/// When the kernel does not tell of this process's mappings, or refuses, as it does for locked memory.
pub fn give_back_program() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    for range in mappings::unchanged(&smaps, &program.to_string_lossy()) {
        // SAFETY: the kernel has just said of this mapping that it is of the program's file, cannot be written and
        // holds no page that differs from it. Nothing in this process maps over its program or makes it writable. The
        // advice empties page tables; the next access finds the file's contents again at the same address.
        let done = unsafe { libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Lets all threads allocate from one heap. For before any thread starts.
///
/// The allocator gives every thread a heap of its own and hands back the ends of none but the first.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number that the allocator reads when a thread first allocates; its lock is taken.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Hands what the allocator keeps of freed memory to the kernel.
pub fn give_back_freed() {
    // Other C libraries keep too little for such a call.
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes the allocator's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Written by the loader before it was sealed: what must not be dropped.
    static RELOCATED: [&str; 3] = ["one", "two", "three"];

    fn resident_of_the_program() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Has every page of the program mapped.
    fn touch_the_program() {
        let program = fs::read_link("/proc/self/exe").unwrap();
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let found = mappings::unchanged(&smaps, &program.to_string_lossy());
        assert!(!found.is_empty(), "{smaps}");
        for page in found.into_iter().flat_map(|range| range.step_by(4096)) {
            // SAFETY: a readable mapping of the program, which nothing unmaps.
            std::hint::black_box(unsafe { std::ptr::read_volatile(page as *const u8) });
        }
    }

    /// Kilobytes of files that are resident with every page of the program, and
    /// after they were given back.
    fn before_and_after() -> (u64, u64) {
        touch_the_program();
        let before = resident_of_the_program();
        give_back_program().unwrap();
        give_back_freed();
        (before, resident_of_the_program())
    }

    #[test]
    fn the_program_goes_on_after_its_pages_are_gone() {
        // Other tests, which run beside this one, fetch back what they use.
        let given_back = || {
            let (before, after) = before_and_after();
            anyhow::ensure!(after < before / 2, "{before} kB of files were resident, and {after} kB still are");
            Ok(())
        };
        harness::time::until("less that is resident", given_back).unwrap();
        let at = std::hint::black_box(1);
        assert_eq!(RELOCATED.get(at), Some(&"two"));
        // Code that has not run yet, and a thread's start.
        let sum = std::thread::spawn(|| (0..1000_u64).map(|n| n.to_string().len()).sum::<usize>()).join().unwrap();
        assert_eq!(sum, 2890);
    }
}
