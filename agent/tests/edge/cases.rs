//! What clients do, and what they must see.

use std::process::{Command, Stdio};
use std::time::Duration;

use agent::retention::logs::{LogRotator, RotationPolicy};
use anyhow::{Context, Result, bail, ensure};
use futures::{SinkExt, StreamExt};
use harness::kubectl::Kubectl;
use harness::program::{self, Ended};
use harness::{sys, time};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::world::{Edge, TCP_PORT};

/// kubectl's switches between its protocols.
const WEBSOCKETS: [&str; 2] = ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"];

fn kubectl(world: &Edge, websockets: bool, args: &[&str]) -> Command {
    let kubectl = Kubectl::with_server(world.directory(), &format!("http://127.0.0.1:{}", world.front.port));
    let mut command = kubectl.flag("--namespace=ns").command(args);
    for switch in WEBSOCKETS {
        command.env(switch, websockets.to_string());
    }
    command
}

async fn output(command: Command) -> Result<Ended> {
    program::run_beside(command, None).await
}

/// Starts one that is talked to.
fn start(mut command: Command) -> Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::end_with_us(&mut command);
    tokio::process::Command::from(command).kill_on_drop(true).spawn().context("start kubectl")
}

fn expect(ended: &Ended, stdout: &str) -> Result<()> {
    ensure!(ended.status.success() && ended.stdout == stdout, "{ended:?}");
    Ok(())
}

pub async fn kubectl_runs_commands(world: &Edge) -> Result<()> {
    for websockets in [true, false] {
        let run = kubectl(world, websockets, &["exec", "p", "-c", "web", "--", "echo", "a b", "c"]);
        expect(&output(run).await?, "a b c\n").with_context(|| format!("websockets: {websockets}"))?;
    }
    Ok(())
}

pub async fn kubectl_passes_stdin_both_ways(world: &Edge) -> Result<()> {
    let text: String = (0..60_000).map(|i| format!("{i}\n")).collect();
    for websockets in [true, false] {
        let mut child = start(kubectl(world, websockets, &["exec", "-i", "p", "-c", "web", "--", "cat"]))?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let sent = text.clone();
        let writer = tokio::spawn(async move {
            stdin.write_all(sent.as_bytes()).await?;
            stdin.shutdown().await
        });
        let output = time::within("the end of cat", child.wait_with_output()).await??;
        writer.await??;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.stdout == text.as_bytes(),
            "websockets {websockets}: {} of {} bytes",
            output.stdout.len(),
            text.len()
        );
    }
    Ok(())
}

pub async fn kubectl_gets_exit_codes(world: &Edge) -> Result<()> {
    for websockets in [true, false] {
        let ended = output(kubectl(world, websockets, &["exec", "p", "-c", "web", "--", "exit", "3", "bye"])).await?;
        ensure!(ended.status.code() == Some(3), "websockets {websockets}: {ended:?}");
        let ended = output(kubectl(world, websockets, &["exec", "p", "-c", "web", "--", "no-such"])).await?;
        ensure!(!ended.status.success() && ended.stderr.contains("no-such"), "{ended:?}");
    }
    Ok(())
}

