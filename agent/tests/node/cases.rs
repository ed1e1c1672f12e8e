//! What the agent has to do on a real runtime.

use std::time::Duration;

use agent::clock::Clock;
use agent::config::ImageSettings;
use agent::events::EventRecorder;
use agent::retention::images::ImageCollector;
use anyhow::{Context, Result, ensure};
use cri::types::{ContainerFilter, ContainerState, ContainerStatus, SandboxFilter, SandboxState};
use cri::{ImageService, RuntimeService, images};

use crate::api::Api;
use crate::world::OneNode;

const IMAGE: &str = "copepod.local/demo:latest";
/// How full this machine is keeps no pod out.
const UNDER_NO_PRESSURE: &str = "evictionHard: {memory.available: 1Mi}";
/// A grace period longer than anything waits here, in seconds.
const DAY: i64 = 86_400;

pub async fn a_pod_runs_as_its_file_says(w: &mut OneNode) -> Result<()> {
    w.write(
        "first",
        &format!(
            "  hostAliases: [{{ip: 192.0.2.7, hostnames: [far.example]}}]
  containers:
  - name: first
    image: {IMAGE}
    args: [sleep, '3600']
    env:
    - {{name: WHO, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
    - {{name: WHERE, value: 'at $(WHO)'}}
    - {{name: LIMIT, valueFrom: {{resourceFieldRef: {{resource: limits.memory, divisor: 1Mi}}}}}}
    resources: {{limits: {{cpu: 500m, memory: 64Mi}}}}
    volumeMounts: [{{name: scratch, mountPath: /scratch}}]
  volumes: [{{name: scratch, emptyDir: {{}}}}]
"
        ),
    )?;
    let container = w.running("first", None).await?;
    let env = w.exec(&container, &["/bin/env"]).await?;
    for line in ["WHO=first-n1", "WHERE=at first-n1", "LIMIT=64"] {
        ensure!(env.lines().any(|l| l == line), "{line} is not in {env}");
    }
    let hosts = w.exec(&container, &["/bin/cat", "/etc/hosts"]).await?;
    ensure!(hosts.contains("192.0.2.7\tfar.example"), "{hosts}");
    ensure!(container.log_path.ends_with("/first/0.log"), "{}", container.log_path);
    let limit = w.cgroups().iter().find_map(|c| std::fs::read_to_string(c.join("memory.limit_in_bytes")).ok());
    let limit = limit.or_else(|| w.cgroups().iter().find_map(|c| std::fs::read_to_string(c.join("memory.max")).ok()));
    ensure!(limit.as_deref().map(str::trim) == Some("67108864"), "pod limit {limit:?}");
    Ok(())
}

pub async fn a_killed_process_is_restarted(w: &mut OneNode) -> Result<()> {
    let first = w.running("first", None).await?;
    let pid = i32::try_from(first.pid.context("the runtime tells the pid")?)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    let second = w.running("first", Some(&first.id)).await?;
    let count = second.annotations.get("io.kubernetes.container.restartCount").map(String::as_str);
    ensure!(count == Some("1"), "restart count {count:?}");
    ensure!(w.containers("first").await?.len() == 2, "the dead instance stays for its logs");
    Ok(())
}

pub async fn init_containers_share_volumes(w: &mut OneNode) -> Result<()> {
    w.write(
        "init",
        &format!(
            "  initContainers:
  - {{name: writer, image: {IMAGE}, args: [write, /scratch/file, written], volumeMounts: [{{name: scratch, mountPath: /scratch}}]}}
  containers:
  - {{name: reader, image: {IMAGE}, args: [sleep, '3600'], volumeMounts: [{{name: scratch, mountPath: /data, subPath: ''}}]}}
  volumes: [{{name: scratch, emptyDir: {{medium: Memory}}}}]
"
        ),
    )?;
    let reader = w.running("reader", None).await?;
    let text = w.exec(&reader, &["/bin/cat", "/data/file"]).await?;
    ensure!(text.trim() == "written", "{text}");
    w.remove("init").await
}

/// Kills the processes of the sandbox of `main`, and of `main` itself if `all`.
async fn kill_sandbox_of(w: &OneNode, main: &ContainerStatus, all: bool) -> Result<()> {
    let filter = ContainerFilter { id: Some(main.id.clone()), ..ContainerFilter::default() };
    let listed = w.runtime.client.list_containers(&filter).await?;
    let sandbox = listed.first().context("main is listed")?.sandbox.clone();
    let pause = w.runtime.client.pod_sandbox_status(&sandbox).await?.pid.context("the runtime tells the pid")?;
    let mut pids = vec![pause];
    pids.extend(main.pid.filter(|_| all));
    for pid in pids {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid)?), nix::sys::signal::Signal::SIGKILL)?;
    }
    w.until("the sandbox is dead", async || {
        let status = w.runtime.client.pod_sandbox_status(&sandbox).await;
        Ok(status.map_or(true, |s| s.summary.state == SandboxState::NotReady))
    })
    .await
}

