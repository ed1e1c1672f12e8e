//! Taking connections in: errors of one connection are not the listener's, and nobody gets more
//! than his share of the places there are.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// How long to leave alone a connection that the machine has no room for.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(200);

/// The next connection.
///
/// # Errors
/// When the listener itself is of no more use.
pub async fn next(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept().await {
            Ok(accepted) => return Ok(accepted),
            Err(error) if error.raw_os_error().is_some_and(is_of_one_connection) => {}
            Err(error) if error.raw_os_error().is_some_and(is_want_of_room) => {
                tracing::debug!(%error, "no room for a connection");
                sleep(NO_ROOM_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Errors that only the connection had which was to be accepted (accept(2)).
fn is_of_one_connection(errno: i32) -> bool {
    let of_one = [
        libc::ECONNABORTED,
        libc::ECONNRESET,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EINTR,
    ];
    of_one.contains(&errno)
}

fn is_want_of_room(errno: i32) -> bool {
    [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].contains(&errno)
}

/// The connections that are open, by client.
#[derive(Debug)]
pub struct Connections {
    limit: usize,
    limit_per_client: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// The right to one open connection, given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    connections: Arc<Connections>,
    client: IpAddr,
}

impl Connections {
    /// Room for `limit` connections, and for so many of one client.
    #[must_use]
    pub fn new(limit: usize, limit_per_client: usize) -> Arc<Self> {
        Arc::new(Self { limit, limit_per_client, open: Mutex::default() })
    }

    /// A permit for one more connection of `client`, if there is one.
    #[must_use]
    pub fn acquire(self: &Arc<Self>, client: IpAddr) -> Option<ConnectionPermit> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.get(&client).copied().unwrap_or(0);
        if all >= self.limit || own >= self.limit_per_client {
            return None;
        }
        open.insert(client, own + 1);
        Some(ConnectionPermit { connections: Arc::clone(self), client })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        let left = open.get(&self.client).copied().unwrap_or(1) - 1;
        if left == 0 {
            open.remove(&self.client);
        } else {
            open.insert(self.client, left);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn places_are_counted_for_each_client_and_for_all() {
        let connections = Connections::new(5, 3);
        let client = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
        let mut held: Vec<_> = (0..5).map(|n| connections.acquire(client(n)).unwrap()).collect();
        assert!(connections.acquire(client(5)).is_none(), "all are taken");
        held.clear();
        assert!(connections.open.lock().unwrap().is_empty(), "nothing is remembered of clients that went");
        held.extend((0..3).map(|_| connections.acquire(client(1)).unwrap()));
        assert!(connections.acquire(client(1)).is_none());
        assert!(connections.acquire(client(2)).is_some());
    }
}
