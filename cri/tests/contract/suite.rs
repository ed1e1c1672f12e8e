//! What every runtime must do, the fake included.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cri::types::{
    AttachRequest, CgroupDriver, ContainerEventKind, ContainerFilter, ContainerState, ExecRequest,
    LinuxContainerResources, SandboxFilter, SandboxState,
};
use cri::{ContainerId, CriError, ImageRef, SandboxId, images};
use futures::StreamExt;
use harness::time;

use crate::subject::{Does, HANDLER, Pod, Subject};

/// A grace period and a time-out that nothing here uses up.
pub const DAY: Duration = Duration::from_secs(86_400);
/// The shortest that CRI can tell: it counts in seconds.
const SHORTEST: Duration = Duration::from_secs(1);

/// Waits until a container is in a state.
pub async fn until(s: &Subject, id: &ContainerId, state: ContainerState) -> Result<cri::types::ContainerStatus> {
    time::eventually(&format!("a container that is {state:?}"), async || {
        let status = s.runtime.container_status(id).await?;
        ensure!(status.state == state, "it is {:?}", status.state);
        Ok(status)
    })
    .await
}

pub async fn tells_version_and_status(s: &Subject) -> Result<()> {
    let version = s.runtime.version().await?;
    ensure!(!version.runtime_version.is_empty() && version.runtime_api_version.starts_with("v1"), "{version:?}");
    let status = s.runtime.status().await?;
    ensure!(status.conditions.iter().any(|c| c.kind == "RuntimeReady" && c.status), "{status:?}");
    s.runtime.update_pod_cidr("10.42.7.0/24").await?;
    Ok(())
}

pub async fn tells_its_cgroup_driver(s: &Subject) -> Result<()> {
    let version = s.runtime.version().await?.runtime_version;
    let answer = s.runtime.cgroup_driver().await;
    if s.is_fake() || version.trim_start_matches('v').starts_with("2.") {
        ensure!(answer.as_ref().is_ok_and(|driver| *driver == Some(CgroupDriver::Cgroupfs)), "{version}: {answer:?}");
    } else {
        ensure!(matches!(answer, Err(CriError::Unimplemented { .. })), "{version}: {answer:?}");
    }
    Ok(())
}

pub async fn sandbox_lives_and_dies(s: &Subject) -> Result<()> {
    let config = s.sandbox("life");
    let id = s.runtime.run_pod_sandbox(&config, "").await?;
    let status = s.runtime.pod_sandbox_status(&id).await?;
    ensure!(status.summary.metadata == config.metadata && status.summary.labels == config.labels, "{status:?}");
    ensure!(status.summary.annotations == config.annotations && status.summary.created_at.is_some(), "{status:?}");
    ensure!(status.namespaces == config.security.namespaces && status.ips.is_empty(), "{status:?}");
    ensure!(status.pid.is_some_and(|pid| pid > 0), "no pid: {status:?}");
    let by =
        |state, label: &str| SandboxFilter { state, labels: [("app".to_owned(), label.to_owned())].into(), id: None };
    let count = async |filter| s.runtime.list_pod_sandboxes(&filter).await.map(|l| l.len());
    ensure!(count(by(Some(SandboxState::Ready), "life")).await? == 1, "not listed as ready");
    ensure!(count(by(Some(SandboxState::NotReady), "life")).await? == 0, "listed as not ready");
    ensure!(count(by(None, "other")).await? == 0, "listed by another label");
    ensure!(count(SandboxFilter { id: Some(id.clone()), ..Default::default() }).await? == 1, "not listed by id");
    s.runtime.stop_pod_sandbox(&id).await?;
    s.runtime.stop_pod_sandbox(&id).await.context("stop again")?;
    ensure!(s.runtime.pod_sandbox_status(&id).await?.summary.state == SandboxState::NotReady, "still ready");
    s.runtime.remove_pod_sandbox(&id).await?;
    s.runtime.remove_pod_sandbox(&id).await.context("remove again")?;
    s.runtime.stop_pod_sandbox(&id).await.context("stop after removal")?;
    let gone = s.runtime.pod_sandbox_status(&id).await;
    ensure!(matches!(gone, Err(CriError::NotFound { .. })), "{gone:?}");
    Ok(())
}