/// The newest instances of the containers began one after the other's end, and
/// `main` after them all; each has run `times` times.
async fn ran_in_order(w: &OneNode, main: &ContainerStatus, times: u32) -> Result<()> {
    let mut before = None;
    for name in ["one", "two", "three"] {
        let all = w.containers(name).await?;
        let newest = all.first().with_context(|| format!("{name} is there"))?;
        ensure!(newest.state == ContainerState::Exited && newest.exit_code == 0, "{newest:?}");
        let count = newest.annotations.get("io.kubernetes.container.restartCount").cloned();
        ensure!(count == Some((times - 1).to_string()), "{name} ran {count:?} times before");
        ensure!(newest.started_at >= before, "{name} began before its predecessor ended: {newest:?}");
        before = newest.finished_at;
    }
    ensure!(main.started_at >= before, "main began at {:?}, three ended at {before:?}", main.started_at);
    Ok(())
}

pub async fn init_containers_run_anew_in_a_new_sandbox(w: &mut OneNode) -> Result<()> {
    let init = |name: &str| format!("  - {{name: {name}, image: {IMAGE}, args: [sleep, '0.2']}}\n");
    let inits: String = ["one", "two", "three"].map(init).concat();
    w.write(
        "again",
        &format!(
            "  terminationGracePeriodSeconds: 1\n  initContainers:\n{inits}  containers:
  - {{name: main, image: {IMAGE}, args: [sleep, '3600']}}
"
        ),
    )?;
    let first = w.running("main", None).await?;
    ran_in_order(w, &first, 1).await?;
    kill_sandbox_of(w, &first, false).await?;
    let second = w.running("main", Some(&first.id)).await?;
    ran_in_order(w, &second, 2).await?;
    // As after a reboot: nothing of the pod runs when the agent starts.
    w.stop_agent().await?;
    kill_sandbox_of(w, &second, true).await?;
    w.start_agent().await?;
    let third = w.running("main", Some(&second.id)).await?;
    ran_in_order(w, &third, 3).await?;
    w.remove("again").await
}

pub async fn a_hook_that_hangs_does_not_hold_up_the_end(w: &mut OneNode) -> Result<()> {
    w.write(
        "hung",
        &format!(
            "  terminationGracePeriodSeconds: 1
  containers:
  - name: hung
    image: {IMAGE}
    args: [sleep, '3600']
    lifecycle: {{postStart: {{exec: {{command: [/bin/demo, write, /note/hook, '1']}}}}}}
    volumeMounts: [{{name: note, mountPath: /note}}]
  - name: hook
    image: {IMAGE}
    args: [sleep, '3600']
    lifecycle: {{postStart: {{exec: {{command: [/bin/demo, sleep, '3600']}}}}}}
  volumes: [{{name: note, emptyDir: {{}}}}]
"
        ),
    )?;
    let hung = w.running("hung", None).await?;
    w.running("hook", None).await?;
    w.until("the first hook has run", async || Ok(w.exec(&hung, &["/bin/cat", "/note/hook"]).await.is_ok())).await?;
    // The second one never ends, and the pod does all the same.
    w.remove("hung").await
}

pub async fn a_failing_liveness_probe_restarts(w: &mut OneNode) -> Result<()> {
    w.write(
        "sick",
        &format!(
            "  terminationGracePeriodSeconds: 1
  containers:
  - name: sick
    image: {IMAGE}
    args: [sleep, '3600']
    livenessProbe: {{exec: {{command: [/bin/cat, /no/such/file]}}, periodSeconds: 1, failureThreshold: 1}}
"
        ),
    )?;
    let first = w.running("sick", None).await?;
    w.running("sick", Some(&first.id)).await?;
    w.remove("sick").await
}

