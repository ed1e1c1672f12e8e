//! `/containerLogs` and `/logs/`.

use std::fmt::Write as _;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cri::types::ContainerState;
use cri::{ContainerId, RuntimeService};
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;

use super::Shared;
use super::reply::{self, Body, ErrorResponse};
use super::route::{Target, query};
use super::session::find_pod;
use crate::logs::LogOptions;
use crate::logs::options::LogOptionsError;
use crate::logs::read::{Liveness, LogReader};
use crate::podcache::RuntimePod;

struct ByRuntime {
    runtime: Arc<dyn RuntimeService>,
    id: ContainerId,
}

#[async_trait]
impl Liveness for ByRuntime {
    async fn is_running(&self) -> bool {
        match self.runtime.container_status(&self.id).await {
            Ok(status) => matches!(status.state, ContainerState::Running | ContainerState::Created),
            // A runtime that is away says nothing about the container.
            Err(error) => !error.is_not_found(),
        }
    }
}

/// `/containerLogs/{namespace}/{pod}/{container}`.
pub(super) async fn container_logs(shared: Arc<Shared>, target: Target, request: Request<Incoming>) -> Response<Body> {
    stream(&shared, &target, request.uri().query().unwrap_or_default()).await.unwrap_or_else(Response::from)
}

async fn stream(shared: &Arc<Shared>, target: &Target, text: &str) -> Result<Response<Body>, ErrorResponse> {
    let pairs = query(text);
    let options = LogOptions::from_query(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    let options = options.map_err(|error| match error {
        LogOptionsError::Malformed { .. } => ErrorResponse::new(StatusCode::BAD_REQUEST, error),
        LogOptionsError::Invalid(_) => ErrorResponse::new(StatusCode::UNPROCESSABLE_ENTITY, error),
    })?;
    let missing = |_| ErrorResponse::new(StatusCode::NOT_FOUND, format!("pod {:?} not found", &*target.pod.name));
    let (pod, runtime) = find_pod(shared, target).map_err(missing)?;
    if crate::convert::container::find(&pod, &target.container).is_none() {
        let message = format!("container {:?} not found in pod {:?}", target.container, &*target.pod.name);
        return Err(ErrorResponse::new(StatusCode::NOT_FOUND, message));
    }
    let empty = RuntimePod::empty(crate::ids::PodUid::of(&pod), target.pod.clone());
    let runtime = runtime.as_deref().unwrap_or(&empty);
    let picked = pick(&pod, runtime, &target.container, options.previous);
    let (id, path) = picked.map_err(|message| ErrorResponse::new(StatusCode::BAD_REQUEST, message))?;
    let reader = LogReader::open(&path, options, &shared.watcher).await;
    let reader = reader.map_err(|error| ErrorResponse::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    let (chunks, body) = mpsc::channel::<Bytes>(4);
    let liveness = ByRuntime { runtime: shared.state.runtime.clone(), id };
    let token = shared.token.clone();
    shared.sessions.spawn(async move {
        // A client that goes drops the body, which ends the reader.
        tokio::select! {
            () = token.cancelled() => {}
            ended = reader.run(&liveness, chunks) => {
                if let Err(error) = ended {
                    tracing::warn!(container.id = %liveness.id, %error, "log ended");
                }
            }
        }
    });
    let frames = ReceiverStream::new(body).map(|chunk| Ok::<_, io::Error>(Frame::data(chunk)));
    let mut response = reply::text(StatusCode::OK, "");
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    Ok(response)
}

/// Which container's log is meant, by upstream's rules: the API status says
/// which run is the current and which the last one. Pure.
fn pick(pod: &Pod, runtime: &RuntimePod, name: &str, previous: bool) -> Result<(ContainerId, PathBuf), String> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref();
    let lists = status.map(|s| [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses]);
    let api = lists.into_iter().flatten().flatten().flatten().find(|s| s.name == name);
    let waiting = |api: &ContainerStatus| api.state.as_ref().and_then(|s| s.waiting.as_ref()?.reason.clone());
    let waiting = api.and_then(waiting);
    let mut runs = runtime.containers_named(name).filter(|c| c.status.state != ContainerState::Created);
    let newest = runs.next();
    // A container that waits for its next run has its last one behind it.
    let is_over = waiting.is_some() && newest.is_some_and(|c| !c.is_running());
    let chosen = match (previous, is_over) {
        (false, _) | (true, true) => newest,
        (true, false) => runs.next(),
    };
    match chosen {
        Some(container) => Ok((container.id().clone(), PathBuf::from(&container.status.log_path))),
        None if previous => Err(format!("previous terminated container {name:?} in pod {pod_name:?} not found")),
        None => {
            let reason = waiting.unwrap_or_else(|| "ContainerCreating".into());
            Err(match reason.as_str() {
                "ErrImagePull" => {
                    format!("container {name:?} in pod {pod_name:?} is waiting to start: image can't be pulled")
                }
                "ImagePullBackOff" => format!(
                    "container {name:?} in pod {pod_name:?} is waiting to start: trying and failing to pull image"
                ),
                other => format!("container {name:?} in pod {pod_name:?} is waiting to start: {other}"),
            })
        }
    }
}

/// `/logs/…`: files and directories below the node's log directory.
pub(super) async fn node_logs(shared: Arc<Shared>, path: String) -> Response<Body> {
    let root = shared.state.log_dir.clone();
    let opened = tokio::task::spawn_blocking(move || open_inside(&root, &path)).await;
    match opened.map_err(io::Error::other).flatten() {
        Ok(Opened::Directory(listing)) => {
            let mut response = reply::text(StatusCode::OK, listing);
            let html = http::HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(http::header::CONTENT_TYPE, html);
            response
        }
        Ok(Opened::File(file)) => {
            let chunks = ReaderStream::new(tokio::fs::File::from_std(file)).map(|chunk| chunk.map(Frame::data));
            let mut response = reply::text(StatusCode::OK, "");
            *response.body_mut() = StreamBody::new(chunks).boxed_unsync();
            response
        }
        Err(_) => reply::error(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

enum Opened {
    Directory(String),
    File(std::fs::File),
}

/// Opens a path as if `root` were "/": links cannot lead out of it.
fn open_inside(root: &Path, path: &str) -> io::Result<Opened> {
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        // Not waiting for the writer of a FIFO.
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened: OwnedFd = openat2(&root, if path.is_empty() { "." } else { path }, how)?;
    let file = std::fs::File::from(opened);
    let meta = file.metadata()?;
    if meta.is_file() {
        return Ok(Opened::File(file));
    }
    if !meta.is_dir() {
        return Err(io::Error::other("neither file nor directory"));
    }
    let mut dir = nix::dir::Dir::from_fd(OwnedFd::from(file))?;
    let mut names: Vec<String> = dir
        .iter()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().to_str().ok()?.to_owned();
            let is_dir = entry.file_type() == Some(nix::dir::Type::Directory);
            (name != "." && name != "..").then(|| if is_dir { name + "/" } else { name })
        })
        .collect();
    names.sort();
    let mut listing = String::from("<pre>\n");
    for name in names {
        let text = name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
        // Writing to a String cannot fail.
        let _ = writeln!(listing, "<a href=\"{text}\">{text}</a>");
    }
    listing.push_str("</pre>\n");
    Ok(Opened::Directory(listing))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::{ObjectName, PodUid};
    use cri::SandboxId;
    use cri::types::{ContainerMetadata, ContainerStatus as RuntimeStatus};
    use serde_json::json;

    fn pod(state: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [{"name": "c"}]}, "status": {"containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]}}))
        .unwrap()
    }

    fn runs(states: &[(&str, ContainerState)]) -> RuntimePod {
        let containers = states.iter().enumerate().map(|(i, (id, state))| {
            let status = RuntimeStatus {
                id: ContainerId::new(*id),
                metadata: ContainerMetadata { name: "c".into(), attempt: u32::try_from(i).unwrap() },
                state: *state,
                created_at: jiff::Timestamp::from_second(i64::try_from(i).unwrap()).ok(),
                started_at: None,
                finished_at: None,
                exit_code: 0,
                image: String::new(),
                image_ref: String::new(),
                reason: String::new(),
                message: String::new(),
                labels: [].into(),
                annotations: [].into(),
                log_path: format!("/logs/{id}"),
                mounts: Vec::new(),
                pid: None,
            };
            (SandboxId::new("s"), status)
        });
        RuntimePod::assemble(PodUid::new("u"), ObjectName::new("ns", "p"), Vec::new(), containers.collect())
    }

    #[test]
    fn which_run_is_meant() {
        use ContainerState::{Created, Exited, Running};
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let check = |state: serde_json::Value, states: &[_], previous, expect: Result<&str, &str>| {
            let got = pick(&pod(state), &runs(states), "c", previous);
            let got = got.map(|(id, path)| {
                assert_eq!(path, Path::new(&format!("/logs/{id}")));
                id.to_string()
            });
            assert_eq!(got.as_deref().map_err(String::as_str), expect);
        };
        let running = json!({"running": {}});
        check(running.clone(), &[("a", Running)], false, Ok("a"));
        check(running.clone(), &[("a", Exited), ("b", Running)], true, Ok("a"));
        let none = Err("previous terminated container \"c\" in pod \"p\" not found");
        check(running.clone(), &[("a", Running)], true, none);
        // In back-off the last run counts either way.
        check(waiting("CrashLoopBackOff"), &[("a", Exited), ("b", Exited)], false, Ok("b"));
        check(waiting("CrashLoopBackOff"), &[("a", Exited), ("b", Exited)], true, Ok("b"));
        check(running, &[("a", Exited), ("b", Created)], false, Ok("a"));
        let starting = "container \"c\" in pod \"p\" is waiting to start: ";
        let expect = |why: &str| format!("{starting}{why}");
        check(waiting("ContainerCreating"), &[], false, Err(&expect("ContainerCreating")));
        check(waiting("ErrImagePull"), &[], false, Err(&expect("image can't be pulled")));
        check(json!({}), &[], false, Err(&expect("ContainerCreating")));
    }

    #[test]
    fn links_stay_inside_the_log_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("log");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::fs::write(root.join("sub/a.log"), "x").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("up")).unwrap();
        std::os::unix::fs::symlink("/sub/a.log", root.join("in")).unwrap();
        assert!(matches!(open_inside(&root, "sub/a.log"), Ok(Opened::File(_))));
        assert!(matches!(open_inside(&root, "in"), Ok(Opened::File(_))));
        assert!(open_inside(&root, "up").is_err());
        let Ok(Opened::Directory(listing)) = open_inside(&root, "") else { panic!("no listing") };
        assert!(listing.contains("<a href=\"sub/\">sub/</a>"), "{listing}");
    }
}
