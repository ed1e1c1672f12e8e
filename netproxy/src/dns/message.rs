//! DNS messages: which packets ask something, and how an answer is fitted to what its client
//! takes. Pure.

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Bytes of a datagram that we take and send: what every path carries unfragmented.
const UDP_PAYLOAD: u16 = 1232;
/// Bytes of a datagram for clients that do not say how much they take (RFC 1035).
const UDP_PAYLOAD_PLAIN: u16 = 512;
/// The shortest record: a pointer to a name, type, class, TTL and length.
const RECORD_MIN: usize = 12;
/// More records than the longest message holds.
pub const RECORDS: usize = u16::MAX as usize / RECORD_MIN + 1;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What a client said of extensions (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClientEdns {
    payload: u16,
    dnssec_ok: bool,
}

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    id: u16,
    op_code: OpCode,
    recursion_desired: bool,
    checking_disabled: bool,
    /// `None` in an error about a packet whose question cannot be read.
    query: Option<Query>,
    edns: Option<ClientEdns>,
}

/// What a packet is.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    /// Nothing that wants an answer.
    Ignored,
    /// To be answered with an error right away.
    Refused(Question, ResponseCode),
    /// To be answered.
    Asked(Question, Query),
}

/// An answer in full.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    pub code: ResponseCode,
    pub authoritative: bool,
    pub answers: Vec<Record>,
    pub soa: Option<Box<Record>>,
    pub additionals: Vec<Record>,
}

impl Reply {
    /// Nothing but a code.
    pub fn code(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }

    /// No such name, or nothing of that type: the start of authority says how long to remember it.
    pub fn negative(code: ResponseCode, soa: Record) -> Self {
        Self { code, authoritative: true, soa: Some(Box::new(soa)), ..Self::default() }
    }
}

/// Reads a packet.
pub fn read(bytes: &[u8]) -> Packet {
    // Less than a header, or an answer: nobody waits for us.
    let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else { return Packet::Ignored };
    let metadata = header.metadata;
    if metadata.message_type == MessageType::Response {
        return Packet::Ignored;
    }
    let mut question = Question {
        id: metadata.id,
        op_code: metadata.op_code,
        recursion_desired: metadata.recursion_desired,
        checking_disabled: metadata.checking_disabled,
        query: None,
        edns: None,
    };
    if metadata.op_code != OpCode::Query {
        return Packet::Refused(question, ResponseCode::NotImp);
    }
    let Ok(message) = Message::from_vec(bytes) else { return Packet::Refused(question, ResponseCode::FormErr) };
    let [query] = message.queries.as_slice() else { return Packet::Refused(question, ResponseCode::FormErr) };
    question.query = Some(query.clone());
    if let Some(edns) = &message.edns {
        question.edns = Some(ClientEdns { payload: edns.max_payload(), dnssec_ok: edns.flags().dnssec_ok });
        if edns.version() > 0 {
            return Packet::Refused(question, ResponseCode::BADVERS);
        }
    }
    let transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    if transfer || query.query_class() != DNSClass::IN {
        return Packet::Refused(question, ResponseCode::Refused);
    }
    let query = query.clone();
    Packet::Asked(question, query)
}

/// The bytes that answer a question; `None` when they cannot be made.
pub fn write(question: &Question, reply: Reply, recursion_available: bool, transport: Transport) -> Option<Vec<u8>> {
    let mut message = Message::response(question.id, question.op_code);
    message.metadata.recursion_desired = question.recursion_desired;
    message.metadata.checking_disabled = question.checking_disabled;
    message.metadata.recursion_available = recursion_available;
    message.metadata.authoritative = reply.authoritative;
    message.metadata.response_code = reply.code;
    message.queries.extend(question.query.clone());
    message.answers = reply.answers;
    message.authorities.extend(reply.soa.map(|soa| *soa));
    message.additionals = reply.additionals;
    message.edns = question.edns.map(|client| {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(client.dnssec_ok);
        edns
    });
    match transport {
        Transport::Tcp => fit(message, usize::from(u16::MAX)),
        Transport::Udp => {
            let takes = question.edns.map_or(UDP_PAYLOAD_PLAIN, |client| client.payload);
            fit(message, usize::from(takes.clamp(UDP_PAYLOAD_PLAIN, UDP_PAYLOAD)))
        }
    }
}

/// Encodes `message` in at most `limit` bytes. Additional records may be missing without a word;
/// a message that lacks answers says that it is truncated, so that the client comes by TCP.
fn fit(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    let most = limit / RECORD_MIN;
    if message.answers.len() > most {
        message.answers.truncate(most);
        message.metadata.truncation = true;
        message.additionals.clear();
    }
    let whole = message.to_vec().ok()?;
    if whole.len() <= limit {
        return Some(whole);
    }
    message.additionals.clear();
    let without = message.to_vec().ok()?;
    if without.len() <= limit {
        return Some(without);
    }
    message.metadata.truncation = true;
    let answers = std::mem::take(&mut message.answers);
    // The most answers that fit: `fits` do, `beyond` do not.
    let (mut fits, mut beyond) = (0, answers.len());
    while fits + 1 < beyond {
        let middle = usize::midpoint(fits, beyond);
        message.answers = answers[..middle].to_vec();
        if message.to_vec().ok()?.len() <= limit { fits = middle } else { beyond = middle }
    }
    message.answers = answers[..fits].to_vec();
    if fits == 0 {
        message.authorities.clear();
    }
    message.to_vec().ok()
}

#[cfg(test)]
mod tests;
