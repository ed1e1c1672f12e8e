//! What the fuzz targets call: the readers of what the API server, clients, runtimes, pods and administrators send to
//! a node, each with what holds of whatever it reads.

use std::collections::BTreeSet;
use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use tokio_util::codec::{Decoder as _, Encoder as _};

use crate::bootstrap::token::Token;
use crate::bootstrap::{JoinError, discovery};
use crate::cgroup::mounts::Hierarchies;
use crate::config::AgentConfig;
use crate::config::kubelet_config::{apply_kubelet_configuration, duration};
use crate::convert::dns::parse_resolv_conf;
use crate::ids::ObjectName;
use crate::image::{credentials, name};
use crate::logs::LogOptions;
use crate::logs::line::{self, Flow, Renderer};
use crate::logs::tail::start_of_tail;
use crate::node::facts;
use crate::podsource::{PodOrigin, static_pod, url as pod_url};
use crate::podworker::kernel_log;
use crate::probe::{grpc, url};
use crate::server::bridge::{Bridge, EXEC_PROTOCOLS, ExecStreams, Output};
use crate::server::route::{self, Route};
use crate::server::spdy::headers::{HeaderDeflater, HeaderInflater};
use crate::server::spdy::{Frame, FrameDecoder, FrameEncoder, Headers};
use crate::server::{session, stats};

/// Whether a name in a path stays where it is put.
fn is_one_name(part: &str) -> bool {
    !part.contains(['/', '\0']) && part != ".." && part != "."
}

