//! What only a real containerd can be put through.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cri::containerd::{Containerd, Health, Keep, Options, Shutdown, purge};
use cri::types::{AuthConfig, ContainerState};
use cri::{CriError, EventSource, ImageRef, ImageService, RuntimeService, images};
use futures::StreamExt;
use harness::time;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;
use crate::subject::{Does, Real, Subject, nothing_left};
use crate::suite::{DAY, until};

fn real(s: &Subject) -> Result<&Real> {
    s.real.as_ref().context("this test is for real runtimes")
}

/// Options for one more containerd of the same release, and its directory.
fn another(r: &Real) -> Result<(tempfile::TempDir, Options)> {
    let directory = tempfile::Builder::new().prefix("cri").tempdir()?;
    let options = Options {
        containerd: r.options.containerd.clone(),
        oci_runtime: r.options.oci_runtime.clone(),
        ..Options::new(&directory.path().join("data"), &directory.path().join("run"))
    };
    Ok((directory, options))
}

/// The log has what the container wrote, in CRI's format.
pub async fn logs_are_written(s: &Subject) -> Result<()> {
    let pod = s.pod("logged", Does::ExitsWith(0)).await?;
    let status = until(s, &pod.container, ContainerState::Exited).await?;
    let log = fs::read_to_string(&status.log_path)?;
    ensure!(log.ends_with(" stdout F bye\n"), "{log:?}");
    s.remove(&pod).await
}

/// Whose first process a container sees, by what is in /proc.
pub async fn a_container_can_join_anothers_processes(s: &Subject) -> Result<()> {
    let pod = s.pod("target", Does::Runs).await?;
    let (sandbox, mut config) = (s.sandbox("target"), s.container("guest", Does::IgnoresStopSignal));
    config.security.pid_target = Some(pod.container.clone());
    let guest = s.runtime.create_container(&pod.sandbox, &config, &sandbox).await?;
    s.runtime.start_container(&guest).await?;
    let first = ["cat".to_owned(), "/proc/1/cmdline".to_owned()];
    let seen = s.runtime.exec_sync(&guest, &first, DAY).await?;
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    ensure!(seen.contains("serve"), "process 1 is {seen:?}");
    s.remove(&pod).await
}

/// Of a registry that lets only its users in; wherever it is, that is where the credentials are for.
pub async fn private_images_are_pulled_with_credentials(s: &Subject) -> Result<()> {
    let registry = Registry::start().await?;
    let (image, sandbox) = (registry.image(), s.sandbox("private"));
    let wrong = AuthConfig { password: "guessed".to_owned(), ..Registry::user() };
    for auth in [None, Some(&wrong)] {
        let pulled = s.images.pull_image(&image, auth, &sandbox).await;
        ensure!(pulled.is_err(), "pulled with {auth:?}");
    }
    ensure!(s.images.image_status(&image).await?.is_none(), "it was there before");
    s.images.pull_image(&image, Some(&Registry::user()), &sandbox).await.context("as a user")?;
    ensure!(s.images.image_status(&image).await?.is_some(), "it is not there");
    s.images.remove_image(&image).await?;
    Ok(())
}

/// A daemon may die while a purge talks to it, or have been killed just before:
/// then its pods are ended well by another, and not merely killed.
pub async fn a_daemon_that_dies_in_a_purge_is_replaced(s: &Subject) -> Result<()> {
    let (_directory, options) = another(real(s)?)?;
    let containerd = Containerd::start(options.clone(), CancellationToken::new()).await?;
    let (client, daemon) = (containerd.client(), Pid::from_raw(i32::try_from(containerd.pid())?));
    images::import_builtin(&client).await?;
    let pod = client.run_pod_sandbox(&s.sandbox("orphaned"), "").await?;
    containerd.shutdown(Shutdown::LeaveRunning).await?;
    // Its socket still takes connections, as that of a dying process does.
    kill(daemon, Signal::SIGSTOP)?;
    let purging = tokio::spawn({
        let options = options.clone();
        async move { purge(&options, Keep::Images).await }
    });
    time::eventually_true("a connection to the daemon", async || connections(&options.socket()) > 0).await?;
    ensure!(!purging.is_finished(), "nobody was asked");
    kill(daemon, Signal::SIGKILL)?;
    time::within("the purge", purging).await???;
    let log = fs::read_to_string(options.log_file())?;
    let removed = log.lines().any(|line| line.contains("RemovePodSandbox") && line.contains(&pod.to_string()));
    purge(&options, Keep::Nothing).await?;
    ensure!(removed, "the pod was not removed:\n{log}");
    Ok(())
}