pub async fn kubectl_has_a_terminal(world: &Edge) -> Result<()> {
    for websockets in [true, false] {
        let run = kubectl(world, websockets, &["exec", "-it", "p", "-c", "web", "--", "tty"]);
        let line: Vec<String> = std::iter::once(run.get_program())
            .chain(run.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        // script gives kubectl a terminal of its own.
        let mut script = Command::new("script");
        script.args(["-qec", &line.join(" "), "/dev/null"]);
        for (name, value) in run.get_envs() {
            script.env(name, value.unwrap_or_default());
        }
        let ended = output(script).await?;
        let tells = ended.status.success() && !ended.stdout.contains("not a tty");
        ensure!(tells, "websockets {websockets}: {ended:?}");
    }
    Ok(())
}

pub async fn kubectl_reads_and_follows_logs(world: &Edge) -> Result<()> {
    let log = |args: &[&'static str]| {
        let all: Vec<&str> = ["logs", "p", "-c", "ticker"].into_iter().chain(args.iter().copied()).collect();
        kubectl(world, true, &all)
    };
    // An API server makes a Status of this; the front does not.
    let early = ask(world, true, "GET /containerLogs/ns/p/ticker HTTP/1.1").await?;
    ensure!(early.contains(" 400 ") && early.contains("is waiting to start: ContainerCreating"), "{early}");
    world.run("ticker", &["log", "--repeat=4", "--interval=300", "tick"], false).await?;
    expect(&output(log(&["-f"])).await?, "tick\ntick\ntick\ntick\n")?;
    expect(&output(log(&["--tail=2"])).await?, "tick\ntick\n")?;
    expect(&output(log(&["--limit-bytes=7"])).await?, "tick\nti")?;
    let line = output(log(&["--timestamps", "--tail=1"])).await?.stdout;
    ensure!(line.ends_with("Z tick\n") && line.starts_with("20"), "{line:?}");
    let previous = ask(world, true, "GET /containerLogs/ns/p/ticker?previous=true HTTP/1.1").await?;
    ensure!(previous.contains(" 400 ") && previous.contains("previous terminated container"), "{previous}");
    Ok(())
}

pub async fn kubectl_attaches(world: &Edge) -> Result<()> {
    for websockets in [true, false] {
        let id = world.run("talker", &["cat"], true).await?;
        let mut child = start(kubectl(world, websockets, &["attach", "-i", "p", "-c", "talker"]))?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        stdin.write_all(b"hello\n").await?;
        let mut line = String::new();
        time::within("an echo", stdout.read_line(&mut line)).await??;
        ensure!(line == "hello\n", "{line:?}");
        stdin.shutdown().await?;
        drop(stdin);
        let status = time::within("the end of attach", child.wait()).await??;
        ensure!(status.success(), "websockets {websockets}: {status:?}");
        // Its end may not have come to the runtime's mind yet, and what runs is not removed.
        world.client.stop_container(&id, Duration::ZERO).await?;
        world.client.remove_container(&id).await?;
        world.look().await?;
    }
    Ok(())
}

/// Starts `kubectl port-forward` and returns the local port it tells.
async fn forwarded(world: &Edge, websockets: bool, remote: u16) -> Result<(Child, u16)> {
    let mut child = start(kubectl(world, websockets, &["port-forward", "pod/p", &format!(":{remote}")]))?;
    let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut line = String::new();
    time::within("a forwarded port", stdout.read_line(&mut line)).await??;
    let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next()?.parse().ok());
    let Some(port) = port else {
        child.kill().await?;
        let mut text = String::new();
        child.stderr.take().context("no stderr")?.read_to_string(&mut text).await?;
        bail!("{line:?} {text:?}");
    };
    // The pipe must stay open, or kubectl dies of it.
    tokio::spawn(async move { while stdout.read_line(&mut String::new()).await.is_ok_and(|n| n > 0) {} });
    Ok((child, port))
}

pub async fn kubectl_forwards_ports(world: &Edge) -> Result<()> {
    for websockets in [true, false] {
        let (mut child, port) = forwarded(world, websockets, TCP_PORT).await?;
        for round in 0..3 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let mut text = format!("round {round} ").repeat(5000).into_bytes();
            text.push(b'\n');
            let (mut read, mut write) = stream.split();
            let mut got = vec![0; text.len()];
            let (sent, received) = tokio::join!(write.write_all(&text), read.read_exact(&mut got));
            sent?;
            received.with_context(|| format!("websockets {websockets}, round {round}"))?;
            ensure!(got == text, "the echo differs");
        }
        child.kill().await?;
        // A port nobody listens on: the connection ends, kubectl says why.
        let (mut child, port) = forwarded(world, websockets, 1).await?;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let end = time::within("the end of the connection", stream.read(&mut [0; 8])).await?;
        ensure!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        child.kill().await?;
    }
    Ok(())
}

pub async fn kubectl_copies_files(world: &Edge) -> Result<()> {
    let (source, back) = (world.directory().join("source"), world.directory().join("back"));
    let text: String = (0..20_000).map(|i| format!("{i}\n")).collect();
    std::fs::write(&source, &text)?;
    for websockets in [true, false] {
        let to = kubectl(world, websockets, &["cp", &source.display().to_string(), "p:/copied", "-c", "web"]);
        output(to).await?.success("kubectl cp")?;
        let from = kubectl(world, websockets, &["cp", "p:/copied", &back.display().to_string(), "-c", "web"]);
        let done = output(from).await?;
        ensure!(done.status.success() && std::fs::read_to_string(&back)? == text, "{done:?}");
        std::fs::remove_file(&back)?;
    }
    Ok(())
}

