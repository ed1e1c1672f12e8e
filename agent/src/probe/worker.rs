//! One probe of one container: when to run it and what its result means.

use std::sync::Arc;
use std::time::Duration;

use cri::{ContainerId, CriError, RuntimeService};
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::target::{self, Target};
use super::threshold::{Counter, ProbeKind, Timing};
use super::{grpc, http};
use crate::contract::ProbeOutcome;

/// A probe that cannot be run is tried this often in one period.
const TRIES: usize = 3;
/// Exec output kept for the event, bytes.
const MAX_OUTPUT: usize = 10 * 1024;

/// What one run of a probe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    Success,
    /// A success that deserves a word.
    Warning(String),
    Failure(String),
    /// The probe itself could not be run: counts neither way.
    Error(String),
}

/// Where a worker's results go.
pub(super) trait Report: Send + Sync + 'static {
    /// One run has ended.
    fn ran(&self, result: &ProbeResult);
    /// The outcome has changed.
    fn changed(&self, outcome: ProbeOutcome);
}

/// One probe, ready to run.
pub(super) struct ProbeWorker<R> {
    pub kind: ProbeKind,
    pub probe: Probe,
    pub container: Container,
    pub id: ContainerId,
    /// The pod's address, or the node's.
    pub host: String,
    pub runtime: Arc<dyn RuntimeService>,
    pub report: R,
    /// Where the outcome stands at the start.
    pub outcome: ProbeOutcome,
    pub first_delay: Duration,
}

impl<R: Report> ProbeWorker<R> {
    /// Probes until cancelled, or until a fatal kind fails or startup succeeds.
    pub async fn run(&self, token: CancellationToken) {
        // Cancel-safe: a cancelled probe has no result, which is what is wanted.
        tokio::select! {
            () = token.cancelled() => {}
            () = self.probe_on() => {}
        }
    }

    async fn probe_on(&self) {
        let timing = Timing::of(&self.probe);
        let mut counter = Counter::new(self.outcome);
        let mut ticks = tokio::time::interval_at(Instant::now() + self.first_delay, timing.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let result = self.probe_with_retries(timing.timeout).await;
            self.report.ran(&result);
            let success = match result {
                ProbeResult::Success | ProbeResult::Warning(_) => true,
                ProbeResult::Failure(_) => false,
                ProbeResult::Error(_) => continue,
            };
            let Some(outcome) = counter.record(success, &timing) else { continue };
            self.report.changed(outcome);
            let held = self.kind.is_fatal() && outcome == ProbeOutcome::Failure;
            if held || self.kind == ProbeKind::Startup {
                return;
            }
        }
    }

    async fn probe_with_retries(&self, timeout: Duration) -> ProbeResult {
        let mut result = self.probe_once(timeout).await;
        for _ in 1..TRIES {
            if !matches!(result, ProbeResult::Error(_)) {
                break;
            }
            result = self.probe_once(timeout).await;
        }
        result
    }

    async fn probe_once(&self, timeout: Duration) -> ProbeResult {
        let target = match target::resolve(&self.probe, &self.container, &self.host) {
            Ok(target) => target,
            Err(message) => return ProbeResult::Error(message),
        };
        match target {
            Target::Exec(command) => self.exec(&command, timeout).await,
            Target::Http(target) => http::probe(&target, timeout).await,
            Target::Tcp { host, port } => tcp(&host, port, timeout).await,
            Target::Grpc { host, port, service } => grpc::probe(&host, port, &service, timeout).await,
        }
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> ProbeResult {
        match self.runtime.exec_sync(&self.id, command, timeout).await {
            Ok(output) if output.exit_code == 0 => ProbeResult::Success,
            Ok(output) => {
                let mut text = output.stdout;
                text.extend(output.stderr);
                text.truncate(MAX_OUTPUT);
                ProbeResult::Failure(String::from_utf8_lossy(&text).into_owned())
            }
            Err(CriError::DeadlineExceeded { .. }) => {
                ProbeResult::Failure(format!("command timed out: {command:?} timed out after {timeout:?}"))
            }
            Err(error) => ProbeResult::Error(error.to_string()),
        }
    }
}

async fn tcp(host: &str, port: u16, timeout: Duration) -> ProbeResult {
    match tokio::time::timeout(timeout, http::connect(host, port)).await {
        Ok(Ok(_)) => ProbeResult::Success,
        Ok(Err(message)) => ProbeResult::Failure(message),
        Err(_) => ProbeResult::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}