/// How many connections there are to whoever listens on a socket.
fn connections(socket: &Path) -> usize {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    // The one that listens is in the table, too, with its state.
    let listens = |row: &Vec<&str>| row.get(3) == Some(&"00010000");
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.last().is_some_and(|path| Path::new(path) == socket) && !listens(row)).count()
}

/// Whether a program with these words runs.
fn runs(words: &[&str]) -> bool {
    let lines =
        fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| fs::read(entry.path().join("cmdline")));
    lines.flatten().any(|line| {
        line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).eq(words.iter().map(|w| w.as_bytes()))
    })
}

/// Containers start with the limit on open files that containerd was given.
pub async fn limits_of_open_files_reach_containers(s: &Subject) -> Result<()> {
    let (_directory, options) = another(real(s)?)?;
    let options = Options { open_files: Some((777, 4096)), ..options };
    let containerd = Containerd::start(options.clone(), CancellationToken::new()).await?;
    let client = containerd.client();
    images::import_builtin(&client).await?;
    let sandbox = s.sandbox("few-files");
    let pod = client.run_pod_sandbox(&sandbox, "").await?;
    let container = client.create_container(&pod, &s.container("few-files", Does::Runs), &sandbox).await?;
    client.start_container(&container).await?;
    let pid = client.container_status(&container).await?.pid.context("no pid")?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no such limit")?;
    // The soft one is no help: an older runc raises its own and hands that on.
    let hard = line.split_whitespace().nth(4);
    containerd.shutdown(Shutdown::StopDaemon).await?;
    purge(&options, Keep::Nothing).await?;
    ensure!(hard == Some("4096"), "{line}");
    Ok(())
}

/// The daemon dies in the middle of a call: the call fails, the daemon is
/// started again, the same client goes on, and the container never noticed.
pub async fn daemon_killed_in_a_call(s: &Subject) -> Result<()> {
    let r = real(s)?;
    let pod = s.pod("survivor", Does::Runs).await?;
    let before = s.runtime.container_status(&pod.container).await?.pid;
    let mut events = r.client.container_events().await?;
    let mut health = r.containerd.health();
    let sleep = ["sleep", "86399"];
    let call = tokio::spawn({
        let (client, container) = (r.client.clone(), pod.container.clone());
        async move { client.exec_sync(&container, &sleep.map(str::to_owned), DAY).await }
    });
    time::eventually_true("the call is under way", async || runs(&sleep)).await?;
    ensure!(!call.is_finished(), "the call ended by itself");
    kill(Pid::from_raw(i32::try_from(r.containerd.pid())?), Signal::SIGKILL)?;
    let failed = time::within("the end of the call", call).await??;
    ensure!(matches!(failed, Err(CriError::Unavailable { .. })), "{failed:?}");
    let stream_ends = async { while let Some(Ok(_)) = events.next().await {} };
    time::within("the end of the event stream", stream_ends).await?;
    time::within("the daemon's end", health.wait_for(|h| *h == Health::Down)).await??;
    time::within("a new daemon", health.wait_for(|h| *h == Health::Ready)).await??;
    let after = s.runtime.container_status(&pod.container).await?;
    ensure!(after.state == ContainerState::Running && after.pid == before, "{after:?}");
    drop(r.client.container_events().await.context("subscribe again")?);
    s.remove(&pod).await
}