pub async fn names_are_taken_once(s: &Subject) -> Result<()> {
    let pod = s.pod("taken", Does::Runs).await?;
    let again = s.runtime.run_pod_sandbox(&s.sandbox("taken"), "").await;
    ensure!(again.as_ref().is_err_and(CriError::is_already_exists), "{again:?}");
    let container = s.container("taken", Does::Runs);
    let again = s.runtime.create_container(&pod.sandbox, &container, &s.sandbox("taken")).await;
    ensure!(again.as_ref().is_err_and(CriError::is_already_exists), "{again:?}");
    let mut next = container;
    next.metadata.attempt = 1;
    s.runtime.create_container(&pod.sandbox, &next, &s.sandbox("taken")).await.context("the next attempt")?;
    s.remove(&pod).await
}

pub async fn handlers_are_chosen_by_name(s: &Subject) -> Result<()> {
    let config = s.sandbox("handled");
    let unknown = s.runtime.run_pod_sandbox(&config, "unheard-of").await;
    ensure!(unknown.as_ref().is_err_and(|e| e.to_string().contains("unheard-of")), "{unknown:?}");
    ensure!(s.is_fake() || !s.second_was_used(), "the second runtime is the default");
    let sandbox = s.runtime.run_pod_sandbox(&config, HANDLER).await?;
    let status = s.runtime.pod_sandbox_status(&sandbox).await?;
    ensure!(status.summary.runtime_handler == HANDLER, "{status:?}");
    let container = s.runtime.create_container(&sandbox, &s.container("handled", Does::Runs), &config).await?;
    s.runtime.start_container(&container).await?;
    ensure!(s.second_was_used(), "the second runtime was not used");
    s.remove(&Pod { sandbox, container }).await
}

pub async fn container_lives_and_dies(s: &Subject) -> Result<()> {
    let sandbox = s.sandbox("box");
    let pod = s.runtime.run_pod_sandbox(&sandbox, "").await?;
    let config = s.container("main", Does::Runs);
    let id = s.runtime.create_container(&pod, &config, &sandbox).await?;
    let created = s.runtime.container_status(&id).await?;
    ensure!(created.state == ContainerState::Created && created.started_at.is_none(), "{created:?}");
    ensure!(created.metadata == config.metadata && created.labels == config.labels, "{created:?}");
    s.runtime.start_container(&id).await?;
    s.serves("box", "main").await?;
    let running = s.runtime.container_status(&id).await?;
    ensure!(running.state == ContainerState::Running && running.started_at.is_some(), "{running:?}");
    ensure!(running.pid.is_some_and(|pid| pid > 0) && running.finished_at.is_none(), "{running:?}");
    ensure!(running.image == images::DEMO && !running.image_ref.is_empty(), "{running:?}");
    ensure!(running.log_path == format!("{}/main.log", sandbox.log_directory), "{running:?}");
    let by = |state| ContainerFilter { sandbox: Some(pod.clone()), state, ..Default::default() };
    let listed = s.runtime.list_containers(&by(Some(ContainerState::Running))).await?;
    ensure!(listed.len() == 1 && listed[0].id == id && listed[0].sandbox == pod, "{listed:?}");
    ensure!(s.runtime.list_containers(&by(Some(ContainerState::Exited))).await?.is_empty(), "listed as exited");
    s.runtime.stop_container(&id, DAY).await?;
    s.runtime.stop_container(&id, DAY).await.context("stop again")?;
    let exited = s.runtime.container_status(&id).await?;
    ensure!(exited.state == ContainerState::Exited && exited.exit_code == 0, "{exited:?}");
    ensure!(exited.reason == "Completed" && exited.finished_at.is_some() && exited.pid.is_none(), "{exited:?}");
    let again = s.runtime.start_container(&id).await;
    ensure!(matches!(again, Err(CriError::Runtime { .. })), "{again:?}");
    s.runtime.remove_container(&id).await?;
    s.runtime.remove_container(&id).await.context("remove again")?;
    s.runtime.stop_container(&id, Duration::ZERO).await.context("stop after removal")?;
    let gone = s.runtime.container_status(&id).await;
    ensure!(matches!(gone, Err(CriError::NotFound { .. })), "{gone:?}");
    s.runtime.remove_pod_sandbox(&pod).await?;
    Ok(())
}