pub async fn pre_stop_runs_before_the_end(w: &mut OneNode) -> Result<()> {
    let note = w.directory().join("note");
    std::fs::create_dir_all(&note)?;
    w.write(
        "polite",
        &format!(
            "  terminationGracePeriodSeconds: 10
  containers:
  - name: polite
    image: {IMAGE}
    args: [sleep, '3600']
    lifecycle: {{preStop: {{exec: {{command: [/bin/demo, write, /note/bye, bye]}}}}}}
    volumeMounts: [{{name: note, mountPath: /note}}]
  volumes: [{{name: note, hostPath: {{path: {}, type: Directory}}}}]
",
            note.display()
        ),
    )?;
    let polite = w.running("polite", None).await?;
    let names = w.exec(&polite, &["/bin/ls", "/"]).await?;
    w.remove("polite").await?;
    ensure!(note.join("bye").exists(), "preStop has run; / holds {names}");
    Ok(())
}

pub async fn a_new_agent_adopts(w: &mut OneNode) -> Result<()> {
    let before = w.running("first", None).await?;
    w.stop_agent().await?;
    ensure!(w.running("first", None).await?.id == before.id, "pods run on");
    w.start_agent().await?;
    // Another pod starting shows that the new agent is at work.
    w.write("second", &format!("  containers: [{{name: second, image: {IMAGE}, args: [sleep, '3600']}}]"))?;
    w.running("second", None).await?;
    let after = w.running("first", None).await?;
    ensure!(after.id == before.id && after.pid == before.pid, "{before:?} became {after:?}");
    w.remove("second").await
}

pub async fn a_garbage_file_harms_nobody(w: &mut OneNode) -> Result<()> {
    let before = w.running("first", None).await?;
    std::fs::write(w.directory().join("pods/garbage.yaml"), [0xff, 0, b'{'])?;
    w.write("third", &format!("  containers: [{{name: third, image: {IMAGE}, args: [sleep, '3600']}}]"))?;
    w.running("third", None).await?;
    ensure!(w.running("first", None).await?.id == before.id);
    std::fs::remove_file(w.directory().join("pods/garbage.yaml"))?;
    w.remove("third").await
}

pub async fn built_in_images_stay(w: &mut OneNode) -> Result<()> {
    // Thresholds that nothing meets, and nobody known to use anything: containerd
    // before 1.7 would give the images away.
    let settings = ImageSettings {
        max_parallel_pulls: None,
        gc_high_percent: 0,
        gc_low_percent: 0,
        min_age: Duration::ZERO,
        enough_free: u64::MAX,
    };
    let (events, _) = EventRecorder::channel(8);
    let client = w.runtime.client.clone();
    let mut collector = ImageCollector::new(client.clone(), client, events, Clock::System, "n1".to_owned(), &settings);
    collector.collect().await?;
    let left = w.runtime.client.list_images().await?;
    for name in [images::PAUSE, images::DEMO] {
        ensure!(left.iter().any(|i| i.repo_tags.iter().any(|tag| tag == name)), "{name} is not in {left:?}");
    }
    Ok(())
}

pub async fn a_pod_that_failed_stays_ended(w: &mut OneNode) -> Result<()> {
    w.write(
        "done",
        &format!("  restartPolicy: Never\n  containers: [{{name: done, image: {IMAGE}, args: [exit, '3']}}]"),
    )?;
    w.until("done has ended", async || {
        Ok(w.containers("done").await?.iter().any(|c| c.state == ContainerState::Exited && c.exit_code == 3))
    })
    .await?;
    w.remove("done").await
}

pub async fn pods_without_grace_come_and_go(w: &mut OneNode) -> Result<()> {
    for round in 0..5 {
        let name = format!("fast{round}");
        w.write(&name, &format!("  terminationGracePeriodSeconds: 0\n  containers: [{{name: {name}, image: {IMAGE}, args: [sleep, '3600']}}]"))?;
        w.running(&name, None).await?;
        w.remove(&name).await?;
    }
    Ok(())
}