async fn websocket(world: &Edge, path: &str, protocol: &str) -> Result<WebSocketStream<TcpStream>> {
    let url = format!("ws://127.0.0.1:{}/api/v1/namespaces/ns/pods/p/{path}", world.front.port);
    let mut request = url.into_client_request()?;
    if !protocol.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse()?);
    }
    let stream = TcpStream::connect(("127.0.0.1", world.front.port)).await?;
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

/// Messages up to the end of the session.
async fn messages(socket: &mut WebSocketStream<TcpStream>) -> Result<Vec<Message>> {
    let mut all = Vec::new();
    while let Some(Ok(message)) = time::within("a message", socket.next()).await? {
        if !message.is_close() {
            all.push(message);
        }
    }
    Ok(all)
}

pub async fn old_websocket_clients_are_served(world: &Edge) -> Result<()> {
    let path = "exec?container=web&stdout=true&stderr=true&command=echo&command=hi";
    let mut socket = websocket(world, path, "v4.base64.channel.k8s.io").await?;
    let got = messages(&mut socket).await?;
    let text: Vec<&str> = got.iter().filter_map(|m| m.to_text().ok()).collect();
    ensure!(text[..2] == ["1", "1aGkK"], "{text:?}");
    ensure!(text.last().is_some_and(|last| last.starts_with('3')), "{text:?}");

    let mut socket = websocket(world, path, "").await?;
    let got: Vec<_> = messages(&mut socket).await?.into_iter().map(Message::into_data).collect();
    ensure!(got == [&b"\x01"[..], b"\x01hi\n"], "V1 has no status on success: {got:?}");

    // A client that goes in the middle ends the command.
    let path = "exec?container=web&stdin=true&stdout=true&command=cat";
    let mut socket = websocket(world, path, "v5.channel.k8s.io").await?;
    socket.send(Message::Binary(b"\x00x".to_vec().into())).await?;
    socket.next().await.context("no greeting")??;
    let echo = socket.next().await.context("no echo")??;
    ensure!(echo == Message::Binary(b"\x01x".to_vec().into()), "{echo:?}");
    Ok(())
}

pub async fn channel_port_forward_is_served(world: &Edge) -> Result<()> {
    let mut socket = websocket(world, &format!("portforward?ports={TCP_PORT}"), "v4.channel.k8s.io").await?;
    let mut got = Vec::new();
    socket.send(Message::Binary(b"\x00ping\n".to_vec().into())).await?;
    while !got.ends_with(b"ping\n") {
        let next = time::within("an echo", socket.next()).await?;
        let bytes = next.context("ended early")??.into_data();
        match bytes.split_first() {
            Some((0, payload)) => got.extend_from_slice(payload),
            Some((1, payload)) => ensure!(payload == TCP_PORT.to_le_bytes(), "{payload:?}"),
            other => bail!("{other:?}"),
        }
    }
    ensure!(got[..2] == TCP_PORT.to_le_bytes(), "{got:?}");
    Ok(())
}

pub async fn rotated_logs_are_followed(world: &Edge) -> Result<()> {
    // It logs for as long as it takes, and numbers what it says.
    let id = world.run("old", &["log", "--repeat=1000000", "--interval=20", "tock {n}"], false).await?;
    let mut follow = start(kubectl(world, true, &["logs", "-f", "p", "-c", "old"]))?;
    let mut lines = BufReader::new(follow.stdout.take().context("no stdout")?).lines();
    let log = world.client.container_status(&id).await?.log_path;
    // The reader must have the first file open before it is rotated.
    let first = time::within("a line", lines.next_line()).await??;
    ensure!(first.as_deref() == Some("tock 0"), "{first:?}");
    let rotator = LogRotator::new(world.client.clone(), world.cache.clone(), RotationPolicy::default());
    rotator.rotate(&id, log.as_ref()).await?;
    let number = async || -> Result<u64> {
        let text = std::fs::read_to_string(&log)?;
        let (line, _) = text.split_once('\n').context("no line yet")?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    };
    let beyond = time::eventually("a line in the new file", number).await?;
    ensure!(beyond > 0, "the file is the old one");
    let mut said = 0;
    while let Some(line) = time::within("another line", lines.next_line()).await?? {
        said += 1;
        ensure!(line == format!("tock {said}"), "after {}: {line:?}", said - 1);
        if said == beyond + 5 {
            world.client.stop_container(&id, Duration::ZERO).await?;
        }
    }
    ensure!(said >= beyond + 5, "the last one is {said}, the new file begins with {beyond}");
    ensure!(time::within("the end of kubectl", follow.wait()).await??.success(), "kubectl failed");
    Ok(())
}

