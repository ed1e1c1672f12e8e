//! What the fuzz targets call: the readers of what the kernel, the runtime, clients, the API server and administrators
//! send, each with what holds of whatever it reads.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Message as DnsMessage, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use serde_json::Value;

use crate::api::{EndpointSlice, Node, Service};
use crate::cidr::Cidr4;
use crate::cni::hostports::mapping::{ReservedPort, wanted};
use crate::cni::ipam::{self, Leases};
use crate::cni::protocol::{Environment, parse_config, version_of};
use crate::config::{apply_kube_proxy_configuration, duration};
use crate::conntrack::ctnetlink;
use crate::dns::message::{self, Packet, Reply, Transport};
use crate::dns::{read, resolv_conf};
use crate::firewall::kernel::read_chain;
use crate::informer::{Item, Kind};
use crate::links::Mac;
use crate::nft::object::Key;
use crate::nft::wire::{Attributes, Message, Writer, messages};
use crate::nft::{TABLE, decode, userdata};
use crate::routes::peers;
use crate::services::ServiceProxyConfig;
use crate::snapshot::convert;

/// Attributes that are well formed are the same when they are written and read again.
fn same_again(attributes: Attributes<'_>) {
    let Ok(read) = attributes.collect::<Result<Vec<_>, _>>() else { return };
    let mut writer = Writer::default();
    writer.begin(0, 0, 0, 0, 0);
    read.iter().for_each(|attribute| writer.put(attribute.kind, attribute.value));
    writer.end();
    let bytes = writer.into_bytes();
    let message = messages(&bytes).next().and_then(Result::ok).expect("what was written is a message");
    let again: Result<Vec<_>, _> = message.attributes().expect("with a header").collect();
    assert_eq!(again, Ok(read));
}

fn netfilter(message: &Message<'_>) {
    let _ = decode::table_comment(message);
    let _ = decode::generation(message);
    if let Ok(Some((name, _))) = decode::chain(TABLE, message) {
        assert!(name.as_str().len() <= message.payload.len());
    }
    let _ = decode::rule(TABLE, message);
    let _ = decode::set(TABLE, message);
    for (key, _) in decode::elements(message).unwrap_or_default() {
        assert_eq!(Key::from_bytes(key.as_bytes()), Some(key));
        let _ = key.as_addr_port();
    }
    let _ = ctnetlink::flow(message);
    let _ = read_chain(message);
    let _ = message.error_code();
    let _ = message.attributes().map(same_again);
}

/// A datagram of the kernel's netfilter.
pub fn netlink(datagram: &[u8]) {
    let mut length = 0;
    for message in messages(datagram) {
        let Ok(message) = message else { break };
        length += message.payload.len();
        netfilter(&message);
    }
    assert!(length <= datagram.len());
    if let Some(comment) = userdata::comment_of(datagram)
        && comment.len() < 250
    {
        assert_eq!(userdata::comment_of(&userdata::comment(comment)), Some(comment));
    }
}

/// What the runtime calls the CNI plugin with: variables, a line each and an empty one, and standard input.
pub fn cni(text: &str) {
    let (variables, input) = text.split_once("\n\n").unwrap_or(("", text));
    let variable = |name: &str| {
        let pair = variables.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| *key == name);
        pair.map(|(_, value)| value.to_owned())
    };
    if let Ok(environment) = Environment::read(variable) {
        assert!(!environment.container_id.contains('/') && !environment.ifname.contains('/'));
    }
    let _ = version_of(input.as_bytes());
    let Ok(config) = parse_config(input.as_bytes()) else { return };
    assert!(!config.name.contains('/') || config.kind == "loopback");
    let _ = (config.subnet(), config.owner(), config.scope().map(drop));
    let _ = config.previous(Ipv4Addr::new(10, 42, 0, 2), "eth0").map(drop);
    if let Ok(ports) = wanted(&config.runtime_config) {
        assert!(ports.is_sorted() && ports.iter().all(|port| port.host_port > 0 && port.container_port > 0));
    }
}

