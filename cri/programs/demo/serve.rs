//! `serve`: HTTP, TCP echo and UDP echo, and a graceful end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::{self, Args};
use crate::{Outcome, net, state, sys};

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// How long requests under way may take once serving ended.
const LAST_REQUESTS: Duration = Duration::from_secs(10);
/// The largest head and body of a request, in bytes.
const MAX_HEAD: u64 = 64 << 10;
const MAX_BODY: usize = 8 << 20;

#[derive(Default)]
struct Server {
    unhealthy: AtomicBool,
    unready: AtomicBool,
    draining: AtomicBool,
    requests: AtomicUsize,
    health_file: Option<PathBuf>,
    log_requests: bool,
    ballast: Mutex<Vec<Vec<u8>>>,
}

fn port(args: &mut Args, name: &str, default: u16) -> Result<Option<u16>, String> {
    match args.option(name)? {
        None => Ok(Some(default)),
        Some(text) if text == "off" => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| format!("{name} {text:?} is not a port")),
    }
}

pub fn run(mut args: Args) -> Outcome {
    // First of all: what arrives at process 1 before this is lost.
    let signals = sys::Signals::block();
    let http = port(&mut args, "--http", 8080)?;
    let tcp = port(&mut args, "--tcp", 9000)?;
    let udp = port(&mut args, "--udp", 9001)?;
    let drain = args.option("--drain")?.map_or(Ok(Duration::ZERO), |t| args::seconds(&t))?;
    let health_file = args.option("--health-file")?.map(PathBuf::from);
    let log_requests = args.flag("--log-requests");
    args.done()?;
    let server = Arc::new(Server { health_file, log_requests, ..Server::default() });
    sys::ignore_children();
    let at = |port: u16| move |e: io::Error| format!("port {port}: {e}");
    let listen = |port: Option<u16>| port.map(|port| net::listen(port).map_err(at(port))).transpose();
    let (tcp, http) = (listen(tcp)?, listen(http)?);
    let udp = udp.map(|port| net::bind_udp(port).map_err(at(port))).transpose()?;
    // Port 0 is any that is free: which one, has to be told.
    let told = |address: Option<io::Result<SocketAddr>>| address.and_then(Result::ok).map(|address| address.port());
    let ports = format!(
        "http={:?} tcp={:?} udp={:?}",
        told(http.as_ref().map(TcpListener::local_addr)),
        told(tcp.as_ref().map(TcpListener::local_addr)),
        told(udp.as_ref().map(UdpSocket::local_addr))
    );
    if let Some(listener) = tcp {
        thread::spawn(move || each_connection(&listener, |stream, _| echo_tcp(stream)));
    }
    if let Some(socket) = udp {
        thread::spawn(move || echo_udp(&socket));
    }
    if let Some(listener) = http {
        let server = Arc::clone(&server);
        thread::spawn(move || {
            each_connection(&listener, move |stream, peer| serve_connection(&server, stream, peer));
        });
    }
    println!("demo: {} serves {ports}", state::hostname());
    let signal = signals.wait();
    println!("demo: got signal {signal}, serving {} s more", drain.as_secs_f32());
    server.draining.store(true, Ordering::Relaxed);
    thread::sleep(drain);
    let end = Instant::now() + LAST_REQUESTS;
    while server.requests.load(Ordering::Relaxed) > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    println!("demo: done");
    Ok(0)
}

fn each_connection<F>(listener: &TcpListener, handle: F)
where
    F: Fn(TcpStream, SocketAddr) -> io::Result<()> + Clone + Send + 'static,
{
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let handle = handle.clone();
                // A client that breaks off, or no room for a thread, is its problem.
                let _ = thread::Builder::new().stack_size(256 << 10).spawn(move || {
                    let _ = handle(stream, peer);
                });
            }
            // Out of descriptors, for instance: let some connections end.
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Sends back what comes; the single word `hostname` is answered by it.
fn echo_tcp(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let n = stream.read(&mut buffer)?;
        match buffer[..n].trim_ascii() {
            _ if n == 0 => return Ok(()),
            b"hostname" => stream.write_all(format!("{}\n", state::hostname()).as_bytes())?,
            _ => stream.write_all(&buffer[..n])?,
        }
    }
}

fn echo_udp(socket: &UdpSocket) {
    let mut buffer = vec![0; 65536];
    loop {
        let Ok((n, peer)) = socket.recv_from(&mut buffer) else { continue };
        let _ = match buffer[..n].trim_ascii() {
            b"hostname" => socket.send_to(state::hostname().as_bytes(), peer),
            _ => socket.send_to(&buffer[..n], peer),
        };
    }
}

struct Request {
    path: String,
    query: Vec<(String, String)>,
    head: String,
    body: Vec<u8>,
    close: bool,
}

impl Request {
    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.query(name)?.parse().ok()
    }
}

struct Answer {
    status: &'static str,
    body: Vec<u8>,
}

fn answer(status: &'static str, body: impl Into<Vec<u8>>) -> Answer {
    Answer { status, body: body.into() }
}

fn ok(body: impl Into<Vec<u8>>) -> Answer {
    answer("200 OK", body)
}

fn serve_connection(server: &Server, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while !reader.fill_buf()?.is_empty() {
        server.requests.fetch_add(1, Ordering::Relaxed);
        let result = exchange(server, &mut reader, &mut stream, peer);
        server.requests.fetch_sub(1, Ordering::Relaxed);
        if !result? {
            return Ok(());
        }
    }
    Ok(())
}