/// A second owner takes the daemon over; with another configuration it
/// replaces the daemon. Containers run on in both cases.
pub async fn daemon_is_adopted_or_replaced(s: &Subject) -> Result<()> {
    let r = real(s)?;
    let (_directory, options) = another(r)?;
    let first = Containerd::start(options.clone(), CancellationToken::new()).await?;
    let pid = first.pid();
    images::import_builtin(&first.client()).await?;
    let sandbox = first.client().run_pod_sandbox(&s.sandbox("adopted"), "").await?;
    first.shutdown(Shutdown::LeaveRunning).await?;
    let second = Containerd::start(options.clone(), CancellationToken::new()).await?;
    ensure!(second.pid() == pid, "the daemon was not adopted");
    second.shutdown(Shutdown::LeaveRunning).await?;
    let changed = Options { max_concurrent_downloads: 7, ..options };
    let third = Containerd::start(changed.clone(), CancellationToken::new()).await?;
    ensure!(third.pid() != pid, "the daemon was not replaced");
    let status = third.client().pod_sandbox_status(&sandbox).await?;
    ensure!(status.summary.state == cri::types::SandboxState::Ready, "{status:?}");
    third.shutdown(Shutdown::StopDaemon).await?;
    ensure!(tokio::net::UnixStream::connect(changed.socket()).await.is_err(), "the daemon still answers");
    purge(&changed, Keep::Nothing).await?;
    ensure!(!changed.state.exists() && !changed.root.exists(), "files are left");
    Ok(())
}

