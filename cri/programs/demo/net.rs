//! Sockets: listeners on every family, addresses by name, one-shot senders.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::args::{self, Args};
use crate::{Outcome, lookup};

/// Listens on both families, or on IPv4 alone where the kernel lacks IPv6.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// As [`listen`], for datagrams.
pub fn bind_udp(port: u16) -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// Addresses of a literal or a name.
pub fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    match literal.parse() {
        Ok(ip) => Ok(vec![ip]),
        Err(_) => lookup::addresses(host),
    }
}

/// Connects to the first address that answers.
pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let mut last = format!("{host} has no address");
    for ip in addresses(host)? {
        match TcpStream::connect_timeout(&SocketAddr::new(ip, port), timeout) {
            Ok(stream) => {
                let set = stream.set_read_timeout(Some(timeout)).and(stream.set_write_timeout(Some(timeout)));
                set.map_err(|e| e.to_string())?;
                return Ok(stream);
            }
            Err(e) => last = format!("{ip}:{port}: {e}"),
        }
    }
    Err(last)
}

struct Target {
    host: String,
    port: u16,
    text: String,
    timeout: Duration,
}

fn target(mut args: Args) -> Result<Target, String> {
    let timeout = args.option("--timeout")?.map_or(Ok(Duration::from_secs(2)), |t| args::seconds(&t))?;
    let host = args.positional("HOST")?;
    let port = args.positional("PORT")?;
    let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
    Ok(Target { host, port, text: args.rest().join(" "), timeout })
}

/// Sends a datagram and prints the answer.
pub fn udp_send(args: Args) -> Outcome {
    let t = target(args)?;
    let ip = addresses(&t.host)?.into_iter().next().ok_or("no address")?;
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let exchange = || -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(t.timeout))?;
        // Connected, so that an ICMP refusal shows as an error.
        socket.connect((ip, t.port))?;
        socket.send(t.text.as_bytes())?;
        let mut answer = vec![0; 65536];
        let n = socket.recv(&mut answer)?;
        answer.truncate(n);
        Ok(answer)
    };
    let answer = exchange().map_err(|e| format!("{ip}:{}: {e}", t.port))?;
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(0)
}

/// Sends text over a connection and prints all that comes back.
pub fn tcp_send(args: Args) -> Outcome {
    let t = target(args)?;
    let mut stream = connect(&t.host, t.port, t.timeout)?;
    let mut exchange = || -> io::Result<String> {
        stream.write_all(t.text.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    println!("{}", exchange().map_err(|e| e.to_string())?);
    Ok(0)
}
