//! The hot path: transactions as raw nfnetlink batches on one socket kept open.

use std::io;
use std::os::fd::AsFd;

use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};

use super::{Generation, Listing, NftBackend, NftError};
use crate::links::{Owner, is_mark};
use crate::nft::decode;
use crate::nft::encode::{Batch, encode, name_fits};
use crate::nft::object::{Observed, ObservedSet};
use crate::nft::render::transaction_text;
use crate::nft::transaction::{Op, Transaction};
use crate::nft::uapi::*;
use crate::nft::wire::{Message, Writer, messages};
use crate::nft::{TABLE, TableName};

const NETLINK_NETFILTER: isize = 12;
/// Room for acknowledgements and errors; the kernel drops what does not fit.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Bytes read at once: the kernel's dumps come in pieces of at most 32 KiB.
const READ: usize = 64 * 1024;
/// How often a listing starts over because the ruleset moved under it.
const LIST_ATTEMPTS: u32 = 20;

/// One table of nf_tables over a netlink socket in the network namespace of the thread that made it.
pub struct NetlinkBackend {
    table: TableName,
    /// Whose the table is, once it is made.
    owner: Option<Owner>,
    socket: Socket,
    seq: u32,
    send_buffer: usize,
}

impl std::fmt::Debug for NetlinkBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetlinkBackend").field("table", &self.table).field("seq", &self.seq).finish_non_exhaustive()
    }
}

/// Opens a bound netfilter netlink socket in the calling thread's network namespace.
///
/// # Errors
/// [`NftError::Socket`].
pub(crate) fn netfilter_socket() -> Result<Socket, NftError> {
    let mut socket = Socket::new(NETLINK_NETFILTER)
        .map_err(|source| NftError::Socket { doing: "open a netfilter socket", source })?;
    socket.bind_auto().map_err(|source| NftError::Socket { doing: "bind a netfilter socket", source })?;
    // Replies then hold the header of the failed request, not all of it. Old kernels may not know it.
    let _ = socket.set_cap_ack(true);
    Ok(socket)
}

/// Grows a buffer past the sysctl limit where allowed (CAP_NET_ADMIN), else up to it.
fn set_buffer(socket: &Socket, size: usize, send: bool) {
    let fd = socket.as_fd();
    let forced =
        if send { setsockopt(&fd, sockopt::SndBufForce, &size) } else { setsockopt(&fd, sockopt::RcvBufForce, &size) };
    if forced.is_err() {
        // Too small a buffer shows as an error of the send itself.
        let _ = if send { setsockopt(&fd, sockopt::SndBuf, &size) } else { setsockopt(&fd, sockopt::RcvBuf, &size) };
    }
}

/// Receives one datagram; `None` when nothing is waiting and `wait` is false.
///
/// # Errors
/// [`NftError::Socket`], with ENOBUFS when the kernel dropped replies.
pub(crate) fn receive(socket: &Socket, wait: bool) -> Result<Option<Vec<u8>>, NftError> {
    let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
    loop {
        let mut buf = Vec::with_capacity(READ);
        match socket.recv(&mut buf, flags) {
            Ok(_) => return Ok(Some(buf)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(source) => return Err(NftError::Socket { doing: "receive", source }),
        }
    }
}

/// Sends one buffer to the kernel.
///
/// # Errors
/// [`NftError::Socket`].
pub(crate) fn send(socket: &Socket, bytes: &[u8]) -> Result<(), NftError> {
    loop {
        match socket.send_to(bytes, &SocketAddr::new(0, 0), 0) {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(NftError::Socket { doing: "send", source }),
        }
    }
}

/// Sends a dump request and hands every message of the answer to `each`. Returns false when the
/// kernel says the dump is inconsistent.
///
/// # Errors
/// [`NftError`] from the socket, the kernel or `each`.
pub(crate) fn dump(
    socket: &Socket,
    request: &[u8],
    seq: u32,
    mut each: impl FnMut(&Message<'_>) -> Result<(), NftError>,
) -> Result<bool, NftError> {
    send(socket, request)?;
    let mut consistent = true;
    loop {
        let Some(datagram) = receive(socket, true)? else { continue };
        for message in messages(&datagram) {
            let message = message?;
            if message.seq != seq {
                continue;
            }
            consistent &= message.flags & NLM_F_DUMP_INTR == 0;
            match message.kind {
                NLMSG_DONE => return Ok(consistent),
                NLMSG_ERROR => {
                    let (code, _) = message.error_code()?;
                    if code == 0 {
                        return Ok(consistent);
                    }
                    return Err(NftError::Refused { op: "list".to_owned(), source: os_error(code) });
                }
                NLMSG_NOOP | NLMSG_OVERRUN => {}
                _ => each(&message)?,
            }
        }
    }
}

fn os_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.wrapping_neg())
}

