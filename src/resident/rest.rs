//! When a process is at rest, and when looking for memory to give back pays. Pure.

use std::time::Duration;

/// How often the process is looked at.
pub const PERIOD: Duration = Duration::from_secs(10);
/// A process that used the processor for less than this in a period is at rest: one percent.
const QUIET: Duration = Duration::from_millis(100);
/// Periods after which everything that the process does at rest has been done again: leases and probes.
const SETTLING: u32 = 3;
/// Growth since then that is worth the page faults: 1 MiB, in pages.
const WORTH: u64 = 256;

/// What the kernel says of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Processor time since the start.
    pub cpu: Duration,
    /// Pages in memory.
    pub resident: u64,
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub struct Rest {
    last: Option<Sample>,
    /// Quiet looks since memory was given back, and the pages that were in use again after [`SETTLING`] of them.
    /// Nothing when work came before: what it left says nothing about rest.
    given: Option<(u32, u64)>,
}

impl Rest {
    /// True when the process is at rest and has taken much since it last gave back.
    pub fn has_something_to_give(&mut self, now: Sample) -> bool {
        let Some(last) = self.last.replace(now) else { return false };
        let quiet = now.cpu.saturating_sub(last.cpu) < QUIET;
        if let Some((looks, settled)) = &mut self.given
            && *looks < SETTLING
        {
            if quiet {
                *looks += 1;
                *settled = now.resident;
            } else {
                self.given = None;
            }
            return false;
        }
        let worth = self.given.is_none_or(|(_, settled)| now.resident >= settled.saturating_add(WORTH));
        if quiet && worth {
            self.given = Some((0, now.resident));
        }
        quiet && worth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processor milliseconds within the period, pages at its end, and whether to give back then.
    fn check(looks: &[(u64, u64, bool)]) {
        let mut rest = Rest::default();
        let mut cpu = Duration::ZERO;
        for (index, (millis, resident, expect)) in looks.iter().enumerate() {
            cpu += Duration::from_millis(*millis);
            let gives = rest.has_something_to_give(Sample { cpu, resident: *resident });
            assert_eq!(gives, *expect, "look {index} of {looks:?}");
        }
    }

    #[test]
    fn the_first_quiet_period_gives_back() {
        check(&[(900, 6000, false), (400, 6000, false), (100, 6000, false), (99, 6000, true), (5, 1500, false)]);
    }

    #[test]
    fn one_look_says_nothing_about_a_period() {
        check(&[(0, 6000, false), (0, 6000, true)]);
    }

    #[test]
    fn what_is_used_at_rest_stays() {
        let mut looks = vec![(900, 6000, false), (5, 6000, true)];
        looks.extend([(5, 1500, false), (5, 2900, false), (5, 3000, false)]);
        looks.extend([(5, 3000, false); 50]);
        check(&looks);
    }

    #[test]
    fn work_is_given_back_after_its_end() {
        let settled = [(900, 6000, false), (5, 6000, true), (5, 1500, false), (5, 2900, false), (5, 3000, false)];
        let mut looks = settled.to_vec();
        looks.extend([(5, 3000, false), (700, 7000, false), (300, 7500, false), (5, 7500, true), (5, 2000, false)]);
        check(&looks);
        // Little by little counts, too; a little alone does not.
        let mut looks = settled.to_vec();
        looks.extend([(5, 3255, false), (5, 3256, true)]);
        check(&looks);
    }

    /// A pause of ten seconds between two pieces of work, as when many pods come and go in turns.
    #[test]
    fn work_right_after_is_given_back_as_well() {
        let started = [(900, 6000, false), (5, 6000, true)];
        for quiet_before in 0..SETTLING {
            let mut looks = started.to_vec();
            looks.extend((0..quiet_before).map(|_| (5, 2900, false)));
            looks.extend([(700, 9000, false), (800, 19_000, false), (5, 19_000, true), (5, 2000, false)]);
            check(&looks);
        }
    }

    #[test]
    fn nonsense_from_the_kernel_is_survived() {
        let mut rest = Rest::default();
        for cpu in [5, 0, 3, 0, u64::MAX, 0] {
            for resident in [0, u64::MAX, 1] {
                rest.has_something_to_give(Sample { cpu: Duration::from_secs(cpu), resident });
            }
        }
    }
}
