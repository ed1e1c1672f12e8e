//! The demo image's program, run outside of containers: its server, its tools.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;

use anyhow::Context;
use harness::net::ClosedPort;
use harness::{sys, time};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

struct Demo {
    directory: TempDir,
}

impl Demo {
    fn new() -> Self {
        let demo = Self { directory: tempfile::tempdir().unwrap() };
        let bytes = demo.path("bytes");
        fs::write(&bytes, cri::images::demo_program().unwrap()).unwrap();
        fs::set_permissions(&bytes, fs::Permissions::from_mode(0o755)).unwrap();
        // Not by this process: a child of another test might have it open for writing while this one runs it.
        assert!(Command::new("cp").arg(&bytes).arg(demo.program()).status().unwrap().success());
        fs::remove_file(&bytes).unwrap();
        demo
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("demo")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(self.program()).args(args).current_dir(self.directory.path()).output().unwrap()
    }

    /// The tool's output; it must succeed.
    fn text(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn code(&self, args: &[&str]) -> i32 {
        self.run(args).status.code().unwrap()
    }
}

struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    http: u16,
    tcp: u16,
    udp: u16,
}

impl Server {
    fn start(demo: &Demo, extra: &[&str]) -> Self {
        let mut command = Command::new(demo.program());
        command.args(["serve", "--http", "0", "--tcp", "0", "--udp", "0"]).args(extra).stdout(Stdio::piped());
        let mut child = sys::end_with_us(&mut command).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, output, http: 0, tcp: 0, udp: 0 };
        // It says so when it listens.
        let said = server.says("serves");
        let port = |name: &str| {
            let (_, rest) = said.split_once(&format!("{name}=Some(")).unwrap();
            rest.split_once(')').unwrap().0.parse().unwrap()
        };
        (server.http, server.tcp, server.udp) = (port("http"), port("tcp"), port("udp"));
        server
    }

    /// Reads the next line of its log, which has to have this in it.
    fn says(&mut self, part: &str) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.contains(part), "{line}");
        line
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn wait(&mut self) -> i32 {
        let ended = || self.child.try_wait()?.context("it goes on");
        time::until("its end", ended).unwrap().code().unwrap()
    }

    /// Sends bytes and returns all that comes back until the end.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).unwrap();
        stream.set_read_timeout(Some(time::limit())).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is fine: we may have sent more than was read.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(&self, path: &str) -> (u16, String) {
        let answer = self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn pages() {
    let demo = Demo::new();
    let server = Server::start(&demo, &[]);
    let name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    fs::write(demo.path("f"), "content").unwrap();
    let file = format!("/file?path={}", demo.path("f").display());
    let table = [
        ("/", 200, format!("{name}\n")),
        ("/hostname", 200, format!("{name}\n")),
        ("/clientip", 200, "127.0.0.1\n".to_owned()),
        ("/echo?msg=a%20b+c%zz", 200, "a b c%zz".to_owned()),
        (file.as_str(), 200, "content".to_owned()),
        ("/file?path=/does/not/exist", 404, "/does/not/exist: No such file or directory (os error 2)\n".to_owned()),
        ("/file", 400, "path is missing\n".to_owned()),
        ("/nothing", 404, "no such page\n".to_owned()),
        ("/healthz", 200, "ok\n".to_owned()),
        ("/healthz?fail=1", 200, "switched\n".to_owned()),
        ("/healthz", 500, "failing\n".to_owned()),
        ("/readyz", 200, "ok\n".to_owned()),
        ("/healthz?fail=0", 200, "switched\n".to_owned()),
        ("/healthz", 200, "ok\n".to_owned()),
    ];
    for (path, status, body) in table {
        assert_eq!(server.get(path), (status, body), "{path}");
    }
    let posted = server.raw(b"POST /echo HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc");
    assert!(posted.ends_with("\r\n\r\nabc"), "{posted}");
}

#[test]
fn garbage_is_answered_and_survived() {
    let demo = Demo::new();
    let server = Server::start(&demo, &[]);
    let endless = vec![b'a'; 200_000];
    for request in
        [&b"\0\xff\xfe\r\n\r\n"[..], b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", &endless]
    {
        let answer = server.raw(request);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert_eq!(server.get("/").0, 200);
}

#[test]
fn echoes_on_both_transports() {
    let demo = Demo::new();
    let server = Server::start(&demo, &[]);
    let (tcp, udp) = (server.tcp.to_string(), server.udp.to_string());
    assert_eq!(demo.text(&["tcp-send", "127.0.0.1", &tcp, "hello", "you"]), "hello you\n");
    assert_eq!(demo.text(&["udp-send", "127.0.0.1", &udp, "hello"]), "hello\n");
    assert_eq!(demo.text(&["udp-send", "127.0.0.1", &udp, "hostname"]), demo.text(&["hostname"]));
    let closed = ClosedPort::udp().unwrap();
    assert_eq!(demo.code(&["udp-send", "127.0.0.1", &closed.number().to_string(), "x"]), 1);
}

#[test]
fn draining_serves_on_and_exits_well() {
    let demo = Demo::new();
    let mut server = Server::start(&demo, &["--drain", "86400"]);
    server.signal(Signal::SIGTERM);
    server.says("got signal 15, serving 86400 s more");
    assert_eq!(server.get("/").0, 200);
    let mut server = Server::start(&demo, &["--drain", "0.1"]);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), 0);
    // A request under way is answered to its end.
    let mut server = Server::start(&demo, &["--log-requests"]);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.http)).unwrap();
    stream.write_all(b"GET /slow?ms=500 HTTP/1.1\r\n\r\n").unwrap();
    server.says("/slow");
    server.signal(Signal::SIGTERM);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(server.wait(), 0);
}