/// A script's file says nothing of the program behind it: when that is another one, the daemon is replaced all the
/// same, soon after the start, which waits for nothing.
pub async fn the_program_behind_a_script_is_followed(s: &Subject) -> Result<()> {
    let r = real(s)?;
    let (old, new) = (PathBuf::from("containerd"), r.options.containerd.clone().context("no program")?);
    let new = if new == old { crate::releases()[1].1.clone() } else { new };
    // It was left running, or it was not there.
    for how in [Shutdown::LeaveRunning, Shutdown::StopDaemon] {
        let (directory, options) = another(r)?;
        let (script, behind) = (directory.path().join("script"), directory.path().join("behind"));
        fs::write(&script, format!("#!/bin/sh\nexec \"$(cat {})\" \"$@\"\n", behind.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let options = Options { containerd: Some(script), ..options };
        fs::write(&behind, old.as_os_str().as_encoded_bytes())?;
        let first = Containerd::start(options.clone(), CancellationToken::new()).await?;
        let (before, pid) = (first.client().version().await?.runtime_version, first.pid());
        first.shutdown(how).await?;
        fs::write(&behind, new.as_os_str().as_encoded_bytes())?;
        let second = Containerd::start(options.clone(), CancellationToken::new()).await?;
        ensure!(how == Shutdown::StopDaemon || second.pid() == pid, "the start waited for another daemon");
        let noted = options.state.join("version.json");
        let after = time::eventually("the other program's daemon", async || {
            let after = second.client().version().await?.runtime_version;
            let told = fs::read_to_string(&noted)?;
            ensure!(after != before && told.contains(&after), "{before}, then {after}: {told}");
            Ok(after)
        });
        let after = after.await?;
        second.shutdown(Shutdown::LeaveRunning).await?;
        let third = Containerd::start(options.clone(), CancellationToken::new()).await?;
        let pid = third.pid();
        third.shutdown(Shutdown::LeaveRunning).await?;
        let fourth = Containerd::start(options.clone(), CancellationToken::new()).await?;
        ensure!(fourth.pid() == pid && fourth.client().version().await?.runtime_version == after, "replaced again");
        fourth.shutdown(Shutdown::StopDaemon).await?;
        purge(&options, Keep::Nothing).await?;
    }
    Ok(())
}

/// Crashes leave a daemon dead and its pods alive. A purge starts the daemon
/// once more to end them, and does without it where it does not start.
pub async fn crashes_can_be_purged(s: &Subject) -> Result<()> {
    let r = real(s)?;
    for daemon_starts in [true, false] {
        let (directory, mut options) = another(r)?;
        let containerd = Containerd::start(options.clone(), CancellationToken::new()).await?;
        let client = containerd.client();
        images::import_builtin(&client).await?;
        let name = format!("crashed-{daemon_starts}");
        let sandbox = s.sandbox(&name);
        let pod = client.run_pod_sandbox(&sandbox, "").await?;
        let container = client.create_container(&pod, &s.container(&name, Does::Runs), &sandbox).await?;
        client.start_container(&container).await?;
        let pids = [
            client.container_status(&container).await?.pid.context("no pid")?,
            client.pod_sandbox_status(&pod).await?.pid.context("no pid")?,
        ];
        let daemon = i32::try_from(containerd.pid())?;
        containerd.shutdown(Shutdown::LeaveRunning).await?;
        kill(Pid::from_raw(daemon), Signal::SIGKILL)?;
        if !daemon_starts {
            options.containerd = Some(directory.path().join("none"));
        }
        purge(&options, Keep::Nothing).await?;
        nothing_left(directory.path())?;
        for pid in pids {
            // Gone, or dead and not yet reaped by whoever is process 1 here.
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            ensure!(status.is_empty() || status.contains("State:\tZ"), "process {pid} lives: {status}");
        }
    }
    Ok(())
}

/// A daemon that cannot start says why, in one line.
pub async fn broken_daemon_says_why(s: &Subject) -> Result<()> {
    let r = real(s)?;
    let (_directory, options) = another(r)?;
    // A directory where its database has to be.
    fs::create_dir_all(options.root.join("io.containerd.metadata.v1.bolt/meta.db"))?;
    let started = time::within("an answer", Containerd::start(options, CancellationToken::new())).await?;
    let error = started.err().context("it started")?;
    let text = error.to_string();
    ensure!(text.contains("containerd") && text.contains("log") && !text.contains('\n'), "{text}");
    Ok(())
}

/// CRI's own event stream, where the release has it.
pub async fn cri_events_where_they_exist(s: &Subject) -> Result<()> {
    let r = real(s)?;
    let client = r.client.clone().with_event_source(EventSource::CriStream);
    let mut events = client.container_events().await?;
    let pod = s.pod("streamed", Does::Runs).await?;
    let first = time::within("an event", events.next()).await?;
    let version = s.runtime.version().await?.runtime_version;
    match first {
        Some(Err(CriError::Unimplemented { .. })) if version.trim_start_matches('v').starts_with("1.6.") => {}
        Some(Ok(_)) if !version.trim_start_matches('v').starts_with("1.6.") => {}
        other => bail!("containerd {version} said {other:?}"),
    }
    s.remove(&pod).await
}

/// Importing again changes nothing; a removed image comes back.
pub async fn import_is_idempotent(s: &Subject) -> Result<()> {
    let r = real(s)?;
    let before = r.client.list_images().await?;
    images::import_builtin(&r.client).await?;
    let mut after = r.client.list_images().await?;
    let key = |i: &cri::types::Image| i.id.to_string();
    after.sort_by_key(key);
    let mut sorted = before;
    sorted.sort_by_key(key);
    ensure!(after == sorted, "{after:?} is not {sorted:?}");
    let demo = ImageRef::new(images::DEMO);
    r.client.remove_image(&demo).await?;
    ensure!(r.client.image_status(&demo).await?.is_none(), "it is still there");
    images::import_builtin(&r.client).await?;
    let pod = s.pod("again", Does::Runs).await?;
    s.remove(&pod).await
}

/// An image in both formats of archives, and then it runs.
pub async fn archives_are_imported(s: &Subject) -> Result<()> {
    let r = real(s)?;
    let directory = tempfile::tempdir()?;
    let program = demo_program(s).await?;
    for (n, write) in [docker_archive, oci_archive].into_iter().enumerate() {
        let path = directory.path().join("image.tar");
        let name = format!("copepod.local/archived:{n}");
        write(&path, &name, &program)?;
        ensure!(images::import_tar(&r.client, &path, None).await? == [name.clone()], "another name");
        let pod = format!("archived-{n}");
        let sandbox = s.sandbox(&pod);
        let id = r.client.run_pod_sandbox(&sandbox, "").await?;
        let mut config = s.container(&pod, Does::ExitsWith(4));
        config.image = name;
        config.command = vec!["/demo".to_owned()];
        let container = r.client.create_container(&id, &config, &sandbox).await?;
        r.client.start_container(&container).await?;
        ensure!(until(s, &container, ContainerState::Exited).await?.exit_code == 4);
        r.client.remove_pod_sandbox(&id).await?;
    }
    Ok(())
}

/// The demo program, out of a running container's own file system.
async fn demo_program(s: &Subject) -> Result<Vec<u8>> {
    let pod = s.pod("program", Does::Runs).await?;
    let pid = s.runtime.container_status(&pod.container).await?.pid.context("no pid")?;
    let program = fs::read(format!("/proc/{pid}/root/bin/demo"))?;
    s.remove(&pod).await?;
    Ok(program)
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn add(archive: &mut tar::Builder<fs::File>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    Ok(archive.append_data(&mut header, name, bytes)?)
}

fn layer(program: &[u8]) -> Result<Vec<u8>> {
    let mut file = tempfile::tempfile()?;
    let mut archive = tar::Builder::new(file.try_clone()?);
    add(&mut archive, "demo", 0o755, program)?;
    archive.finish()?;
    use std::io::{Read as _, Seek as _};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn config(layer: &[u8]) -> Vec<u8> {
    let arch = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let diff = digest(layer);
    format!(
        r#"{{"architecture":"{arch}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{diff}"]}}}}"#
    )
    .into_bytes()
}

fn docker_archive(path: &Path, name: &str, program: &[u8]) -> Result<()> {
    let layer = layer(program)?;
    let mut archive = tar::Builder::new(fs::File::create(path)?);
    add(&mut archive, "config.json", 0o644, &config(&layer))?;
    add(&mut archive, "abc/layer.tar", 0o644, &layer)?;
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":["abc/layer.tar"]}}]"#);
    add(&mut archive, "manifest.json", 0o644, manifest.as_bytes())?;
    Ok(archive.finish()?)
}

fn oci_archive(path: &Path, name: &str, program: &[u8]) -> Result<()> {
    // Compressed, and behind an index, as many tools write it.
    let plain = layer(program)?;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain)?;
    let packed = packed.finish()?;
    let config = config(&plain);
    let mut archive = tar::Builder::new(fs::File::create(path)?);
    let mut blob = |bytes: &[u8]| -> Result<String> {
        add(&mut archive, &format!("blobs/sha256/{}", digest(bytes)), 0o644, bytes)?;
        Ok(format!(r#""digest":"sha256:{}","size":{}"#, digest(bytes), bytes.len()))
    };
    let (layer, config) = (blob(&packed)?, blob(&config)?);
    let oci = "application/vnd.oci.image";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{oci}.manifest.v1+json","config":{{"mediaType":"{oci}.config.v1+json",{config}}},"layers":[{{"mediaType":"{oci}.layer.v1.tar+gzip",{layer}}}]}}"#
    );
    let manifest = blob(manifest.as_bytes())?;
    let other = digest(b"left out");
    let inner = format!(
        r#"{{"schemaVersion":2,"mediaType":"{oci}.index.v1+json","manifests":[{{"mediaType":"{oci}.manifest.v1+json",{manifest}}},{{"mediaType":"{oci}.manifest.v1+json","digest":"sha256:{other}","size":8,"platform":{{"architecture":"s390x","os":"linux"}}}}]}}"#
    );
    let inner = blob(inner.as_bytes())?;
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{oci}.index.v1+json",{inner},"annotations":{{"io.containerd.image.name":"{name}"}}}}]}}"#
    );
    add(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut archive, "index.json", 0o644, index.as_bytes())?;
    Ok(archive.finish()?)
}
