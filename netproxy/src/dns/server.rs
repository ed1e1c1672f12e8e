//! The sockets of cluster DNS. Names of the cluster are answered where the packet is read; others
//! on a task each, of which there are only so many, since whoever asks costs us memory until
//! somebody else answers. TCP connections are bounded, too, and for one client further.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::forward::Upstream;
use super::message::{self, Packet, Question, Reply, Transport};
use super::metrics::Metrics;
use super::resolve::{LocalAnswer, NameResolver};
use crate::accept::{self, Connections};

/// Names that may be asked of others at the same time, as upstream's default configuration has it.
const FORWARDS: usize = 1000;
/// TCP connections, all together and of one client.
const CONNECTIONS: usize = 512;
const CONNECTIONS_PER_CLIENT: usize = 64;
/// How long a client may take for one message, and to take one.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Longer datagrams ask nothing sensible.
const DATAGRAM: usize = 4096;

/// Answers on sockets that it is given.
#[derive(Debug)]
pub struct Server<U> {
    names: NameResolver<U>,
    /// The cluster's domain, for metrics.
    domain: String,
    metrics: Metrics,
    forwards: Arc<Semaphore>,
    connections: Arc<Connections>,
    tasks: TaskTracker,
    token: CancellationToken,
}

/// A question and how to tell its answer.
struct Pending {
    question: Question,
    query: Query,
    transport: Transport,
    began: Instant,
}

/// What became of a question at once.
enum Progress {
    Nothing,
    Answer(Vec<u8>),
    Forward(Box<Pending>, Vec<Record>, Name, OwnedSemaphorePermit),
}

impl<U: Upstream> Server<U> {
    /// A server without sockets. Whatever it does ends with `token`.
    pub fn new(names: NameResolver<U>, domain: String, metrics: Metrics, token: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            names,
            domain,
            metrics,
            forwards: Arc::new(Semaphore::new(FORWARDS)),
            connections: Connections::new(CONNECTIONS, CONNECTIONS_PER_CLIENT),
            tasks: TaskTracker::new(),
            token,
        })
    }

    /// Answers datagrams until the socket fails.
    pub async fn serve_udp(self: &Arc<Self>, socket: UdpSocket) -> io::Error {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // Somebody did not want an earlier answer.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return error,
            };
            match self.take(&buffer[..length], Transport::Udp) {
                Progress::Nothing => {}
                Progress::Answer(answer) => send(&socket, &answer, client).await,
                Progress::Forward(pending, aliases, name, permit) => {
                    let (server, socket) = (Arc::clone(self), Arc::clone(&socket));
                    self.spawn(async move {
                        let reply = server.names.outside(&pending.query, aliases, &name).await;
                        drop(permit);
                        if let Some(answer) = server.finish(&pending, reply) {
                            send(&socket, &answer, client).await;
                        }
                    });
                }
            }
        }
    }

    /// Answers connections until the socket fails for good.
    pub async fn serve_tcp(self: &Arc<Self>, listener: TcpListener) -> io::Error {
        loop {
            let (stream, client) = match accept::next(&listener).await {
                Ok(accepted) => accepted,
                Err(error) => return error,
            };
            let Some(permit) = self.connections.acquire(client.ip()) else {
                self.metrics.rejected_connections.inc();
                continue;
            };
            let server = Arc::clone(self);
            self.spawn(async move {
                if let Err(error) = server.converse(stream).await {
                    tracing::debug!(%error, "a DNS connection ended early");
                }
                drop(permit);
            });
        }
    }

    /// Waits for what is under way, after its token is cancelled.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.tasks.spawn(async move {
            let _ = token.run_until_cancelled(work).await;
        });
    }

    /// One question after the other, so that no client has more than one under way a connection.
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut message = Vec::new();
        while timeout(TCP_IDLE, read_frame(&mut stream, &mut message)).await?? {
            let answer = match self.take(&message, Transport::Tcp) {
                Progress::Nothing => return Ok(()),
                Progress::Answer(answer) => Some(answer),
                Progress::Forward(pending, aliases, name, permit) => {
                    let reply = self.names.outside(&pending.query, aliases, &name).await;
                    drop(permit);
                    self.finish(&pending, reply)
                }
            };
            let Some(answer) = answer else { return Ok(()) };
            timeout(TCP_IDLE, write_frame(&mut stream, &answer)).await??;
        }
        Ok(())
    }

    /// Answers a packet, or says what has to be asked of others first.
    fn take(&self, bytes: &[u8], transport: Transport) -> Progress {
        let began = Instant::now();
        let (question, query) = match message::read(bytes) {
            Packet::Ignored => return Progress::Nothing,
            Packet::Refused(question, code) => {
                self.metrics.answered(transport, (".", RecordType::ZERO), code, began.elapsed());
                let answer = message::write(&question, Reply::code(code), self.names.recursion_available(), transport);
                return answer.map_or(Progress::Nothing, Progress::Answer);
            }
            Packet::Asked(question, query) => (question, query),
        };
        let pending = Pending { question, query, transport, began };
        let reply = match self.names.local(&pending.query) {
            LocalAnswer::Known(reply) => reply,
            LocalAnswer::Outside { aliases, name } => match Arc::clone(&self.forwards).try_acquire_owned() {
                Ok(permit) => return Progress::Forward(Box::new(pending), aliases, name, permit),
                Err(_) => {
                    self.metrics.rejected_forwards.inc();
                    Reply::code(ResponseCode::Refused)
                }
            },
        };
        self.finish(&pending, reply).map_or(Progress::Nothing, Progress::Answer)
    }

    /// Counts an answer and encodes it.
    fn finish(&self, pending: &Pending, reply: Reply) -> Option<Vec<u8>> {
        let Pending { question, query, transport, began } = pending;
        let zone = if self.names.covers(query.name()) { &self.domain } else { "." };
        self.metrics.answered(*transport, (zone, query.query_type()), reply.code, began.elapsed());
        tracing::debug!(name = %query.name(), kind = %query.query_type(), code = %reply.code, "a name was asked");
        message::write(question, reply, self.names.recursion_available(), *transport)
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, %error, "a DNS answer could not be sent");
    }
}

/// Reads one message with its length before it; false at the end of the stream.
async fn read_frame(stream: &mut TcpStream, message: &mut Vec<u8>) -> io::Result<bool> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    message.clear();
    // Room is made for what came, not for what was announced.
    let read = stream.take(u64::from(length)).read_to_end(message).await?;
    Ok(read == usize::from(length))
}

async fn write_frame(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(message.len() + 2);
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    stream.write_all(&frame).await
}

#[cfg(test)]
mod tests;