pub async fn all_pods_are_held_to_what_is_not_reserved(w: &mut OneNode) -> Result<()> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let total =
        meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let total = total.context("MemTotal")? * 1024;
    let before = w.running("first", None).await?;
    for (fields, memory) in [
        ("systemReserved: {memory: 1Gi, pid: '500'}\nkubeReserved: {memory: 1Mi}", total - (1025 << 20)),
        ("systemReserved: {memory: 1Gi}\nenforceNodeAllocatable: [none]", total),
        ("", total),
    ] {
        w.stop_agent().await?;
        w.start_agent_with(None, fields).await?;
        w.until("memory is limited", async || {
            let limits = w.all_pods(&["memory/{}/memory.limit_in_bytes", "{}/memory.max"]);
            Ok(limits == [memory.to_string()])
        })
        .await?;
        let pids = w.all_pods(&["pids/{}/pids.max", "{}/pids.max"]);
        ensure!(pids.len() == 1 && pids[0].parse::<u64>().is_ok_and(|n| n > 500), "{pids:?}");
    }
    ensure!(w.running("first", None).await?.id == before.id, "limits end no pod");
    Ok(())
}

pub async fn a_hard_threshold_evicts(w: &mut OneNode) -> Result<()> {
    let pod = |name: &str, resources: serde_json::Value| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": "1"},
            "spec": {"nodeName": "n1", "hostNetwork": true, "terminationGracePeriodSeconds": DAY, "containers": [
                {"name": name, "image": IMAGE, "args": ["sleep", "3600"], "resources": resources}]},
            "status": {"phase": "Pending"}})
    };
    // One says what it needs and is let in although memory is short already. Of
    // memory itself it cannot ask any: with that threshold the node offers none.
    let modest = pod("modest", serde_json::json!({"requests": {"cpu": "1m"}}));
    let api = Api::of_pods(vec![modest, pod("careless", serde_json::json!({}))]).await?;
    w.stop_agent().await?;
    // More than the machine has must be free.
    w.start_agent_with(Some(api.client()?), "evictionHard: {memory.available: 900Ti}").await?;
    w.until("the pressure is told", async || Ok(api.node_condition("MemoryPressure").as_deref() == Some("True")))
        .await?;
    ensure!(api.node_condition("DiskPressure").as_deref() == Some("False"), "disk");
    w.until("both have failed", async || {
        Ok(["modest", "careless"].iter().all(|name| api.pod_status(name)["phase"] == "Failed"))
    })
    .await?;
    for name in ["modest", "careless"] {
        println!("    {name}: {}", api.pod_status(name)["message"]);
        ensure!(api.pod_status(name)["reason"] == "Evicted", "{}", api.pod_status(name));
    }
    let message = |name: &str| api.pod_status(name)["message"].as_str().unwrap_or_default().to_owned();
    let start = "The node was low on resource: memory. Threshold quantity: 900Ti, available: ";
    // Who asks for nothing is not let in any more once the pressure is known.
    let refused = message("careless").starts_with("Pod was rejected: The node had condition: [MemoryPressure]");
    ensure!(message("modest").starts_with(start) && (refused || message("careless").starts_with(start)));
    // One may go before its use is known, but not both: the node looks again after each.
    let told = |name: &str| {
        let message = message(name);
        message.contains(&format!("Container {name} was using ")) && message.contains(", request is 0, ")
    };
    ensure!(refused || ["modest", "careless"].into_iter().any(told), "{} {}", message("modest"), message("careless"));
    w.until("it ends before its grace, which is a day", async || {
        Ok(w.containers("modest").await?.iter().all(|c| c.state == ContainerState::Exited))
    })
    .await?;
    w.stop_agent().await?;
    w.start_agent().await
}

