//! Host ports as data: read from what the runtime says, compared with other containers' ports,
//! and the tracked flows that must not outlive a change. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cni::protocol::PluginError;
use crate::conntrack::Flow;
use crate::nft::object::Protocol;

/// A port of the node that leads into a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPort {
    /// The one address of the node it answers on; `None` for every address of the node.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<Ipv4Addr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The node's port, never 0.
    pub host_port: u16,
    /// The container's port, never 0.
    pub container_port: u16,
}

impl HostPort {
    /// Whether two containers cannot have both: the same protocol and port, and the same address or
    /// one that stands for all. The scheduler decides alike.
    pub fn conflicts(&self, other: &Self) -> bool {
        let same_port = (self.protocol, self.host_port) == (other.protocol, other.host_port);
        same_port && (self.host_ip == other.host_ip || self.host_ip.is_none() || other.host_ip.is_none())
    }

    /// Whether it is one of the node's own.
    pub fn is_among(&self, reserved: &BTreeSet<ReservedPort>) -> bool {
        reserved.contains(&ReservedPort(self.protocol, self.host_port))
    }

    /// Whether a packet for `dst`, with this port's number, is for this port. `local` are the
    /// node's addresses, loopback not needed among them.
    fn answers_on(&self, dst: Ipv4Addr, local: &[Ipv4Addr]) -> bool {
        self.host_ip.map_or_else(|| dst.is_loopback() || local.contains(&dst), |host_ip| host_ip == dst)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host_ip) = self.host_ip {
            write!(f, "{host_ip}:")?;
        }
        write!(f, "{}/{}", self.host_port, self.protocol.as_str())
    }
}

/// A port that the node itself answers on, written as `8472/udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "ReservedText")]
pub struct ReservedPort(pub Protocol, pub u16);

/// How configurations have it: a number alone, of versions before, is TCP's.
#[derive(Deserialize)]
#[serde(untagged)]
enum ReservedText {
    Number(u16),
    Text(String),
}

impl TryFrom<ReservedText> for ReservedPort {
    type Error = String;

    fn try_from(text: ReservedText) -> Result<Self, String> {
        let text = match text {
            ReservedText::Number(number) => return Ok(Self(Protocol::Tcp, number)),
            ReservedText::Text(text) => text,
        };
        let read = || {
            let (number, protocol) = text.split_once('/')?;
            let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.as_str() == protocol);
            Some(Self(protocol?, number.parse().ok()?))
        };
        read().ok_or_else(|| format!("{text:?} is not a port like 8472/udp"))
    }
}

impl From<ReservedPort> for String {
    fn from(ReservedPort(protocol, number): ReservedPort) -> Self {
        format!("{number}/{}", protocol.as_str())
    }
}

/// Refuses ports that the node itself answers on: a pod there would get what is meant for the node.
///
/// # Errors
/// Names the port (code 102).
pub fn refuse_reserved(ports: &[HostPort], reserved: &BTreeSet<ReservedPort>) -> Result<(), PluginError> {
    let taken = ports.iter().find(|port| port.is_among(reserved));
    taken.map_or(Ok(()), |port| Err(PluginError::port_reserved(&port.to_string())))
}

/// Reads `portMappings` out of `runtimeConfig`; without any there are none. Sorted, each once. As
/// upstream, a mapping whose `hostIP` is of the family the container lacks (IPv6) is left out.
///
/// # Errors
/// Names the entry that makes no sense (code 7).
pub fn wanted(runtime_config: &Value) -> Result<Vec<HostPort>, PluginError> {
    let list = match runtime_config.get("portMappings") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(invalid(other, "a list is expected")),
    };
    let mut ports = Vec::with_capacity(list.len());
    for entry in list {
        ports.extend(read(entry)?);
    }
    ports.sort_unstable();
    ports.dedup();
    let twice = ports.windows(2).find(|pair| HostPort { container_port: pair[1].container_port, ..pair[0] } == pair[1]);
    match twice {
        Some(pair) => Err(PluginError::config(format!("portMappings leads {} to two ports of the container", pair[0]))),
        None => Ok(ports),
    }
}

fn read(entry: &Value) -> Result<Option<HostPort>, PluginError> {
    let object = entry.as_object().ok_or_else(|| invalid(entry, "an entry is no object"))?;
    // The convention writes `hostPort`. containerd writes `HostPort`, and Go reads either.
    let field = |name: &str| {
        let exact = object.get(name);
        let any_case = || object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        exact.or_else(any_case).filter(|value| !value.is_null())
    };
    let number = |name: &str| {
        let value = field(name).ok_or_else(|| invalid(entry, &format!("{name} is missing")))?;
        let number = value.as_i64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
        number.ok_or_else(|| invalid(entry, &format!("{name} {value} is not within 1 to 65535")))
    };
    let text = |name: &str| match field(name) {
        None => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(invalid(entry, &format!("{name} is no text"))),
    };
    let (host_port, container_port) = (number("hostPort")?, number("containerPort")?);
    let protocol = match text("protocol")?.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(invalid(entry, "protocol is none of tcp, udp and sctp")),
    };
    let host_ip = match text("hostIP")? {
        "" => None,
        text => match text.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(IpAddr::V4(ip)) => Some(ip).filter(|ip| !ip.is_unspecified()),
            Ok(IpAddr::V6(_)) => return Ok(None),
            Err(_) => return Err(invalid(entry, "hostIP is not an address")),
        },
    };
    Ok(Some(HostPort { host_ip, protocol, host_port, container_port }))
}