/// Files that the plugin wrote for itself: leases, ports, what an interface notes.
pub fn leases(text: &str) {
    if let Ok(leases) = serde_json::from_str::<Leases>(text) {
        let json = serde_json::to_string(&leases).expect("leases are JSON");
        assert_eq!(serde_json::from_str::<Leases>(&json).ok(), Some(leases));
    }
    if let Ok(port) = serde_json::from_str::<ReservedPort>(text) {
        let json = serde_json::to_string(&port).expect("a port is JSON");
        assert_eq!(serde_json::from_str::<ReservedPort>(&json).ok(), Some(port));
    }
    if let Some((address, holder)) = ipam::read_note(text) {
        assert_eq!(ipam::noted_address(text), Some(address));
        assert_eq!(ipam::read_note(&ipam::note(address, &holder)), Some((address, holder)));
    }
}

/// A question to the cluster's DNS: the answer is one to it, fits what its client takes, and is no flood.
pub fn dns(bytes: &[u8]) {
    let (question, code) = match message::read(bytes) {
        Packet::Ignored => return,
        Packet::Refused(question, code) => (question, code),
        Packet::Asked(question, _) => (question, ResponseCode::NoError),
    };
    let name = hickory_proto::rr::Name::from_ascii("kubernetes.default.svc.cluster.local.").expect("a name");
    for (transport, most) in [(Transport::Udp, 1232), (Transport::Tcp, usize::from(u16::MAX))] {
        for count in [0, 40, 1500] {
            let answers = (0..count).map(|n: u16| {
                let [high, low] = n.to_be_bytes();
                Record::from_rdata(name.clone(), 5, RData::A(A::new(10, 0, high, low)))
            });
            let reply = Reply { code, answers: answers.collect(), ..Reply::default() };
            let Some(answer) = message::write(&question, reply, true, transport) else { continue };
            assert!(answer.len() <= most, "{} bytes by {transport:?}", answer.len());
            assert_eq!(answer[..2], bytes[..2], "the same id");
            let read = DnsMessage::from_vec(&answer).expect("what is answered can be read");
            assert_eq!(read.metadata.message_type, MessageType::Response);
            assert!(read.answers.len() <= usize::from(count));
            assert!(read.answers.len() == usize::from(count) || read.metadata.truncation, "who gets less is told");
        }
    }
}

/// The node's resolv.conf.
pub fn resolv_conf(text: &str) -> Vec<IpAddr> {
    resolv_conf::name_servers(text)
}

/// A `KubeProxyConfiguration` as JSON: what is refused changes nothing.
pub fn kube_proxy_configuration(document: Value) {
    let mut config = ServiceProxyConfig::new("node-1", Vec::new());
    let before = format!("{config:?}");
    if apply_kube_proxy_configuration(&mut config, document).is_err() {
        assert_eq!(format!("{config:?}"), before);
    }
}

/// A duration as Go writes it.
pub fn go_duration(text: &str) -> Option<std::time::Duration> {
    duration(Value::String(text.to_owned())).ok()
}

/// A prefix and a hardware address: what is read is written so that it reads the same.
pub fn addresses(text: &str) {
    if let Ok(cidr) = text.parse::<Cidr4>() {
        assert_eq!(cidr.to_string().parse(), Ok(cidr));
        assert!(text.trim().bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'/'), "{text:?}");
    }
    if let Some(mac) = Mac::parse(text) {
        assert_eq!(mac.to_string(), text.to_ascii_lowercase());
    }
}

fn read_as<T: Kind>(json: &str) -> Option<T> {
    serde_json::from_str::<Item<T>>(json).ok().and_then(Item::into_content)
}

/// A Service, an EndpointSlice or a Node as JSON; whether it can be read as each of them.
pub fn objects(json: &str) -> [bool; 3] {
    let service = read_as::<Service>(json);
    if let Some(service) = &service {
        let ports = convert::service_ports(service);
        assert!(ports.len() <= service.spec.ports.len());
        let _ = read::service(service);
    }
    let slice = read_as::<EndpointSlice>(json);
    if let Some(slice) = &slice {
        let _ = (convert::is_proxied(slice), convert::slice_content(slice, "node-1"), convert::trigger_time(slice));
        let _ = read::slice(slice);
    }
    let node = read_as::<Node>(json);
    if let Some(peer) = node.as_ref().and_then(peers::Peer::read) {
        assert_eq!(peers::pod_cidr(node.as_ref().expect("there is one")), Some(peer.pod_cidr));
    }
    [service.is_some(), slice.is_some(), node.is_some()]
}