pub async fn a_container_that_ran_out_of_memory_says_so(w: &mut OneNode) -> Result<()> {
    // Several at once: containerd 1.6 tells some of them from a mere error, others not.
    let names = ["hog-1", "hog-2", "hog-3", "hog-4"];
    let pod = |name: &str, command: &[&str]| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": "1"},
            "spec": {"nodeName": "n1", "hostNetwork": true, "restartPolicy": "Never", "containers": [
                {"name": name, "image": IMAGE, "args": command, "resources": {"limits": {"memory": "16Mi"}}}]},
            "status": {"phase": "Pending"}})
    };
    let mut pods: Vec<_> = names.iter().map(|name| pod(name, &["alloc", "64"])).collect();
    // The same exit code, and nobody ran out of anything.
    pods.push(pod("stubborn", &["exit", "137"]));
    let api = Api::of_pods(pods).await?;
    w.stop_agent().await?;
    w.start_agent_with(Some(api.client()?), UNDER_NO_PRESSURE).await?;
    for (name, reason) in names.map(|name| (name, "OOMKilled")).into_iter().chain([("stubborn", "Error")]) {
        w.until("it has ended", async || Ok(api.pod_status(name)["phase"] == "Failed")).await?;
        let end = api.pod_status(name)["containerStatuses"][0]["state"]["terminated"].clone();
        let runtimes = w.containers(name).await?.first().map(|c| c.reason.clone());
        ensure!(end["exitCode"] == 137 && end["reason"] == reason, "{name}: {end}, the runtime says {runtimes:?}");
        println!("    {name}: the runtime says {runtimes:?}");
    }
    w.stop_agent().await?;
    w.start_agent().await
}

pub async fn pods_over_their_limits_are_evicted(w: &mut OneNode) -> Result<()> {
    let pod = |name: &str, limits: serde_json::Value, command: &[&str]| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": "1"},
            "spec": {"nodeName": "n1", "hostNetwork": true, "terminationGracePeriodSeconds": DAY, "containers": [
                {"name": name, "image": IMAGE, "args": command, "resources": {"limits": limits},
                 "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
                "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "64Ki"}}]},
            "status": {"phase": "Pending"}})
    };
    let (limit, text) = (serde_json::json!({"ephemeral-storage": "256Ki"}), "x".repeat(100_000));
    let sleep = ["sleep", "3600"];
    // Says much at once, and then nothing for an hour.
    let talk = ["log", "--repeat=2", "--interval=3600000", &text, &text, &text];
    let api = Api::of_pods(vec![
        pod("hoarder", serde_json::json!({}), &sleep),
        pod("talker", limit.clone(), &talk),
        pod("modest", limit, &sleep),
    ])
    .await?;
    w.stop_agent().await?;
    w.start_agent_with(Some(api.client()?), UNDER_NO_PRESSURE).await?;
    let hoarder = w.running("hoarder", None).await?;
    w.exec(&hoarder, &["/bin/demo", "write", "/scratch/much", &text]).await?;
    let modest = w.running("modest", None).await?;
    w.exec(&modest, &["/bin/demo", "write", "/scratch/little", &text[..10_000]]).await?;
    for (name, message) in [
        ("hoarder", "Usage of EmptyDir volume \"scratch\" exceeds the limit \"64Ki\". "),
        ("talker", "Pod ephemeral local storage usage exceeds the total limit of containers 256Ki. "),
    ] {
        w.until("it has failed", async || Ok(api.pod_status(name)["phase"] == "Failed")).await?;
        let status = api.pod_status(name);
        ensure!(status["reason"] == "Evicted" && status["message"] == message, "{status}");
        w.until("it ends before its grace, which is a day", async || {
            Ok(w.containers(name).await?.iter().all(|c| c.state == ContainerState::Exited))
        })
        .await?;
    }
    ensure!(w.running("modest", None).await?.id == modest.id, "it was within its limits");
    ensure!(api.pod_status("modest")["phase"] == "Running", "{}", api.pod_status("modest"));
    w.stop_agent().await?;
    w.start_agent().await
}

pub async fn nothing_is_left(w: &mut OneNode) -> Result<()> {
    for entry in std::fs::read_dir(w.directory().join("pods"))? {
        std::fs::remove_file(entry?.path())?;
    }
    w.until("no sandbox is left", async || {
        Ok(w.runtime.client.list_pod_sandboxes(&SandboxFilter::default()).await?.is_empty())
    })
    .await?;
    let pods = w.root().join("pods");
    w.until("no directory is left", async || Ok(std::fs::read_dir(&pods)?.next().is_none())).await?;
    w.until("no cgroup is left", async || Ok(w.cgroups().is_empty())).await?;
    let logs = w.directory().join("logs");
    w.until("no log is left", async || Ok(std::fs::read_dir(&logs)?.next().is_none())).await?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let pods = pods.to_string_lossy();
    ensure!(!mounts.lines().any(|m| m.contains(pods.as_ref())), "mounts are left:\n{mounts}");
    Ok(())
}
