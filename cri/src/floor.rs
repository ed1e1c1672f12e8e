//! How long a pod takes by raw CRI calls: the floor under every pod start.
//!
//! For benchmarks, which print their own figures as ratios to these.

use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::Instant;

use crate::error::Result;
use crate::service::RuntimeService;
use crate::types::{ContainerConfig, SandboxConfig};

/// What one pod took, call by call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodTimes {
    pub run_pod_sandbox: Duration,
    pub create_container: Duration,
    pub start_container: Duration,
    pub stop_container: Duration,
    pub remove_container: Duration,
    pub stop_pod_sandbox: Duration,
    pub remove_pod_sandbox: Duration,
}

impl PodTimes {
    /// From nothing to a started container.
    pub fn start(&self) -> Duration {
        self.run_pod_sandbox + self.create_container + self.start_container
    }

    /// From a running container to nothing.
    pub fn delete(&self) -> Duration {
        self.stop_container + self.remove_container + self.stop_pod_sandbox + self.remove_pod_sandbox
    }
}

/// Measurements, in the order they were made.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    pub pods: Vec<PodTimes>,
    /// From the first call to the last pod's start, all pods together.
    pub all_started: Duration,
}

impl Floor {
    /// The smallest value that `percent` of the pods do not exceed.
    pub fn percentile(&self, percent: usize, of: impl Fn(&PodTimes) -> Duration) -> Duration {
        let mut times: Vec<_> = self.pods.iter().map(of).collect();
        times.sort();
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).or(times.last()).copied().unwrap_or_default()
    }

    /// The median over the pods.
    pub fn median(&self, of: impl Fn(&PodTimes) -> Duration) -> Duration {
        self.percentile(50, of)
    }
}

/// Starts and deletes `pods` pods of one container, `parallel` at a time. The
/// configurations are templates: each pod gets a number appended to its names.
/// The container must run a program that blocks SIGTERM and waits for it, as
/// the demo image's `serve` does.
pub async fn measure(
    runtime: &dyn RuntimeService,
    sandbox: &SandboxConfig,
    container: &ContainerConfig,
    pods: usize,
    parallel: usize,
) -> Result<Floor> {
    let mut floor = Floor::default();
    let numbers: Vec<_> = (0..pods).collect();
    for batch in numbers.chunks(parallel.max(1)) {
        let begin = Instant::now();
        let started = try_join_all(batch.iter().map(|n| start(runtime, sandbox, container, *n))).await?;
        floor.all_started += begin.elapsed();
        for (_, id, _) in &started {
            ready_to_stop(runtime, id).await?;
        }
        floor.pods.extend(try_join_all(started.into_iter().map(|pod| delete(runtime, pod))).await?);
    }
    Ok(floor)
}

type Started = (crate::SandboxId, crate::ContainerId, PodTimes);

async fn start(
    runtime: &dyn RuntimeService,
    sandbox: &SandboxConfig,
    container: &ContainerConfig,
    number: usize,
) -> Result<Started> {
    let mut sandbox = sandbox.clone();
    sandbox.metadata.name = format!("{}-{number}", sandbox.metadata.name);
    sandbox.metadata.uid = format!("{}-{number}", sandbox.metadata.uid);
    let mut times = PodTimes::default();
    let begin = Instant::now();
    let pod = runtime.run_pod_sandbox(&sandbox, "").await?;
    times.run_pod_sandbox = begin.elapsed();
    let begin = Instant::now();
    let id = runtime.create_container(&pod, container, &sandbox).await?;
    times.create_container = begin.elapsed();
    let begin = Instant::now();
    runtime.start_container(&id).await?;
    times.start_container = begin.elapsed();
    Ok((pod, id, times))
}

/// Waits until the container's process takes SIGTERM (process 1 loses signals
/// it is not prepared for), so that stopping it measures the runtime.
async fn ready_to_stop(runtime: &dyn RuntimeService, id: &crate::ContainerId) -> Result<()> {
    let Some(pid) = runtime.container_status(id).await?.pid else { return Ok(()) };
    let end = Instant::now() + Duration::from_secs(5);
    let path = format!("/proc/{pid}/status");
    while Instant::now() < end && std::fs::read_to_string(&path).is_ok_and(|status| !takes_sigterm(&status)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Whether a process with this `/proc/PID/status` blocks SIGTERM, as the
/// built-in programs do at once. Caught signals prove nothing: runc's own
/// process, which is there until the exec, catches them all.
fn takes_sigterm(status: &str) -> bool {
    let mask = status.lines().find_map(|l| l.strip_prefix("SigBlk:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).is_some_and(|mask| mask >> 14 & 1 == 1)
}

async fn delete(runtime: &dyn RuntimeService, (pod, id, mut times): Started) -> Result<PodTimes> {
    let begin = Instant::now();
    runtime.stop_container(&id, Duration::from_secs(10)).await?;
    times.stop_container = begin.elapsed();
    let begin = Instant::now();
    runtime.remove_container(&id).await?;
    times.remove_container = begin.elapsed();
    let begin = Instant::now();
    runtime.stop_pod_sandbox(&pod).await?;
    times.stop_pod_sandbox = begin.elapsed();
    let begin = Instant::now();
    runtime.remove_pod_sandbox(&pod).await?;
    times.remove_pod_sandbox = begin.elapsed();
    Ok(times)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fake::{FakeRuntime, Op};

    #[tokio::test]
    async fn every_pod_is_measured_and_gone() {
        let fake = FakeRuntime::new();
        fake.add_image("demo");
        let container = ContainerConfig { image: "demo".to_owned(), ..Default::default() };
        let floor = measure(&*fake, &SandboxConfig::default(), &container, 5, 2).await.unwrap();
        assert_eq!((floor.pods.len(), fake.count(Op::RunPodSandbox)), (5, 5));
        assert!(fake.sandboxes().is_empty() && fake.containers().is_empty());
    }

    #[test]
    fn sigterm_is_the_fifteenth_bit() {
        assert!(takes_sigterm("SigBlk:\t0000000000004000\nSigCgt:\t0000000000000000\n"));
        assert!(!takes_sigterm("SigBlk:\t0000000000000000\nSigCgt:\tfffffffdffc1feff\n"));
        assert!(!takes_sigterm("SigBlk:\tzz\n") && !takes_sigterm(""));
    }

    #[test]
    fn percentiles_are_members() {
        let pod = |ms| PodTimes { start_container: Duration::from_millis(ms), ..Default::default() };
        let floor = Floor { pods: vec![pod(3), pod(1), pod(2)], ..Default::default() };
        let ms = |percent| floor.percentile(percent, PodTimes::start).as_millis();
        assert_eq!((ms(0), ms(50), ms(99)), (1, 2, 3));
        assert_eq!(Floor::default().median(PodTimes::start), Duration::ZERO);
    }
}
