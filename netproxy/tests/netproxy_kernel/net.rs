//! A node, pods and an outside client as network namespaces of threads. No link leads out, and
//! everything is gone when the threads end.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use harness::token::{self, Token};
use harness::{program, time};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace: a thread that lives in it and runs what it is given.
pub struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub tid: i32,
}

impl Namespace {
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (tid_out, tid_in) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root, to make network namespaces");
            tid_out.send(gettid().as_raw()).unwrap();
            for job in queue {
                job();
            }
        });
        let tid = tid_in.recv().expect("these tests need root, to make network namespaces");
        let namespace = Self { jobs: Some(jobs), thread: Some(thread), tid };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `work` in the namespace and waits for its result.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (out, result) = mpsc::channel();
        let job: Job = Box::new(move || {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let _ = out.send(caught);
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        match result.recv().unwrap() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Starts a thread in the namespace that runs `work`.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.run(move || std::thread::spawn(work))
    }

    pub fn ip(&self, args: &str) {
        self.command("ip", args);
    }

    pub fn command(&self, program: &str, args: &str) -> String {
        let (name, args) = (program.to_owned(), args.to_owned());
        self.run(move || {
            let ended = program::run(Command::new(&name).args(args.split_whitespace()), None).unwrap();
            ended.success(&format!("{name} {args}")).unwrap()
        })
    }

    pub fn sysctl(&self, key: &'static str, value: &'static str) {
        self.run(move || std::fs::write(format!("/proc/sys/net/{key}"), value).unwrap());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
pub const TARGET_PORT: u16 = 8080;

pub fn pod_ip(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, 0, 10 + index)
}

/// What a server says about a connection: who it is and whom it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub pod: u8,
    pub seen: Ipv4Addr,
}

pub struct Net {
    pub node: Namespace,
    pub client: Namespace,
    pub pods: Vec<Namespace>,
    _token: Rc<Token>,
}

/// How pods hang on their node.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Each behind a veth pair of its own.
    Routed,
    /// On one bridge, whose frames pass the packet filter, as the CNI plugin makes it.
    Bridged,
}

impl Net {
    /// A node with pods that serve TCP and UDP, and a client outside.
    pub fn new(count: u8, shape: Shape) -> Self {
        let token = token::take().unwrap();
        let node = Namespace::new();
        node.sysctl("ipv4/ip_forward", "1");
        // Redirects would use up the rate at which the kernel sends other ICMP errors to a host.
        node.sysctl("ipv4/conf/all/send_redirects", "0");
        node.sysctl("ipv4/conf/default/send_redirects", "0");
        let client = Namespace::new();
        node.ip(&format!("link add out type veth peer name eth0 netns {}", client.tid));
        node.ip(&format!("addr add {NODE_IP}/24 dev out"));
        node.ip("link set out up");
        // Locally made connections need some route before the output hook can redirect them.
        node.ip(&format!("route add 10.43.0.0/16 via {CLIENT_IP}"));
        client.ip(&format!("addr add {CLIENT_IP}/24 dev eth0"));
        client.ip("link set eth0 up");
        client.ip(&format!("route add default via {NODE_IP}"));
        if matches!(shape, Shape::Bridged) {
            // The bridge's own setting is enough.
            node.sysctl("bridge/bridge-nf-call-iptables", "0");
            node.ip("link add pods type bridge nf_call_iptables 1");
            node.ip(&format!("addr add {GATEWAY}/24 dev pods"));
            node.ip("link set pods up");
        }
        let pods = (0..count).map(|index| Self::pod(&node, index, shape)).collect();
        let net = Self { node, client, pods, _token: token };
        net.wait_until_connected(count);
        net
    }

    /// New links drop packets for a moment; tests that expect a quick answer must not meet that.
    fn wait_until_connected(&self, count: u8) {
        for index in 0..count {
            for from in [&self.node, &self.client] {
                from.run(move || ask(SocketAddrV4::new(pod_ip(index), TARGET_PORT)).expect("a pod answers"));
            }
        }
    }