impl NetlinkBackend {
    /// Opens a socket in the calling thread's network namespace, for the table of Services.
    ///
    /// # Errors
    /// [`NftError::Socket`].
    pub fn new() -> Result<Self, NftError> {
        Self::for_table(TABLE)
    }

    /// The same for another table of ours.
    ///
    /// # Errors
    /// [`NftError::Socket`].
    pub fn for_table(table: TableName) -> Result<Self, NftError> {
        let socket = netfilter_socket()?;
        set_buffer(&socket, RECEIVE_BUFFER, false);
        Ok(Self { table, owner: None, socket, seq: 1, send_buffer: 0 })
    }

    /// The same for an instance: its mark is the comment of the table that is made here. A table with the mark of
    /// another one reads as foreign; one without a mark, of a version before or a kernel before 5.10, does not.
    #[must_use]
    pub fn of(self, owner: Option<&Owner>) -> Self {
        Self { owner: owner.cloned(), ..self }
    }

    /// Removes the table if it bears the owner's mark or, as before there were marks, none. No table, or one of another
    /// instance, is fine.
    ///
    /// # Errors
    /// [`NftError`] when the kernel refuses.
    pub fn remove(&mut self) -> Result<(), NftError> {
        while receive(&self.socket, false).is_ok_and(|d| d.is_some()) {}
        let Some(comment) = self.comment()? else { return Ok(()) };
        let removes = match comment.filter(|comment| is_mark(comment)) {
            Some(mark) => self.owner.as_ref().is_some_and(|owner| owner.has_marked(&mark)),
            None => true,
        };
        if removes { self.run(&Transaction::delete_table(), None) } else { Ok(()) }
    }

    fn exchange(&mut self, batch: &Batch, committed: bool) -> Result<Vec<(i32, u32)>, NftError> {
        // Leftovers of an exchange that failed half-way must not be taken for answers to this one.
        while receive(&self.socket, false).is_ok_and(|d| d.is_some()) {}
        let need = batch.bytes.len() + batch.bytes.len() / 4 + 64 * 1024;
        if need > self.send_buffer {
            set_buffer(&self.socket, need, true);
            self.send_buffer = need;
        }
        send(&self.socket, &batch.bytes)?;
        // The kernel works off a batch inside the send: all answers are waiting now.
        let mut answers = Vec::new();
        while let Some(datagram) = receive(&self.socket, false)? {
            for message in messages(&datagram) {
                let message = message?;
                if message.kind == NLMSG_ERROR {
                    answers.push(message.error_code()?);
                }
            }
        }
        if answers.is_empty() && committed { Err(NftError::Unanswered) } else { Ok(answers) }
    }

    fn transact(&mut self, tx: &Transaction, since: Option<Generation>, commit: bool) -> Result<(), NftError> {
        if tx.ops.is_empty() {
            return Ok(());
        }
        check_names(tx)?;
        let mark = self.owner.as_ref().map(Owner::mark);
        let batch = encode((self.table, mark.as_deref()), tx, self.seq, since.map(|g| g.0), commit);
        let messages = u32::try_from(batch.ops.len()).unwrap_or(u32::MAX);
        self.seq = self.seq.wrapping_add(messages).wrapping_add(2);
        let answers = self.exchange(&batch, commit)?;
        match answers.iter().find(|(code, _)| *code != 0) {
            None => Ok(()),
            Some((code, _)) if *code == -libc::ERESTART => Err(NftError::Changed),
            Some((code, seq)) => {
                let op = batch.op_of(*seq).and_then(|index| tx.ops.get(index));
                Err(NftError::Refused {
                    op: op.map_or_else(|| "batch".to_owned(), |op| describe(self.table, op)),
                    source: os_error(*code),
                })
            }
        }
    }

    fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    fn request(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Writer)) -> (Vec<u8>, u32) {
        let seq = self.next_seq();
        let mut w = Writer::with_capacity(128);
        w.begin((NFNL_SUBSYS_NFTABLES << 8) | kind, NLM_F_REQUEST | flags, seq, NFPROTO_IPV4, 0);
        fill(&mut w);
        w.end();
        (w.into_bytes(), seq)
    }

    fn generation(&mut self) -> Result<Generation, NftError> {
        let (request, seq) = self.request(NFT_MSG_GETGEN, NLM_F_ACK, |_| {});
        let mut found = None;
        dump(&self.socket, &request, seq, |message| {
            found = Some(decode::generation(message)?);
            Ok(())
        })?;
        found.map(Generation).ok_or(NftError::Unanswered)
    }

    /// The table's comment, if there is one; `None` when there is no table.
    fn comment(&mut self) -> Result<Option<Option<String>>, NftError> {
        let table = self.table.as_str();
        let (request, seq) = self.request(NFT_MSG_GETTABLE, NLM_F_ACK, |w| w.put_str(NFTA_TABLE_NAME, table));
        let mut comment = None;
        let told = dump(&self.socket, &request, seq, |message| {
            comment = decode::table_comment(message)?;
            Ok(())
        });
        match told {
            Ok(_) => Ok(Some(comment)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether a table with this comment is another instance's.
    fn is_foreign(&self, comment: Option<&str>) -> bool {
        let marked_by_other = |owner: &Owner| comment.is_some_and(|c| is_mark(c) && !owner.has_marked(c));
        self.owner.as_ref().is_some_and(marked_by_other)
    }

    /// One pass over the table; `None` when it was not consistent.
    fn observe(&mut self) -> Result<Option<Observed>, NftError> {
        let table = self.table;
        let mut observed = Observed::default();
        let (request, seq) = self.request(NFT_MSG_GETCHAIN, NLM_F_DUMP, |_| {});
        let mut consistent = dump(&self.socket, &request, seq, |message| {
            if let Some((name, base)) = decode::chain(table, message)? {
                observed.chains.insert(name, (base, Vec::new()));
            }
            Ok(())
        })?;
        let (request, seq) = self.request(NFT_MSG_GETRULE, NLM_F_DUMP, |w| w.put_str(NFTA_RULE_TABLE, table.as_str()));
        consistent &= dump(&self.socket, &request, seq, |message| {
            if let Some((chain, tag)) = decode::rule(table, message)?
                && let Some((_, tags)) = observed.chains.get_mut(&chain)
            {
                tags.push(tag);
            }
            Ok(())
        })?;
        let (request, seq) = self.request(NFT_MSG_GETSET, NLM_F_DUMP, |w| w.put_str(NFTA_SET_TABLE, table.as_str()));
        consistent &= dump(&self.socket, &request, seq, |message| {
            observed.sets.extend(decode::set(table, message)?);
            Ok(())
        })?;
        for (name, set) in &mut observed.sets {
            if set.shape.flags & NFT_SET_EVAL == 0 {
                consistent &= self.observe_elements(name.as_str(), set)?;
            }
        }
        Ok(consistent.then_some(observed))
    }

    fn observe_elements(&mut self, name: &str, set: &mut ObservedSet) -> Result<bool, NftError> {
        let table = self.table.as_str();
        let (request, seq) = self.request(NFT_MSG_GETSETELEM, NLM_F_DUMP, |w| {
            w.put_str(NFTA_SET_ELEM_LIST_TABLE, table);
            w.put_str(NFTA_SET_ELEM_LIST_SET, name);
        });
        dump(&self.socket, &request, seq, |message| {
            set.elements.extend(decode::elements(message)?);
            Ok(())
        })
    }
}

/// The request in nft's syntax, short enough for a log line.
fn describe(table: TableName, op: &Op) -> String {
    let mut text = transaction_text(table, &Transaction { ops: vec![op.clone()], stale_chains: Vec::new() });
    text.truncate(text.trim_end().len());
    if let Some((cut, _)) = text.char_indices().nth(300) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

fn check_names(tx: &Transaction) -> Result<(), NftError> {
    let bad = tx.ops.iter().find_map(|op| match op {
        Op::AddSet(spec) if !name_fits(&spec.name) => Some(&spec.name),
        Op::AddChain(name, _) if !name_fits(name) => Some(name),
        _ => None,
    });
    bad.map_or(Ok(()), |name| Err(NftError::Name(name.as_str().to_owned())))
}

impl NftBackend for NetlinkBackend {
    fn run(&mut self, tx: &Transaction, since: Option<Generation>) -> Result<(), NftError> {
        self.transact(tx, since, true)
    }

    fn check(&mut self, tx: &Transaction) -> Result<(), NftError> {
        self.transact(tx, None, false)
    }

    fn exists(&mut self) -> Result<bool, NftError> {
        while receive(&self.socket, false).is_ok_and(|d| d.is_some()) {}
        Ok(self.comment()?.is_some())
    }

    fn list(&mut self) -> Result<Listing, NftError> {
        while receive(&self.socket, false).is_ok_and(|d| d.is_some()) {}
        for _ in 0..LIST_ATTEMPTS {
            let before = self.generation()?;
            let table = match self.comment()? {
                None => None,
                Some(comment) => match self.observe()? {
                    Some(observed) => Some(Observed { foreign: self.is_foreign(comment.as_deref()), ..observed }),
                    None => continue,
                },
            };
            if self.generation()? == before {
                return Ok(Listing { table, generation: Some(before) });
            }
        }
        Err(NftError::Changed)
    }
}