/// A request line: `METHOD PATH?QUERY`.
pub fn request(text: &str) {
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match route::route(method, path) {
        Ok(Route::NodeLogs(inside)) => assert!(inside.is_empty() || inside.split('/').all(is_one_name), "{inside:?}"),
        Ok(Route::ContainerLogs(target) | Route::Exec(target) | Route::Attach(target) | Route::Run(target)) => {
            assert!(!target.pod.namespace.is_empty() && !target.pod.name.is_empty());
        }
        _ => {}
    }
    assert!(!route::subresources(path).is_empty());
    let pairs = route::query(query);
    let decoded: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(decoded <= query.len(), "what is decoded is no longer than it was");
    let options = LogOptions::from_query(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if let Ok(options) = options {
        let _ = options.since_at(Timestamp::UNIX_EPOCH);
    }
    if let Ok(ports) = session::ports(query) {
        assert!(ports.len() <= 100 && !ports.contains(&0));
        let bridge = Bridge::port_forward(&ports);
        assert_eq!(bridge.opening().len(), ports.len() * 2);
    }
}

fn read_frames(bytes: &[u8], step: usize) -> (Vec<Frame>, bool) {
    let (mut decoder, mut buffer, mut frames) = (FrameDecoder::default(), BytesMut::new(), Vec::new());
    for chunk in bytes.chunks(step) {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// Bytes that a SPDY frame takes in memory, its headers' text above all.
fn weight(frame: &Frame) -> usize {
    match frame {
        Frame::SynStream { headers, .. } | Frame::SynReply { headers, .. } | Frame::Headers { headers, .. } => {
            headers.weight()
        }
        Frame::Data { payload, .. } => payload.len(),
        _ => 0,
    }
}

/// A block of headers, inflated: what is kept is no more than what may be sent.
pub fn header_block(block: &[u8]) {
    if let Ok(headers) = Headers::from_block(block) {
        assert!(headers.weight() <= 64 * 1024, "{} bytes of headers", headers.weight());
        let (deflated, mut inflater) = (HeaderDeflater::new().deflate(&headers), HeaderInflater::new());
        let again = inflater.inflate(&deflated.expect("memory can be deflated"));
        // Names of their own are longer than one for all.
        assert!(again.is_err() && block.len() > 4096 || again.is_ok_and(|again| again == headers));
    }
}

/// A SPDY connection of the runtime: however it is cut, the same frames come of it, no block of headers is larger than
/// is allowed, and what is read is written so that it reads the same.
pub fn spdy(data: &[u8]) {
    let [step, bytes @ ..] = data else { return };
    let (frames, failed) = read_frames(bytes, usize::from(*step).max(1));
    assert_eq!(read_frames(bytes, usize::MAX), (frames.clone(), failed));
    for frame in &frames {
        assert!(weight(frame) <= 128 * 1024 + bytes.len(), "{} bytes of headers", weight(frame));
    }
    if frames.iter().all(|frame| weight(frame) < 16 * 1024) {
        let (mut encoder, mut written) = (FrameEncoder::default(), BytesMut::new());
        for frame in &frames {
            encoder.encode(frame.clone(), &mut written).expect("a frame that was read can be written");
        }
        assert_eq!(read_frames(&written, 4096), (frames.clone(), false));
    }
    bridge(frames);
}

/// A session: what the runtime sends goes to one of the client's channels.
fn bridge(frames: Vec<Frame>) {
    let streams = ExecStreams { stdin: true, stdout: true, stderr: true, tty: false };
    for protocol in EXEC_PROTOCOLS {
        let mut bridge = Bridge::exec(protocol.version, streams);
        for frame in frames.clone() {
            for output in bridge.from_runtime(frame) {
                if let Output::Message(channel, payload) = output {
                    let (_, message) = protocol.encode(channel, &payload);
                    assert_eq!(protocol.decode(message.into()), Some((channel, payload)));
                }
            }
        }
        let _ = (bridge.is_finished(), bridge.farewell());
    }
}

/// Messages of a client on channels: two bytes of length before each.
pub fn channels(data: &[u8]) {
    let [which, rest @ ..] = data else { return };
    let mut rest = rest;
    let protocol = EXEC_PROTOCOLS[usize::from(*which) % EXEC_PROTOCOLS.len()];
    let streams = ExecStreams { stdin: which & 64 != 0, stdout: true, stderr: false, tty: which & 128 != 0 };
    let mut bridge = Bridge::exec(protocol.version, streams);
    let opened: Vec<Frame> = bridge.opening();
    while let [high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (message, after) = more.split_at(length);
        rest = after;
        let Some((channel, payload)) = protocol.decode(Bytes::copy_from_slice(message)) else { continue };
        assert!(payload.len() < message.len());
        if let Some(Frame::Data { id, .. }) = bridge.from_client(channel, payload) {
            assert!(opened.iter().any(|frame| matches!(frame, Frame::SynStream { id: of, .. } if *of == id)));
        }
    }
}

/// Lines of a container's log. Whoever asks for some bytes gets the first ones of what the others get, and the last
/// lines are the end of the file.
pub fn container_log(data: &[u8]) {
    let [limit, lines, log @ ..] = data else { return };
    let (limit, lines) = (u64::from(*limit), u64::from(*lines));
    let render = |options: &LogOptions| {
        let (mut renderer, mut out) = (Renderer::new(options, Timestamp::UNIX_EPOCH), Vec::new());
        let _ = log.split_inclusive(|b| *b == b'\n').all(|line| renderer.push(line, &mut out) == Flow::Continue);
        out
    };
    let plain = render(&LogOptions::default());
    assert!(plain.len() <= log.len() + 1, "a prefix goes, at most a newline comes");
    for timestamps in [false, true] {
        let whole = render(&LogOptions { timestamps, ..LogOptions::default() });
        let cut = render(&LogOptions { timestamps, limit_bytes: Some(limit), ..LogOptions::default() });
        let length = usize::try_from(limit).map_or(whole.len(), |limit| whole.len().min(limit));
        assert_eq!(cut, whole[..length]);
    }
    for line in log.split(|b| *b == b'\n') {
        if let Some(read) = line::parse(line) {
            assert!(line.ends_with(read.content));
        }
    }
    let start = start_of_tail(&mut Cursor::new(log), lines).expect("memory can be read");
    let start = usize::try_from(start).expect("within the file");
    assert!(log[start..].split_inclusive(|b| *b == b'\n').count() as u64 <= lines);
    assert!(start == 0 || start == log.len() || log[start - 1] == b'\n');
}

/// A `KubeletConfiguration`: what is refused changes nothing.
pub fn kubelet_configuration(text: &str) {
    let before = AgentConfig::new("node-1", "/data");
    let mut config = before.clone();
    if apply_kubelet_configuration(&mut config, text).is_err() {
        assert_eq!(config, before);
    }
}

/// A duration as Go writes it, in seconds and nanoseconds.
pub fn go_duration(text: &str) -> Option<std::time::Duration> {
    duration(text).ok()
}

/// A static pod, or the list of them behind a URL: what is taken has names that are no paths, and is the same each
/// time.
pub fn static_pods(text: &str) {
    if let Ok(pod) = static_pod::parse(text, PodOrigin::File, "node-1", "now") {
        let meta = &pod.metadata;
        for name in [&meta.name, &meta.namespace, &meta.uid] {
            assert!(name.as_deref().is_some_and(|name| !name.is_empty() && is_one_name(name)), "{name:?}");
        }
        let spec = pod.spec.as_ref().expect("it has a spec");
        assert!(spec.containers.iter().all(|c| !c.name.is_empty() && is_one_name(&c.name)));
        assert_eq!(static_pod::parse(text, PodOrigin::File, "node-1", "now").as_ref(), Ok(&pod));
        let json = serde_json::to_string(&pod).expect("a pod is JSON");
        serde_json::from_str::<k8s_openapi::api::core::v1::Pod>(&json).expect("and is read from it");
    }
    if let Ok(answer) = pod_url::parse(text, &pod_url::Pods::new(), "node-1", "now") {
        let names: BTreeSet<ObjectName> = answer.pods.values().map(|pod| ObjectName::of_pod(pod)).collect();
        assert_eq!(names.len(), answer.pods.len(), "each has a name of its own");
    }
}

/// What a probe sends of a path as a pod writes it, and where an answer's Location leads: a request can be made of it.
pub fn probe(text: &str) {
    let (path, location) = text.split_once('\n').unwrap_or((text, ""));
    let sent = url::request_target(path);
    assert!(sent.starts_with('/') && sent.parse::<http::uri::PathAndQuery>().is_ok(), "{sent:?}");
    assert_eq!(url::request_target(&sent).parse::<http::uri::PathAndQuery>().map(drop).ok(), Some(()));
    if let Some(to) = url::resolve(&sent, false, location) {
        assert!(to.path.starts_with('/') && to.path.parse::<http::uri::PathAndQuery>().is_ok(), "{:?}", to.path);
    }
}

/// The body of a gRPC health check's answer.
pub fn grpc_answer(body: &[u8]) {
    let _ = grpc::response_status(body);
}

/// The name of an image as a pod has it, with its tag; `None` when it is none.
pub fn image_name(text: &str) -> Option<String> {
    let tagged = name::with_tag(text).ok()?;
    assert_eq!(name::with_tag(&tagged).as_ref(), Ok(&tagged));
    let repository = |name: &str| cri::images::Reference::parse(name).map(|read| read.repository());
    let full = repository(text).expect("it was read");
    assert_eq!(repository(&full).as_ref(), Ok(&full), "in full already");
    let _ = name::policy(None, &tagged);
    Some(tagged)
}

/// A secret's registry credentials (`.dockerconfigjson`), asked for an image.
pub fn pull_secret(data: &[u8]) {
    let at = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let (image, config) = data.split_at(at);
    let secret = Secret {
        type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
        data: Some([(".dockerconfigjson".to_owned(), ByteString(config.to_vec()))].into()),
        ..Secret::default()
    };
    let found = credentials::for_image(&[&secret], &String::from_utf8_lossy(image));
    let length: usize = found.iter().map(|found| found.auth.username.len() + found.auth.password.len()).sum();
    assert!(length <= config.len(), "each entry says its own");
}

/// Tables and files of the kernel, as the agent reads them.
pub fn machine(text: &str) {
    let hierarchies = Hierarchies::parse(text);
    assert!(hierarchies.all().count() <= text.lines().count());
    for name in ["MemTotal", "MemAvailable", ""] {
        let _ = facts::meminfo(text, name);
    }
    let _ = facts::os_image(text);
    let _ = (stats::cpu_nanos(text), stats::boot_time(text));
    assert!(crate::cgroup::kill::parse(text).iter().all(|pid| pid.as_raw() > 1));
    for line in text.lines() {
        if let Some(cgroup) = kernel_log::victim(line) {
            assert!(line.contains(cgroup));
        }
    }
}

/// The node's resolv.conf.
pub fn resolv_conf(text: &str) -> Vec<String> {
    let Ok(read) = parse_resolv_conf(text) else { return Vec::new() };
    let words = text.split_whitespace().count();
    assert!(read.servers.len() + read.searches.len() + read.options.len() <= words);
    read.servers
}

/// A bootstrap token, its id and secret.
pub fn bootstrap_token(text: &str) -> Option<(String, String)> {
    let token: Token = text.parse().ok()?;
    assert_eq!(token.bearer(), text);
    Some((token.id().to_owned(), token.secret().to_owned()))
}

/// The `kubeconfig` of `cluster-info`, signed: whatever it holds, it names the CA of what is believed.
pub fn cluster_info(content: &str) {
    let token: Token = "abcdef.0123456789abcdef".parse().expect("a token");
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = part(r#"{"alg":"HS256","kid":"abcdef"}"#);
    let key = EncodingKey::from_secret(token.secret().as_bytes());
    let message = format!("{header}.{}", part(content));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    let signature = format!("{header}..{signature}");
    let info = [("kubeconfig", content.to_owned()), ("jws-kubeconfig-abcdef", signature)];
    let info = info.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let believed = discovery::believe("https://server", &info, &token, &[]);
    assert!(!matches!(believed, Err(JoinError::WrongSignature { .. } | JoinError::UnknownToken { .. })));
    let of_another = discovery::believe("https://server", &info, &token, &["sha256:0".to_owned()]);
    assert!(of_another.is_err(), "no CA has that hash");
}