pub async fn what_is_missing_is_not_found(s: &Subject) -> Result<()> {
    let sandbox = s.sandbox("missing");
    let pod = s.runtime.run_pod_sandbox(&sandbox, "").await?;
    let mut config = s.container("missing", Does::Runs);
    config.image = "copepod.local/none:1".to_owned();
    let no_image = s.runtime.create_container(&pod, &config, &sandbox).await;
    ensure!(no_image.as_ref().is_err_and(CriError::is_not_found), "{no_image:?}");
    let config = s.container("missing", Does::Runs);
    let nowhere = SandboxId::new("0".repeat(64));
    let no_sandbox = s.runtime.create_container(&nowhere, &config, &sandbox).await;
    ensure!(no_sandbox.as_ref().is_err_and(CriError::is_not_found), "{no_sandbox:?}");
    let no_container = s.runtime.start_container(&ContainerId::new("0".repeat(64))).await;
    ensure!(no_container.as_ref().is_err_and(CriError::is_not_found), "{no_container:?}");
    s.runtime.remove_pod_sandbox(&pod).await?;
    Ok(())
}

pub async fn exit_codes_are_told(s: &Subject) -> Result<()> {
    let pod = s.pod("exits", Does::ExitsWith(3)).await?;
    let status = until(s, &pod.container, ContainerState::Exited).await?;
    ensure!(status.exit_code == 3 && status.reason == "Error", "{status:?}");
    // Not in order: containerd notes the start when its own call returns.
    ensure!(status.started_at.is_some() && status.finished_at.is_some(), "{status:?}");
    ensure!(
        s.runtime.pod_sandbox_status(&pod.sandbox).await?.summary.state == SandboxState::Ready,
        "the sandbox ended"
    );
    s.remove(&pod).await
}

pub async fn grace_ends_in_a_kill(s: &Subject) -> Result<()> {
    let pod = s.pod("stubborn", Does::IgnoresStopSignal).await?;
    let begin = Instant::now();
    s.runtime.stop_container(&pod.container, SHORTEST).await?;
    // Clocks differ a little.
    ensure!(begin.elapsed() > SHORTEST * 9 / 10, "it was killed before, after {:?}", begin.elapsed());
    let status = s.runtime.container_status(&pod.container).await?;
    ensure!(status.state == ContainerState::Exited && status.exit_code == 137, "{status:?}");
    s.remove(&pod).await
}

pub async fn sandbox_takes_its_containers_along(s: &Subject) -> Result<()> {
    let pod = s.pod("along", Does::IgnoresStopSignal).await?;
    s.runtime.stop_pod_sandbox(&pod.sandbox).await?;
    let status = until(s, &pod.container, ContainerState::Exited).await?;
    ensure!(status.exit_code == 137, "{status:?}");
    s.runtime.remove_pod_sandbox(&pod.sandbox).await?;
    let gone = s.runtime.container_status(&pod.container).await;
    ensure!(matches!(gone, Err(CriError::NotFound { .. })), "{gone:?}");
    Ok(())
}