/// One request and its answer; whether another may follow.
fn exchange(
    server: &Server,
    reader: &mut BufReader<TcpStream>,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> io::Result<bool> {
    let request = match read_request(reader, stream)? {
        Ok(request) => request,
        Err(why) => {
            send(stream, &answer("400 Bad Request", format!("{why}\n")), true)?;
            return Ok(false);
        }
    };
    if server.log_requests {
        println!("demo: {} from {peer}", request.path);
    }
    let answer = respond(server, &request, peer);
    let close = request.close || server.draining.load(Ordering::Relaxed);
    send(stream, &answer, close)?;
    if request.path == "/exit" {
        let code = request.number("code").and_then(|c| i32::try_from(c).ok()).unwrap_or(0);
        std::process::exit(code);
    }
    Ok(!close)
}

fn send(stream: &mut TcpStream, answer: &Answer, close: bool) -> io::Result<()> {
    let connection = if close { "close" } else { "keep-alive" };
    let (status, length) = (answer.status, answer.body.len());
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n"
    );
    // One segment, so that nobody sees half an answer at the end.
    let mut message = head.into_bytes();
    message.extend_from_slice(&answer.body);
    stream.write_all(&message)?;
    stream.flush()
}

/// The outer error is the connection's, the inner one the request's.
fn read_request(reader: &mut BufReader<TcpStream>, stream: &mut TcpStream) -> io::Result<Result<Request, String>> {
    let mut head = String::new();
    loop {
        let mut line = Vec::new();
        reader.by_ref().take(MAX_HEAD).read_until(b'\n', &mut line)?;
        if line.is_empty() || head.len() + line.len() > MAX_HEAD as usize {
            return Ok(Err("the head does not end".to_owned()));
        }
        if line.trim_ascii().is_empty() {
            break;
        }
        head.push_str(&String::from_utf8_lossy(&line));
    }
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (Some(_), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Ok(Err("this is no HTTP".to_owned()));
    };
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|l| l.split_once(':'));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned())
    };
    let length = header("content-length").unwrap_or_else(|| "0".to_owned());
    let length = match length.parse::<usize>() {
        Ok(length) if length <= MAX_BODY => length,
        _ => return Ok(Err(format!("content-length {length:?} is not possible here"))),
    };
    let connection = header("connection").unwrap_or_default().to_ascii_lowercase();
    let close = connection == "close" || (version == "HTTP/1.0" && connection != "keep-alive");
    if header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (unescape(path), parse_query(query));
    Ok(Ok(Request { path, query, head: head.clone(), body, close }))
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|p| !p.is_empty());
    pairs.map(|p| p.split_once('=').unwrap_or((p, ""))).map(|(k, v)| (unescape(k), unescape(v))).collect()
}

/// `%41+b` → `A b`; what is not an escape stays.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn respond(server: &Server, request: &Request, peer: SocketAddr) -> Answer {
    match request.path.as_str() {
        "/" | "/hostname" => ok(format!("{}\n", state::hostname())),
        "/env" => ok(state::environment()),
        "/file" => file(request),
        "/exit" => ok("bye\n"),
        "/hang" => {
            thread::sleep(Duration::from_secs(request.number("seconds").unwrap_or(86_400)));
            ok("awake\n")
        }
        "/slow" => {
            thread::sleep(Duration::from_millis(request.number("ms").unwrap_or(1000)));
            ok(format!("{}\n", state::hostname()))
        }
        "/healthz" => health(server, request, &server.unhealthy),
        "/readyz" => health(server, request, &server.unready),
        "/echo" => ok(request.query("msg").map_or_else(|| request.body.clone(), |m| m.as_bytes().to_vec())),
        "/clientip" => ok(format!("{}\n", peer.ip().to_canonical())),
        "/headers" => ok(request.head.clone()),
        "/log" => {
            println!("{}", request.query("msg").unwrap_or_default());
            ok("logged\n")
        }
        "/alloc" => allocate(server, request),
        _ => answer("404 Not Found", "no such page\n"),
    }
}

fn file(request: &Request) -> Answer {
    let Some(path) = request.query("path") else { return answer("400 Bad Request", "path is missing\n") };
    match std::fs::read(path) {
        Ok(content) => ok(content),
        Err(e) => answer("404 Not Found", format!("{path}: {e}\n")),
    }
}

/// `fail=1` and `fail=0` switch; a health file decides where one was named.
fn health(server: &Server, request: &Request, failing: &AtomicBool) -> Answer {
    match request.query("fail") {
        Some(value) => {
            failing.store(value != "0", Ordering::Relaxed);
            ok("switched\n")
        }
        None if failing.load(Ordering::Relaxed) => answer("500 Internal Server Error", "failing\n"),
        None if server.health_file.as_ref().is_some_and(|f| !f.exists()) => {
            answer("500 Internal Server Error", "the health file is missing\n")
        }
        None => ok("ok\n"),
    }
}

/// Takes memory for good, page by page, so that limits have something to limit.
fn allocate(server: &Server, request: &Request) -> Answer {
    let megabytes = request.number("mb").and_then(|mb| usize::try_from(mb).ok()).unwrap_or(1);
    for _ in 0..megabytes {
        let block = vec![1; 1 << 20];
        if let Ok(mut ballast) = server.ballast.lock() {
            ballast.push(block);
        }
    }
    ok(format!("{megabytes} MiB more\n"))
}
