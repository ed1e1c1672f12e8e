//! How long Services take to reach the kernel: everything at once, and single changes, beside the
//! same transactions through `nft -f`. Each measurement has a network namespace of its own.
//!
//! `cargo bench -p netproxy --bench service_sync [-- SERVICES…]`; needs root and `nft`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use netproxy::backend::NftBackend;
use netproxy::backend::cli::CliBackend;
use netproxy::backend::netlink::NetlinkBackend;
use netproxy::nft::diff::diff;
use netproxy::nft::transaction::Transaction;
use netproxy::ruleset::{LocalTraffic, NodeView, PortInput, Ruleset};
use netproxy::services::NodePortAddresses;
use netproxy::snapshot::{Change, Endpoint, Protocol, ServiceName, ServicePort, Slice, State};
use netproxy::topology::NodeTopology;
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};

const ENDPOINTS: u32 = 3;
const CHANGES: u32 = 21;
const TOPOLOGY: NodeTopology<'static> = NodeTopology { node_name: "node", zone: None };

struct World {
    state: State,
    ruleset: Ruleset,
}

fn name(index: u32) -> ServiceName {
    ServiceName { namespace: "bench".into(), name: format!("service-{index}").into() }
}

fn service(index: u32) -> ServicePort {
    ServicePort {
        port_name: "http".into(),
        ..ServicePort::new(Protocol::Tcp, Ipv4Addr::from_bits(0x0a2b_0000 + 256 + index), 80)
    }
}

fn slice(index: u32, endpoints: u32, shift: u32) -> Slice {
    let endpoint = |n: u32| Endpoint {
        local: false,
        ..Endpoint::new(Ipv4Addr::from_bits(0x0a60_0000 + index * 8 + n + shift), 0)
    };
    Slice { ports: vec![("http".into(), Protocol::Tcp, 8080)], endpoints: (0..endpoints).map(endpoint).collect() }
}

impl World {
    fn new(services: u32) -> Self {
        let node = NodeView {
            node_ips: vec![Ipv4Addr::new(192, 0, 2, 1)],
            local: LocalTraffic::From(vec!["10.96.0.0/11".parse().unwrap()]),
            service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
            node_port_addresses: NodePortAddresses::AllLocal,
            masquerade_all: false,
            masquerade_outbound: Vec::new(),
            masquerade_mark: 0x4000,
            dns_address: None,
        };
        let mut state = State::new();
        for index in 0..services {
            state.apply(Change::Service(name(index), vec![service(index)]));
            state.apply(Change::Slice(name(index), "slice".into(), slice(index, ENDPOINTS, 0)));
        }
        Self { state, ruleset: Ruleset::new(node) }
    }

    fn set_slice(&mut self, index: u32, content: Slice) -> Transaction {
        self.state.apply(Change::Slice(name(index), "slice".into(), content));
        self.update()
    }

    fn update(&mut self) -> Transaction {
        let changed = self.state.take_changed();
        let state = &self.state;
        self.ruleset.update(changed, &|name| PortInput::of(state, name, TOPOLOGY))
    }

    fn absorb(&mut self) {
        let changed = self.state.take_changed();
        let state = &self.state;
        self.ruleset.absorb(changed, &|name| PortInput::of(state, name, TOPOLOGY));
    }
}

/// Runs `work` on a thread in a network namespace of its own.
fn isolated<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("the benchmark needs root");
        work()
    });
    thread.join().expect("the benchmark itself failed")
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// The same through the `nft` program: the whole table, then one element of one set replaced.
fn measure_nft(services: u32) -> (f64, f64) {
    let mut backend = CliBackend::default();
    let mut world = World::new(services);
    world.absorb();
    let began = Instant::now();
    backend.run(&diff(None, &world.ruleset.table()), None).unwrap();
    let full = began.elapsed().as_secs_f64() * 1000.0;
    let key = |last| format!("ip copepod no-endpoint-services {{ 10.43.255.{last} . tcp . 80 }}");
    nft(&format!("add element {}", key(1)));
    let began = Instant::now();
    nft(&format!("add element {}; delete element {}", key(2), key(1)));
    (full, began.elapsed().as_secs_f64() * 1000.0)
}

fn nft(script: &str) {
    assert!(std::process::Command::new("nft").arg(script).status().unwrap().success(), "{script}");
}

/// Wall time and this thread's processor time, which includes what the kernel does for it: on a
/// busy machine only the latter says something.
#[derive(Clone, Copy)]
struct Stopwatch(Instant, Duration);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now(), Self::processor())
    }

    fn processor() -> Duration {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
    }

    fn elapsed(self) -> (Duration, Duration) {
        (self.0.elapsed(), Self::processor() - self.1)
    }
}

fn milliseconds((wall, processor): (Duration, Duration)) -> (f64, f64) {
    (wall.as_secs_f64() * 1000.0, processor.as_secs_f64() * 1000.0)
}

/// Milliseconds, wall and processor: full sync (compile, diff, write), then the median of each kind
/// of change.
fn measure(services: u32, backend: &mut dyn NftBackend, changes: u32) -> Vec<(&'static str, (f64, f64))> {
    let mut world = World::new(services);
    let began = Stopwatch::start();
    world.absorb();
    let listing = backend.list().unwrap();
    let tx = diff(listing.table.as_ref(), &world.ruleset.table());
    let compiled = began.elapsed();
    backend.run(&tx, listing.generation).unwrap();
    let full = began.elapsed();
    let mut results = vec![("full sync", milliseconds(full)), ("  of it compile", milliseconds(compiled))];
    type Make = fn(u32) -> Slice;
    let kinds: [(&str, Make); 4] = [
        ("endpoint replaced", |i| slice(i, ENDPOINTS, 4)),
        ("endpoint added", |i| slice(i, ENDPOINTS + 1, 4)),
        ("endpoint removed", |i| slice(i, ENDPOINTS, 4)),
        ("all endpoints gone", |i| slice(i, 0, 0)),
    ];
    for (kind, make) in kinds {
        let times = (0..changes).map(|n| {
            let index = (n * services / changes + services / 2) % services;
            let began = Stopwatch::start();
            let tx = world.set_slice(index, make(index));
            backend.run(&tx, None).unwrap();
            let took = began.elapsed();
            backend.run(&Transaction::delete_chains(&tx.stale_chains), None).unwrap();
            took
        });
        let (wall, processor): (Vec<_>, Vec<_>) = times.unzip();
        results.push((kind, (median(wall), median(processor))));
    }
    results
}

fn main() {
    let sizes: Vec<u32> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1000, 10_000, 30_000] } else { sizes };
    println!(
        "{:>10}  {:<20} {:>12} {:>12} {:>12} {:>8}",
        "services", "", "netlink ms", "its cpu ms", "nft -f ms", "ratio"
    );
    for services in sizes {
        let netlink = isolated(move || measure(services, &mut NetlinkBackend::new().unwrap(), CHANGES));
        let (full, change) = isolated(move || measure_nft(services));
        for (row, (kind, (ours, processor))) in netlink.iter().enumerate() {
            let theirs = if row == 0 { full } else { change };
            if row == 1 {
                println!("{services:>10}  {kind:<20} {ours:>12.2} {processor:>12.2}");
            } else {
                let ratio = ours / theirs;
                println!("{services:>10}  {kind:<20} {ours:>12.2} {processor:>12.2} {theirs:>12.2} {ratio:>7.3}×");
            }
        }
    }
}