/// One plain request to the kubelet; the whole answer.
async fn ask(world: &Edge, trusted: bool, request: &str) -> Result<String> {
    let mut stream = world.kubelet.connect(trusted).await?;
    stream.write_all(format!("{request}\r\nHost: k\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // A peer that closes without TLS's goodbye is no matter here.
    let _ = time::within("an answer", stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

pub async fn strangers_are_refused(world: &Edge) -> Result<()> {
    for path in ["/pods", "/exec/ns/p/web?command=id", "/containerLogs/ns/p/web", "/healthz"] {
        let answer = ask(world, false, &format!("GET {path} HTTP/1.1")).await?;
        ensure!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
    }
    let answer = ask(world, false, "GET /pods HTTP/1.1\r\nAuthorization: Bearer x").await?;
    ensure!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let mut plain = TcpStream::connect(("127.0.0.1", world.kubelet.port)).await?;
    plain.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").await?;
    let mut answer = Vec::new();
    let _ = time::within("the end of the connection", plain.read_to_end(&mut answer)).await?;
    ensure!(!String::from_utf8_lossy(&answer).contains("200 OK"), "{answer:?}");
    Ok(())
}

pub async fn bad_requests_are_named(world: &Edge) -> Result<()> {
    let upgrade = "\r\nConnection: Upgrade\r\nUpgrade: ";
    for (request, status, text) in [
        ("GET /nothing HTTP/1.1".to_owned(), 404, "404 page not found"),
        ("DELETE /pods HTTP/1.1".into(), 405, ""),
        ("GET /containerLogs/ns/q/web HTTP/1.1".into(), 404, "pod \"q\" not found"),
        ("GET /containerLogs/ns/p/zzz HTTP/1.1".into(), 404, "container \"zzz\" not found in pod \"p\""),
        ("GET /containerLogs/ns/p/web?tailLines=x HTTP/1.1".into(), 400, "tailLines"),
        ("GET /containerLogs/ns/p/web?tailLines=-1 HTTP/1.1".into(), 422, "tailLines"),
        ("POST /exec/ns/p/web?command=id&output=1 HTTP/1.1".into(), 400, "Upgrade request required"),
        (format!("POST /exec/ns/p/web?command=id HTTP/1.1{upgrade}SPDY/3.1"), 400, "at least 1 of stdin"),
        (format!("POST /exec/ns/p/zzz?command=id&output=1 HTTP/1.1{upgrade}SPDY/3.1"), 500, "container not found"),
        (format!("POST /exec/ns/q/web?command=id&output=1 HTTP/1.1{upgrade}SPDY/3.1"), 404, "pod does not exist"),
        (format!("POST /exec/ns/p/u/web?command=id&output=1 HTTP/1.1{upgrade}SPDY/3.1"), 404, "pod does not exist"),
        (format!("GET /exec/ns/p/web?command=id&output=1 HTTP/1.1{upgrade}websocket"), 400, "version"),
        (format!("GET /portForward/ns/p?port=x HTTP/1.1{upgrade}SPDY/3.1"), 400, "\"x\" as a port"),
    ] {
        let answer = ask(world, true, &request).await?;
        let line = format!("HTTP/1.1 {status} ");
        ensure!(answer.starts_with(&line) && answer.contains(text), "{request}: {answer}");
    }
    Ok(())
}

pub async fn figures_are_told(world: &Edge) -> Result<()> {
    for (path, text) in [
        ("/healthz", "ok"),
        ("/pods", "\"kind\":\"PodList\""),
        ("/runningpods/", "\"name\":\"web\""),
        ("/stats/summary", "\"usageCoreNanoSeconds\""),
        ("/metrics", "kubelet_running_pods 1"),
        ("/metrics/resource", "container_memory_working_set_bytes{container=\"web\",namespace=\"ns\",pod=\"p\"}"),
        ("/metrics/cadvisor", "container_memory_rss"),
        ("/metrics/probes", "prober_probe_total"),
        ("/configz", "kubeletconfig"),
        ("/logs/", "web.log"),
    ] {
        let answer = ask(world, true, &format!("GET {path} HTTP/1.1")).await?;
        ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(text), "{path}: {answer}");
    }
    let answer = ask(world, true, "POST /run/ns/p/web?cmd=echo%20hi HTTP/1.1\r\nContent-Length: 0").await?;
    ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("hi\n"), "{answer}");
    Ok(())
}