/// An entry is told back, but not a flood of it.
fn invalid(entry: &Value, why: &str) -> PluginError {
    let text: String = entry.to_string().chars().take(200).collect();
    PluginError { details: text, ..PluginError::config(format!("portMappings: {why}")) }
}

/// The UDP flows that keep a port's datagrams from its new container: for the port, but not
/// translated to `address`. `local` are the node's addresses.
pub fn stale_when_opened(ports: &[HostPort], address: Ipv4Addr, local: &[Ipv4Addr], flows: &[Flow]) -> Vec<Flow> {
    let stale = |flow: &&Flow| {
        udp_port(ports, flow).any(|port| {
            port.answers_on(flow.original.dst, local)
                && (flow.reply.src, flow.reply.sport) != (address, port.container_port)
        })
    };
    flows.iter().filter(stale).copied().collect()
}

/// The UDP flows that go on into a container which gave its port back.
pub fn stale_when_closed(ports: &[HostPort], address: Ipv4Addr, flows: &[Flow]) -> Vec<Flow> {
    let stale = |flow: &&Flow| {
        flow.original.dst != address
            && udp_port(ports, flow).any(|port| (flow.reply.src, flow.reply.sport) == (address, port.container_port))
    };
    flows.iter().filter(stale).copied().collect()
}

