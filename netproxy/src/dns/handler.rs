//! Answers DNS requests: the zone's names at once, others through the forwarder.

use std::sync::Arc;

use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::forward::{Forwarded, Forwarder};
use super::watch::SharedZone;
use super::zone::Answer;

/// Bytes of an answer that we take and send over UDP, as most servers do now.
const UDP_PAYLOAD: u16 = 1232;

/// Answers requests from one shared zone.
#[derive(Debug)]
pub struct Handler {
    zone: Arc<SharedZone>,
    forwarder: Option<Forwarder>,
}

/// An answer in full, ready to be sent.
#[derive(Debug, Default)]
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    soa: Option<Record>,
    additionals: Vec<Record>,
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }

    fn negative(code: ResponseCode, soa: Option<Record>) -> Self {
        Self { code, authoritative: true, soa, ..Self::default() }
    }
}

impl Handler {
    /// Without a forwarder, names outside the cluster are refused.
    pub fn new(zone: Arc<SharedZone>, forwarder: Option<Forwarder>) -> Self {
        Self { zone, forwarder }
    }

    async fn reply(&self, name: &Name, kind: RecordType) -> Reply {
        let Some((answer, soa)) = self.zone.ask(|zone| (zone.answer(name, kind), zone.soa())) else {
            return Reply::code(ResponseCode::ServFail);
        };
        match answer {
            Answer::Records { answers, additionals } => {
                Reply { authoritative: true, answers, additionals, ..Reply::default() }
            }
            Answer::NoData => Reply::negative(ResponseCode::NoError, Some(soa)),
            Answer::NameError => Reply::negative(ResponseCode::NXDomain, Some(soa)),
            Answer::Alias { alias, target } => self.alias(*alias, &target, kind).await,
            Answer::Elsewhere => self.forward(name, kind).await,
        }
    }

    /// The alias itself, then what it stands for, as far as that can be found:
    /// an alias into the cluster is followed once, others are forwarded.
    async fn alias(&self, alias: Record, target: &Name, kind: RecordType) -> Reply {
        let inside = self.zone.ask(|zone| zone.answer(target, kind));
        let followed = match inside {
            Some(Answer::Records { answers, .. }) => Reply { answers, ..Reply::default() },
            Some(Answer::Elsewhere) => self.forward(target, kind).await,
            _ => Reply::default(),
        };
        let mut answers = vec![alias];
        answers.extend(followed.answers);
        Reply { code: ResponseCode::NoError, authoritative: true, answers, ..Reply::default() }
    }

    async fn forward(&self, name: &Name, kind: RecordType) -> Reply {
        let Some(forwarder) = &self.forwarder else { return Reply::code(ResponseCode::Refused) };
        match forwarder.ask(name, kind).await {
            Forwarded::Records(answers) => Reply { answers, ..Reply::default() },
            Forwarded::Negative { code, soa } => Reply { code, soa: soa.map(|soa| *soa), ..Reply::default() },
            Forwarded::Failed => Reply::code(ResponseCode::ServFail),
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut sender: R) -> ResponseInfo {
        let reply = match request.request_info() {
            Err(_) => Reply::code(ResponseCode::FormErr),
            Ok(_) if request.metadata.op_code != OpCode::Query => Reply::code(ResponseCode::NotImp),
            Ok(info) if info.query.query_class() != DNSClass::IN => Reply::code(ResponseCode::Refused),
            // The name as it was asked: clients that mix cases check for it.
            Ok(info) => self.reply(info.query.original().name(), info.query.query_type()).await,
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = self.forwarder.is_some();
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD);
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let response = builder.build(metadata, &reply.answers, [], &reply.soa, &reply.additionals);
        match sender.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "a DNS answer could not be sent");
                let metadata = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
                Header { metadata, counts: HeaderCounts::default() }.into()
            }
        }
    }
}
