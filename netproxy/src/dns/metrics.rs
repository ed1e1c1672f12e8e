//! Cluster DNS's metrics, under the names of upstream's server where it has them.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::message::Transport;

/// The address that upstream's metrics carry.
const SERVER: &str = "dns://:53";

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    server: &'static str,
    zone: String,
    proto: &'static str,
    r#type: &'static str,
}

/// Labels of a response.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    server: &'static str,
    zone: String,
    rcode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtoLabel {
    proto: &'static str,
}

/// Handles to the collectors; clones count into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    duration: Histogram,
    /// Questions refused because too many were on their way.
    pub(super) rejected_forwards: Counter,
    /// TCP connections refused because there were too many.
    pub(super) rejected_connections: Counter,
    listening: Family<ProtoLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        // Upstream's buckets: 0.25 ms and fifteen doublings.
        let buckets = prometheus_client::metrics::histogram::exponential_buckets(0.000_25, 2.0, 16);
        Self {
            requests: Family::default(),
            responses: Family::default(),
            duration: Histogram::new(buckets),
            rejected_forwards: Counter::default(),
            rejected_connections: Counter::default(),
            listening: Family::default(),
        }
    }
}

impl Metrics {
    /// Adds the collectors to a registry. Counters get their `_total` when they are encoded.
    pub fn register(&self, registry: &mut Registry) {
        let coredns = registry.sub_registry_with_prefix("coredns");
        coredns.register("dns_requests", "DNS requests", self.requests.clone());
        coredns.register("dns_responses", "DNS responses", self.responses.clone());
        coredns.register("dns_request_duration_seconds", "Time each DNS request took", self.duration.clone());
        coredns.register(
            "forward_max_concurrent_rejects",
            "Requests refused because too many were being forwarded",
            self.rejected_forwards.clone(),
        );
        let own = registry.sub_registry_with_prefix("copepod_dns");
        own.register(
            "rejected_connections",
            "TCP connections closed because there were too many",
            self.rejected_connections.clone(),
        );
        own.register("listening", "Whether cluster DNS has its port", self.listening.clone());
    }

    /// Counts a question and its answer. `zone` is one that we serve, or `.`.
    pub(super) fn answered(
        &self,
        transport: Transport,
        (zone, kind): (&str, RecordType),
        code: ResponseCode,
        took: Duration,
    ) {
        let request =
            RequestLabels { server: SERVER, zone: zone.to_owned(), proto: proto(transport), r#type: type_name(kind) };
        self.requests.get_or_create(&request).inc();
        let response = ResponseLabels { server: SERVER, zone: request.zone, rcode: code_name(code) };
        self.responses.get_or_create(&response).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn set_listening(&self, transport: Transport, listening: bool) {
        self.listening.get_or_create(&ProtoLabel { proto: proto(transport) }).set(i64::from(listening));
    }

    #[cfg(test)]
    pub(super) fn is_listening(&self, transport: Transport) -> bool {
        self.listening.get_or_create(&ProtoLabel { proto: proto(transport) }).get() == 1
    }
}

fn proto(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    }
}

/// The types that upstream tells apart; clients must not be able to make series.
fn type_name(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::ANY => "ANY",
        RecordType::CNAME => "CNAME",
        RecordType::HTTPS => "HTTPS",
        RecordType::MX => "MX",
        RecordType::NAPTR => "NAPTR",
        RecordType::NS => "NS",
        RecordType::PTR => "PTR",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::SVCB => "SVCB",
        RecordType::TXT => "TXT",
        _ => "other",
    }
}

fn code_name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn encodes_under_upstream_names() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let asked = ("cluster.local.", RecordType::A);
        metrics.answered(Transport::Udp, asked, ResponseCode::NXDomain, Duration::from_micros(40));
        metrics.answered(Transport::Udp, (".", RecordType::Unknown(65_280)), ResponseCode::Unknown(99), Duration::ZERO);
        metrics.set_listening(Transport::Udp, true);
        metrics.rejected_forwards.inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"coredns_dns_requests_total{server="dns://:53",zone="cluster.local.",proto="udp",type="A"} 1"#,
            r#"coredns_dns_requests_total{server="dns://:53",zone=".",proto="udp",type="other"} 1"#,
            r#"coredns_dns_responses_total{server="dns://:53",zone="cluster.local.",rcode="NXDOMAIN"} 1"#,
            "coredns_dns_request_duration_seconds_count 2",
            "coredns_forward_max_concurrent_rejects_total 1",
            r#"copepod_dns_listening{proto="udp"} 1"#,
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