pub async fn running_sandbox_can_be_removed(s: &Subject) -> Result<()> {
    let pod = s.pod("abrupt", Does::Runs).await?;
    s.runtime.remove_pod_sandbox(&pod.sandbox).await?;
    let filter = ContainerFilter { sandbox: Some(pod.sandbox.clone()), ..Default::default() };
    ensure!(s.runtime.list_containers(&filter).await?.is_empty(), "its container is still listed");
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

pub async fn exec_runs_commands(s: &Subject) -> Result<()> {
    let pod = s.pod("exec", Does::Runs).await?;
    let id = &pod.container;
    let output = s.runtime.exec_sync(id, &words("echo a b"), DAY).await?;
    ensure!(output.stdout == b"a b\n" && output.stderr.is_empty() && output.exit_code == 0, "{output:?}");
    let output = s.runtime.exec_sync(id, &words("exit 7"), Duration::ZERO).await?;
    ensure!(output.exit_code == 7, "{output:?}");
    let late = s.runtime.exec_sync(id, &words("sleep 86400"), SHORTEST).await;
    ensure!(matches!(late, Err(CriError::DeadlineExceeded { .. })), "{late:?}");
    let odd = s.runtime.exec_sync(id, &words("no-such-program"), DAY).await;
    ensure!(matches!(odd, Err(CriError::Runtime { .. })), "{odd:?}");
    s.runtime.stop_container(id, DAY).await?;
    let stopped = s.runtime.exec_sync(id, &words("echo"), DAY).await;
    ensure!(matches!(stopped, Err(CriError::Runtime { .. })), "{stopped:?}");
    s.remove(&pod).await
}

pub async fn streams_have_urls(s: &Subject) -> Result<()> {
    let pod = s.pod("streams", Does::Runs).await?;
    let container = pod.container.clone();
    let request = ExecRequest {
        container: container.clone(),
        command: words("cat"),
        tty: false,
        stdin: true,
        stdout: true,
        stderr: true,
    };
    let attach = AttachRequest { container, tty: false, stdin: false, stdout: true, stderr: true };
    for url in [
        s.runtime.exec(&request).await?,
        s.runtime.attach(&attach).await?,
        s.runtime.port_forward(&pod.sandbox, &[80]).await?,
    ] {
        ensure!(url.starts_with("http://127.0.0.1:"), "{url}");
    }
    s.remove(&pod).await
}

pub async fn events_tell_the_story(s: &Subject) -> Result<()> {
    let mut events = s.runtime.container_events().await?;
    let pod = s.pod("story", Does::Runs).await?;
    // Its end must not look like the container's.
    s.runtime.exec_sync(&pod.container, &words("exit 1"), DAY).await?;
    s.runtime.stop_container(&pod.container, DAY).await?;
    s.runtime.remove_container(&pod.container).await?;
    s.runtime.remove_pod_sandbox(&pod.sandbox).await?;
    let mut story = Vec::new();
    let reading = async {
        while story.last() != Some(&ContainerEventKind::Deleted) {
            let Some(event) = events.next().await else { bail!("the stream ended") };
            let event = event?;
            if event.id == pod.container.as_str() {
                story.push(event.kind);
            }
        }
        Ok(())
    };
    time::within("the end of the story", reading).await??;
    use ContainerEventKind::{Created, Deleted, Started, Stopped};
    ensure!(story == [Created, Started, Stopped, Deleted], "{story:?}");
    Ok(())
}

/// The status agrees with the event at the moment it arrives.
pub async fn stopped_means_exited(s: &Subject) -> Result<()> {
    let mut events = s.runtime.container_events().await?;
    let pod = s.pod("ends", Does::ExitsWith(5)).await?;
    let reading = async {
        loop {
            let Some(event) = events.next().await else { bail!("the stream ended") };
            let event = event?;
            if event.id == pod.container.as_str() && event.kind == ContainerEventKind::Stopped {
                return Ok(s.runtime.container_status(&pod.container).await?);
            }
        }
    };
    let status = time::within("the event", reading).await??;
    ensure!(status.state == ContainerState::Exited && status.exit_code == 5, "{status:?}");
    s.remove(&pod).await
}

/// A dead sandbox is an event of its own.
pub async fn sandbox_end_is_an_event(s: &Subject) -> Result<()> {
    let mut events = s.runtime.container_events().await?;
    let id = s.runtime.run_pod_sandbox(&s.sandbox("event"), "").await?;
    s.runtime.stop_pod_sandbox(&id).await?;
    let reading = async {
        while let Some(event) = events.next().await {
            let event = event?;
            if event.id == id.as_str() && event.kind == ContainerEventKind::Stopped {
                return Ok(());
            }
        }
        bail!("the stream ended")
    };
    time::within("the event", reading).await??;
    s.runtime.remove_pod_sandbox(&id).await?;
    Ok(())
}

/// Two listeners hear the same, and one that left takes nothing along.
pub async fn listeners_do_not_share(s: &Subject) -> Result<()> {
    drop(s.runtime.container_events().await?);
    let listeners = [s.runtime.container_events().await?, s.runtime.container_events().await?];
    let pod = s.pod("heard", Does::Runs).await?;
    for mut events in listeners {
        let reading = async {
            while let Some(event) = events.next().await {
                let event = event?;
                if event.id == pod.container.as_str() && event.kind == ContainerEventKind::Started {
                    return Ok(());
                }
            }
            bail!("the stream ended")
        };
        time::within("what each listener hears", reading).await??;
    }
    s.remove(&pod).await
}

pub async fn images_are_found_by_all_names(s: &Subject) -> Result<()> {
    let image = s.images.image_status(&ImageRef::new(images::DEMO)).await?.context("the demo image is missing")?;
    ensure!(image.repo_tags == [images::DEMO] && image.size > 0, "{image:?}");
    let digest = image.repo_digests.first().context("it has no digest")?;
    for name in [image.id.as_str(), digest] {
        let found = s.images.image_status(&ImageRef::new(name)).await?;
        ensure!(found.as_ref().is_some_and(|f| f.id == image.id), "{name}: {found:?}");
    }
    ensure!(s.images.list_images().await?.iter().any(|i| i.id == image.id), "it is not listed");
    let none = ImageRef::new("copepod.local/none:1");
    ensure!(s.images.image_status(&none).await?.is_none(), "an absent image is there");
    s.images.remove_image(&none).await.context("remove an absent image")?;
    ensure!(!s.images.image_fs_info().await?.is_empty(), "no image file system");
    let pull = s.images.pull_image(&none, None, &s.sandbox("pull")).await;
    ensure!(pull.is_err(), "an absent image was pulled: {pull:?}");
    Ok(())
}

pub async fn what_runs_is_measured(s: &Subject) -> Result<()> {
    let pod = s.pod("stats", Does::Runs).await?;
    let filter = ContainerFilter { sandbox: Some(pod.sandbox.clone()), ..Default::default() };
    // CPU time may be unknown until the first collection.
    time::eventually("figures", async || {
        let stats = s.runtime.list_container_stats(&filter).await?;
        ensure!(stats.len() == 1 && stats[0].id == pod.container, "{stats:?}");
        let known =
            stats[0].memory_working_set.is_some_and(|m| m > 0) && stats[0].cpu_usage_nanos.is_some_and(|c| c > 0);
        ensure!(known, "{stats:?}");
        Ok(())
    })
    .await?;
    s.remove(&pod).await
}

pub async fn limits_change_while_running(s: &Subject) -> Result<()> {
    let pod = s.pod("limits", Does::Runs).await?;
    let limits = LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit: 64 << 20,
        ..Default::default()
    };
    s.runtime.update_container_resources(&pod.container, &limits).await?;
    s.runtime.reopen_container_log(&pod.container).await?;
    s.remove(&pod).await
}

/// As many as a busy node starts at once.
pub async fn pods_start_in_parallel(s: &Subject) -> Result<()> {
    let names: Vec<_> = (0..6).map(|n| format!("many-{n}")).collect();
    let pods = futures::future::try_join_all(names.iter().map(|n| s.pod(n, Does::Runs))).await?;
    for pod in &pods {
        ensure!(s.runtime.container_status(&pod.container).await?.state == ContainerState::Running);
    }
    futures::future::try_join_all(pods.iter().map(|p| s.remove(p))).await?;
    Ok(())
}
