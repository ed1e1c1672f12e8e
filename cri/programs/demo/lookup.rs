//! Names to addresses by /etc/hosts and /etc/resolv.conf, and raw queries.
//!
//! Static glibc cannot load its name service modules, so this does it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Outcome;
use crate::args::Args;
use crate::dns::{self, Answer};

const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl Resolver {
    fn system() -> Self {
        let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let mut resolver = Self { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let ip = words.next().and_then(|ip| ip.parse::<IpAddr>().ok());
                    resolver.servers.extend(ip.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.find_map(|w| w.strip_prefix("ndots:")?.parse().ok());
                    resolver.ndots = ndots.unwrap_or(resolver.ndots);
                }
                _ => {}
            }
        }
        resolver
    }

    /// The names to try in turn, as resolv.conf(5) has it.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut names: Vec<_> = self.search.iter().map(|s| format!("{name}.{}.", s.trim_end_matches('.'))).collect();
        let absolute = format!("{name}.");
        if name.matches('.').count() >= self.ndots {
            names.insert(0, absolute);
        } else {
            names.push(absolute);
        }
        names
    }

    fn query(&self, name: &str, kind: u16) -> Result<Answer, String> {
        let mut last = "no name server in /etc/resolv.conf".to_owned();
        for _ in 0..ATTEMPTS {
            for server in &self.servers {
                match ask(*server, name, kind) {
                    Ok(answer) => return Ok(answer),
                    Err(e) => last = format!("{server}: {e}"),
                }
            }
        }
        Err(last)
    }
}

fn ask(server: SocketAddr, name: &str, kind: u16) -> Result<Answer, String> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let id = (nanos >> 4 & 0xffff) as u16;
    let question = dns::question(id, name, kind)?;
    let answer = ask_udp(server, &question).map_err(|e| e.to_string())?;
    let answer = dns::parse(&answer, id).ok_or("the answer is garbage")?;
    if !answer.truncated {
        return Ok(answer);
    }
    let answer = ask_tcp(server, &question).map_err(|e| e.to_string())?;
    dns::parse(&answer, id).ok_or_else(|| "the answer is garbage".to_owned())
}

fn ask_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut answer = vec![0; 4096];
    let n = socket.recv(&mut answer)?;
    answer.truncate(n);
    Ok(answer)
}

fn ask_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn in_hosts_file(name: &str) -> Vec<IpAddr> {
    let text = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let ip = words.next().and_then(|ip| ip.parse().ok());
        if let Some(ip) = ip.filter(|_| words.any(|w| w.eq_ignore_ascii_case(name))) {
            found.push(ip);
        }
    }
    found
}

/// Addresses of a name, IPv4 first; an error when there are none.
pub fn addresses(name: &str) -> Result<Vec<IpAddr>, String> {
    let known = in_hosts_file(name);
    if !known.is_empty() {
        return Ok(known);
    }
    let resolver = Resolver::system();
    for candidate in resolver.candidates(name) {
        let mut found = Vec::new();
        for kind in [1, 28] {
            let answer = resolver.query(&candidate, kind)?;
            found.extend(answer.records.iter().filter(|r| r.kind == kind).filter_map(|r| r.data.parse::<IpAddr>().ok()));
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(format!("{name}: no such name"))
}

pub fn resolve(mut args: Args) -> Outcome {
    let name = args.positional("NAME")?;
    args.done()?;
    for ip in addresses(&name)? {
        println!("{ip}");
    }
    Ok(0)
}

/// Prints records as a zone file has them; exits 1 when there are none.
pub fn dns(mut args: Args) -> Outcome {
    let kind = args.positional("TYPE")?.to_ascii_uppercase();
    let mut name = args.positional("NAME")?;
    let server = args.positional("@SERVER").ok();
    args.done()?;
    let (_, number) = dns::TYPES.iter().find(|(n, _)| *n == kind).ok_or_else(|| format!("type {kind} is unknown"))?;
    if let Some(ip) = name.parse().ok().filter(|_| kind == "PTR") {
        name = dns::reverse(ip);
    }
    let mut resolver = Resolver::system();
    if let Some(server) = server {
        let server = server.trim_start_matches('@');
        let parsed = server.parse().or_else(|_| server.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
        resolver.servers = vec![parsed.map_err(|_| format!("{server:?} is not an address"))?];
    }
    let answer = resolver.query(&name, *number)?;
    if answer.code != 0 {
        let code = match answer.code {
            2 => "SERVFAIL".to_owned(),
            3 => "NXDOMAIN".to_owned(),
            5 => "REFUSED".to_owned(),
            other => format!("error {other}"),
        };
        return Err(format!("{name}: {code}"));
    }
    for record in &answer.records {
        let kind = dns::TYPES.iter().find(|(_, n)| *n == record.kind).map_or("?", |(n, _)| n);
        println!("{} {} {kind} {}", record.name, record.ttl, record.data);
    }
    Ok(u8::from(answer.records.is_empty()))
}