#[test]
fn exits_when_asked() {
    let demo = Demo::new();
    let mut server = Server::start(&demo, &[]);
    assert_eq!(server.get("/exit?code=7").0, 200);
    assert_eq!(server.wait(), 7);
}

#[test]
fn http_get_counts_failures() {
    let demo = Demo::new();
    let server = Server::start(&demo, &[]);
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", server.http);
    assert_eq!(demo.text(&["http-get", "--count", "3", &url("/echo?msg=x")]), "x\nx\nx\n");
    assert_eq!(demo.text(&["http-get", "--header", "X-Y: z", &url("/headers")]).matches("X-Y: z").count(), 1);
    assert_eq!(demo.code(&["http-get", &url("/nothing")]), 1);
    assert_eq!(demo.code(&["http-get", "--timeout", "0.2", &url("/hang")]), 1);
    let closed = ClosedPort::tcp().unwrap();
    assert_eq!(demo.code(&["http-get", &format!("http://127.0.0.1:{}/", closed.number())]), 1);
    assert_eq!(demo.code(&["http-get", "ftp://x"]), 1);
}

/// Every write to a datagram socket arrives by itself.
#[test]
fn complaints_come_in_one_piece() {
    let demo = Demo::new();
    let (complaints, end) = UnixDatagram::pair().unwrap();
    let mut command = Command::new(demo.program());
    command.args(["log", "--stderr", "one {n}", "two"]).stderr(OwnedFd::from(end));
    assert!(command.status().unwrap().success());
    complaints.set_read_timeout(Some(time::limit())).unwrap();
    for line in ["one 0\n", "two\n"] {
        let mut found = [0; 64];
        let length = complaints.recv(&mut found).unwrap();
        assert_eq!(String::from_utf8_lossy(&found[..length]), line);
    }
}