    fn pod(node: &Namespace, index: u8, shape: Shape) -> Namespace {
        let pod = Namespace::new();
        let (link, ip) = (format!("pod{index}"), pod_ip(index));
        node.ip(&format!("link add {link} type veth peer name eth0 netns {}", pod.tid));
        node.ip(&format!("link set {link} up"));
        pod.ip("link set eth0 up");
        match shape {
            Shape::Routed => {
                node.ip(&format!("addr add {GATEWAY}/32 dev {link}"));
                node.ip(&format!("route add {ip}/32 dev {link}"));
                pod.ip(&format!("addr add {ip}/32 dev eth0"));
                pod.ip(&format!("route add {GATEWAY}/32 dev eth0"));
            }
            Shape::Bridged => {
                node.ip(&format!("link set {link} master pods"));
                node.ip(&format!("link set {link} type bridge_slave hairpin on"));
                pod.ip(&format!("addr add {ip}/24 dev eth0"));
            }
        }
        pod.ip(&format!("route add default via {GATEWAY}"));
        pod.run(move || serve(index));
        pod
    }
}

/// Starts servers that live as long as the process: their sockets keep only their own namespace.
pub fn serve(pod: u8) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET_PORT)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, pod);
        }
    });
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, TARGET_PORT)).unwrap();
    std::thread::spawn(move || {
        let mut buf = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&[pod], from);
        }
    });
}

fn answer(mut stream: TcpStream, pod: u8) -> std::io::Result<()> {
    let IpAddr::V4(seen) = stream.peer_addr()?.ip() else { return Ok(()) };
    let [a, b, c, d] = seen.octets();
    stream.write_all(&[pod, a, b, c, d])?;
    // Who ends a connection first remembers it for a minute, and answers no new one from the same address and port,
    // which masquerading may give to another client.
    stream.set_read_timeout(Some(time::limit()))?;
    stream.read(&mut [0; 1]).map(drop)
}

/// Where packets are dropped nothing comes, however long one waits: this long is enough to see that it is
/// no refusal. A slow machine cannot make an answer of silence.
const SILENCE: Duration = Duration::from_millis(400);

/// One connection from the calling thread's namespace.
pub fn ask(addr: SocketAddrV4) -> std::io::Result<Answer> {
    ask_within(addr, time::limit())
}

/// Connects where nobody is to answer, and nobody to refuse.
pub fn connect_to_nobody(addr: SocketAddrV4) -> std::io::Result<()> {
    TcpStream::connect_timeout(&SocketAddr::V4(addr), SILENCE).map(drop)
}

/// [`ask`] where nobody is to answer, and nobody to refuse.
pub fn ask_nobody(addr: SocketAddrV4) -> std::io::Result<Answer> {
    ask_within(addr, SILENCE)
}

pub fn ask_within(addr: SocketAddrV4, patience: Duration) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(addr), patience)?;
    stream.set_read_timeout(Some(time::limit()))?;
    let mut buf = [0; 5];
    stream.read_exact(&mut buf)?;
    let [pod, a, b, c, d] = buf;
    Ok(Answer { pod, seen: Ipv4Addr::new(a, b, c, d) })
}

/// `count` connections; how many each pod got.
pub fn tally(namespace: &Namespace, addr: SocketAddrV4, count: u32) -> BTreeMap<u8, u32> {
    namespace.run(move || {
        let mut tally = BTreeMap::new();
        for _ in 0..count {
            *tally.entry(ask(addr).unwrap().pod).or_default() += 1;
        }
        tally
    })
}

/// Sends datagrams on `socket` until one is answered; the answering pod.
pub fn ask_udp(socket: &UdpSocket, addr: SocketAddrV4) -> std::io::Result<u8> {
    socket.send_to(b"?", addr)?;
    let mut buf = [0; 1];
    socket.recv(&mut buf)?;
    Ok(buf[0])
}