fn udp_port<'a>(ports: &'a [HostPort], flow: &Flow) -> impl Iterator<Item = &'a HostPort> {
    let number = flow.original.dport;
    ports.iter().filter(move |port| port.protocol == Protocol::Udp && port.host_port == number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::conntrack::Tuple;

    const POD: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 5);
    const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn port(host_ip: Option<Ipv4Addr>, protocol: Protocol, host_port: u16) -> HostPort {
        HostPort { host_ip, protocol, host_port, container_port: 80 }
    }

    #[test]
    fn mappings_are_read_as_runtimes_write_them() {
        let entry = |host_ip: &str, protocol: &str| {
            json!({"portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": protocol, "hostIP": host_ip},
            ]})
        };
        for (host_ip, protocol, expected) in [
            ("", "tcp", Some(port(None, Protocol::Tcp, 8080))),
            ("0.0.0.0", "UDP", Some(port(None, Protocol::Udp, 8080))),
            ("192.0.2.1", "Sctp", Some(port(Some(NODE), Protocol::Sctp, 8080))),
            ("::ffff:192.0.2.1", "", Some(port(Some(NODE), Protocol::Tcp, 8080))),
            ("::", "tcp", None),
            ("fd00::1", "tcp", None),
        ] {
            let read = wanted(&entry(host_ip, protocol)).unwrap();
            assert_eq!(read, Vec::from_iter(expected), "{host_ip:?} {protocol:?}");
        }
        for none in [json!(null), json!({}), json!({"portMappings": null}), json!({"portMappings": []}), json!(7)] {
            assert_eq!(wanted(&none).unwrap(), [], "{none}");
        }
        let by_containerd = json!({"portMappings": [
            {"HostPort": 8080, "ContainerPort": 80, "Protocol": "udp", "HostIP": "192.0.2.1"},
        ]});
        assert_eq!(wanted(&by_containerd).unwrap(), [port(Some(NODE), Protocol::Udp, 8080)]);
        let bare = json!({"portMappings": [{"hostPort": 1, "containerPort": 65535, "name": "unknown"}]});
        assert_eq!(wanted(&bare).unwrap()[0].container_port, 65535);
    }

    #[test]
    fn senseless_mappings_are_named() {
        let good = json!({"hostPort": 8080, "containerPort": 80});
        let with = |field: &str, value: Value| {
            let mut entry = good.clone();
            entry[field] = value;
            json!([entry])
        };
        for (list, complaint) in [
            (json!({"hostPort": 1}), "a list"),
            (json!(["x"]), "no object"),
            (json!([{"containerPort": 80}]), "hostPort is missing"),
            (with("hostPort", json!(0)), "hostPort 0"),
            (with("hostPort", json!(-1)), "hostPort -1"),
            (with("hostPort", json!(65536)), "hostPort 65536"),
            (with("hostPort", json!("80")), "hostPort \"80\""),
            (with("containerPort", json!(0)), "containerPort 0"),
            (with("containerPort", json!(1.5)), "containerPort 1.5"),
            (with("protocol", json!(6)), "protocol is no text"),
            (with("protocol", json!("icmp")), "protocol"),
            (with("hostIP", json!("banana")), "hostIP"),
            (with("hostIP", json!("10.0.0.0/8")), "hostIP"),
            (json!([good, {"hostPort": 8080, "containerPort": 81}]), "8080/tcp to two ports"),
        ] {
            let error = wanted(&json!({"portMappings": list})).unwrap_err();
            assert_eq!(error.code, 7, "{list}");
            assert!(error.message.contains(complaint), "{list}: {error}");
        }
        let same = json!({"portMappings": [good, good]});
        assert_eq!(wanted(&same).unwrap().len(), 1, "twice the same is once");
    }

    #[test]
    fn ports_of_the_node_are_of_one_protocol() {
        let reserved: BTreeSet<ReservedPort> = serde_json::from_value(json!(["8472/udp", "6443/tcp", 10250])).unwrap();
        let expected = [(Protocol::Tcp, 6443), (Protocol::Tcp, 10250), (Protocol::Udp, 8472)];
        assert_eq!(reserved, expected.map(|(protocol, number)| ReservedPort(protocol, number)).into());
        assert_eq!(serde_json::to_value(&reserved).unwrap(), json!(["6443/tcp", "10250/tcp", "8472/udp"]));
        for (protocol, number, refused) in [
            (Protocol::Udp, 8472, true),
            (Protocol::Tcp, 8472, false),
            (Protocol::Tcp, 10250, true),
            (Protocol::Udp, 10250, false),
            (Protocol::Sctp, 6443, false),
        ] {
            assert_eq!(refuse_reserved(&[port(None, protocol, number)], &reserved).is_err(), refused, "{number}");
        }
        for bad in ["8472", "8472/", "/udp", "8472/icmp", "70000/udp", "udp/8472"] {
            assert!(serde_json::from_value::<ReservedPort>(json!(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_conflict_as_the_scheduler_says() {
        let (any, one, other) = (None, Some(NODE), Some(Ipv4Addr::LOCALHOST));
        let tcp = |ip| port(ip, Protocol::Tcp, 80);
        for (a, b, expected) in [
            (tcp(any), tcp(any), true),
            (tcp(any), tcp(one), true),
            (tcp(one), tcp(any), true),
            (tcp(one), tcp(one), true),
            (tcp(one), tcp(other), false),
            (tcp(any), port(any, Protocol::Udp, 80), false),
            (tcp(any), port(any, Protocol::Tcp, 81), false),
        ] {
            assert_eq!(a.conflicts(&b), expected, "{a} and {b}");
        }
    }

    #[test]
    fn flows_that_bypass_a_new_container_are_stale() {
        let udp = [port(None, Protocol::Udp, 53), port(Some(NODE), Protocol::Udp, 54)];
        let flow = |dst: Ipv4Addr, dport, from: (Ipv4Addr, u16)| {
            let client = Ipv4Addr::new(192, 0, 2, 9);
            let original = Tuple { src: client, dst, sport: 4000, dport };
            Flow { original, reply: Tuple { src: from.0, dst: client, sport: from.1, dport: 4000 }, zone: 0 }
        };
        let elsewhere = Ipv4Addr::new(203, 0, 113, 1);
        for (flow, opened, closed) in [
            (flow(NODE, 53, (NODE, 53)), true, false),
            (flow(Ipv4Addr::LOCALHOST, 53, (Ipv4Addr::LOCALHOST, 53)), true, false),
            (flow(NODE, 53, (Ipv4Addr::new(10, 42, 0, 4), 80)), true, false),
            (flow(NODE, 53, (POD, 80)), false, true),
            (flow(NODE, 53, (POD, 81)), true, false),
            (flow(NODE, 54, (NODE, 54)), true, false),
            (flow(Ipv4Addr::LOCALHOST, 54, (Ipv4Addr::LOCALHOST, 54)), false, false),
            (flow(elsewhere, 53, (elsewhere, 53)), false, false),
            (flow(NODE, 55, (NODE, 55)), false, false),
            (flow(POD, 53, (POD, 80)), false, false),
        ] {
            assert_eq!(stale_when_opened(&udp, POD, &[NODE], &[flow]).len(), usize::from(opened), "opened: {flow:?}");
            assert_eq!(stale_when_closed(&udp, POD, &[flow]).len(), usize::from(closed), "closed: {flow:?}");
        }
        let tcp = [port(None, Protocol::Tcp, 53)];
        assert_eq!(stale_when_opened(&tcp, POD, &[NODE], &[flow(NODE, 53, (NODE, 53))]), []);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-2i64..70_000).prop_map(Value::from),
            "[0-9a-f:.]{0,12}|tcp|udp|é*".prop_map(Value::from),
        ];
        let field = "hostPort|containerPort|protocol|hostIP|portMappings";
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(field, inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_configuration_is_ports_or_an_error(list in any_json()) {
            for config in [list.clone(), json!({"portMappings": list}), json!({"portMappings": [list]})] {
                if let Ok(ports) = wanted(&config) {
                    prop_assert!(ports.iter().all(|port| port.host_port > 0 && port.container_port > 0));
                }
            }
        }
    }
}