#[test]
fn alloc_takes_memory_and_keeps_it() {
    let demo = Demo::new();
    let mut child = Command::new(demo.program()).args(["alloc", "8"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "8 MiB taken\n");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    assert!(resident.is_some_and(|kibibytes: u64| kibibytes > 8 << 10), "{status}");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(demo.code(&["alloc", "much"]), 1);
}

#[test]
fn small_tools() {
    let demo = Demo::new();
    assert_eq!(demo.text(&["echo", "a", "b"]), "a b\n");
    assert_eq!(demo.text(&["log", "--repeat", "2", "n={n}"]), "n=0\nn=1\n");
    demo.text(&["write", "x", "hello", "you"]);
    assert_eq!(demo.text(&["cat", "x"]), "hello you");
    assert_eq!(demo.code(&["cat", "none"]), 1);
    demo.text(&["mkdir", "-p", "d/e"]);
    assert_eq!(demo.text(&["ls"]), "d\ndemo\nx\n");
    assert!(demo.text(&["stat", "x"]).contains("size=9 type=file"));
    assert_eq!([demo.code(&["test", "-d", "d"]), demo.code(&["test", "-f", "d"])], [0, 1]);
    assert_eq!([demo.code(&["test-exists", "x"]), demo.code(&["test-exists", "y"])], [0, 1]);
    assert_eq!(demo.code(&["exit", "9", "bye"]), 9);
    assert_eq!(demo.code(&["exit", "3", "--message", "m", "why"]), 3);
    assert_eq!(demo.text(&["cat", "m"]), "why");
    assert_eq!([demo.code(&["true"]), demo.code(&["false"]), demo.code(&["bogus"])], [0, 1, 2]);
    assert!(demo.text(&["id"]).starts_with("uid="));
    assert_eq!(demo.code(&["sleep", "x"]), 1);
    demo.text(&["sleep", "0.01"]);
    // By the name it is called.
    symlink("demo", demo.path("echo")).unwrap();
    let output = Command::new(demo.path("echo")).arg("serve").output().unwrap();
    assert_eq!(output.stdout, b"serve\n");
}

/// Both ends of `kubectl cp`, against another implementation.
#[test]
fn tar_agrees_with_the_system() {
    let demo = Demo::new();
    let tree = demo.path("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/file"), vec![7; 70_000]).unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    fs::write(tree.join("n".repeat(200)), "long").unwrap();
    fs::set_permissions(tree.join("empty"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("sub/file", tree.join("link")).unwrap();
    let pipe = |from: &[&str], to: &[&str], into: &Path| {
        fs::create_dir_all(into).unwrap();
        let mut write = Command::new(from[0])
            .args(&from[1..])
            .current_dir(demo.directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let read = Command::new(to[0]).args(&to[1..]).current_dir(into).stdin(write.stdout.take().unwrap()).status();
        assert!(write.wait().unwrap().success() && read.unwrap().success(), "{from:?} {to:?}");
        let same = Command::new("diff").arg("-r").arg(&tree).arg(into.join("tree")).status().unwrap();
        assert!(same.success(), "{from:?} {to:?}");
    };
    let program = demo.program();
    let ours = program.to_str().unwrap();
    pipe(&[ours, "tar", "cf", "-", "tree"], &["tar", "xf", "-"], &demo.path("a"));
    pipe(&["tar", "cf", "-", "--format=pax", "tree"], &[ours, "tar", "-xmf", "-", "-C", "."], &demo.path("b"));
    let flags = ["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-"];
    pipe(&["tar", "cf", "-", "tree"], &[&[ours], &flags[..]].concat(), &demo.path("c"));
    assert_eq!(fs::metadata(demo.path("a/tree/empty")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_link(demo.path("b/tree/link")).unwrap(), Path::new("sub/file"));
}

#[test]
fn tar_refuses_garbage_and_escapes() {
    let demo = Demo::new();
    fs::write(demo.path("garbage"), [0x55; 2048]).unwrap();
    assert_eq!(demo.code(&["tar", "xf", "garbage"]), 1);
    assert_eq!(demo.code(&["tar", "cf", "-", "/does/not/exist"]), 2);
    assert_eq!(demo.code(&["tar", "q"]), 1);
    fs::create_dir(demo.path("in")).unwrap();
    let mut header = tar::Header::new_ustar();
    let name = b"../outside";
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_size(1);
    header.set_mode(0o644);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend([b'x']);
    archive.resize(4 * 512, 0);
    fs::write(demo.path("evil"), archive).unwrap();
    assert_eq!(demo.code(&["tar", "xf", "../evil", "-C", "in"]), 1);
    assert!(!demo.path("outside").exists());
    // Cut short in a file.
    fs::write(demo.path("in/f"), vec![1; 5000]).unwrap();
    demo.text(&["tar", "cf", "whole.tar", "in"]);
    let whole = fs::read(demo.path("whole.tar")).unwrap();
    fs::write(demo.path("cut.tar"), &whole[..2048]).unwrap();
    assert_eq!(demo.code(&["tar", "xf", "cut.tar"]), 1);
}

/// A name server that answers one question after another from a table.
fn name_server(answers: Vec<Vec<u8>>) -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        for answer in answers {
            let mut question = [0; 512];
            let (n, peer) = socket.recv_from(&mut question).unwrap();
            let mut message = question[..n].to_vec();
            // An answer, with as many records as the table's first byte says.
            message[2] |= 0x80;
            message[3] = answer[0];
            message[7] = answer[1];
            message.extend(&answer[2..]);
            socket.send_to(&message, peer).unwrap();
        }
    });
    port
}

/// A record for the question's name: type, and data after its length.
fn record(kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).unwrap();
    [&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 5, 0, length], data].concat()
}

#[test]
fn dns_prints_records() {
    let demo = Demo::new();
    let ask = |answer: Vec<u8>, kind: &str, name: &str| {
        let port = name_server(vec![answer]);
        demo.run(&["dns", kind, name, &format!("@127.0.0.1:{port}")])
    };
    let table = [
        ([&[0, 1][..], &record(1, &[10, 43, 0, 1])].concat(), "A", "a.b", "a.b. 5 A 10.43.0.1\n"),
        (
            [&[0, 1][..], &record(33, &[0, 1, 0, 2, 0x1f, 0x90, 0xc0, 12])].concat(),
            "SRV",
            "a.b",
            "a.b. 5 SRV 1 2 8080 a.b.\n",
        ),
        ([&[0, 1][..], &record(12, &[1, b'p', 0])].concat(), "PTR", "10.0.0.1", "1.0.0.10.in-addr.arpa. 5 PTR p.\n"),
        ([&[0, 1][..], &record(16, &[2, b'h', b'i'])].concat(), "txt", "a.b", "a.b. 5 TXT \"hi\"\n"),
    ];
    for (answer, kind, name, expected) in table {
        let output = ask(answer, kind, name);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
    }
    let none = ask(vec![3, 0], "A", "a.b");
    assert!(!none.status.success() && String::from_utf8_lossy(&none.stderr).contains("NXDOMAIN"), "{none:?}");
    // A name that points to itself must not be followed for ever.
    let circle = ask([&[0, 1][..], &record(5, &[0xc0, 24])].concat(), "CNAME", "a.b");
    assert!(circle.status.code().is_some());
}
