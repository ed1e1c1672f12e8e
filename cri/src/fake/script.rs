//! Faults to come and calls that were.

use std::time::Duration;

use super::Op;
use crate::error::CriError;

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeCall {
    pub op: Op,
    /// What it was about: an id, a name, an image.
    pub object: String,
}

#[derive(Clone, Debug)]
pub(super) enum Fault {
    Fail(CriError),
    LoseAnswer(CriError),
    Delay(Duration),
}

#[derive(Debug)]
pub(super) struct Scripted {
    op: Op,
    times: usize,
    fault: Fault,
}

/// What the next call has to suffer.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub delay: Option<Duration>,
    pub fail: Option<CriError>,
    pub lose: Option<CriError>,
}

#[derive(Debug, Default)]
pub(super) struct Script {
    pub faults: Vec<Scripted>,
    pub calls: Vec<FakeCall>,
}

impl Script {
    pub(super) fn add(&mut self, op: Op, times: usize, fault: Fault) {
        self.faults.push(Scripted { op, times, fault });
    }

    /// Records a call and takes what it has to suffer: at most one delay, and
    /// at most one failure or lost answer, oldest first.
    pub(super) fn take(&mut self, op: Op, object: String) -> Verdict {
        self.calls.push(FakeCall { op, object });
        let mut verdict = Verdict::default();
        for scripted in self.faults.iter_mut().filter(|s| s.op == op && s.times > 0) {
            let failed = verdict.fail.is_some() || verdict.lose.is_some();
            match &scripted.fault {
                Fault::Delay(by) if verdict.delay.is_none() => verdict.delay = Some(*by),
                Fault::Fail(error) if !failed => verdict.fail = Some(error.clone()),
                Fault::LoseAnswer(error) if !failed => verdict.lose = Some(error.clone()),
                _ => continue,
            }
            scripted.times -= 1;
        }
        self.faults.retain(|s| s.times > 0);
        verdict
    }
}
