//! IP addresses and networks (`ip.go` and `cidr.go` of Kubernetes' library), in Go's `net/netip` way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Outcome, Scope, Table};
use crate::error::EvalError;
use crate::value::{Object, Value};

pub(super) const TABLE: Table = &[
    ("ip", "string_to_ip(string) -> net.IP\n.cidr_ip(net.CIDR) -> net.IP", ip),
    ("isIP", "is_ip(string) -> bool", is_ip),
    ("ip.isCanonical", "ip_is_canonical(string) -> bool", is_canonical),
    ("family", ".ip_family(net.IP) -> int", family),
    ("isUnspecified", ".ip_is_unspecified(net.IP) -> bool", is_unspecified),
    ("isLoopback", ".ip_is_loopback(net.IP) -> bool", is_loopback),
    ("isLinkLocalMulticast", ".ip_is_link_local_multicast(net.IP) -> bool", is_link_local_multicast),
    ("isLinkLocalUnicast", ".ip_is_link_local_unicast(net.IP) -> bool", is_link_local_unicast),
    ("isGlobalUnicast", ".ip_is_global_unicast(net.IP) -> bool", is_global_unicast),
    ("cidr", "string_to_cidr(string) -> net.CIDR", cidr),
    ("isCIDR", "is_cidr(string) -> bool", is_cidr),
    (
        "containsIP",
        ".cidr_contains_ip_string(net.CIDR, string) -> bool\n.cidr_contains_ip_ip(net.CIDR, net.IP) -> bool",
        contains_ip,
    ),
    (
        "containsCIDR",
        ".cidr_contains_cidr_string(net.CIDR, string) -> bool\n.cidr_contains_cidr(net.CIDR, net.CIDR) -> bool",
        contains_cidr,
    ),
    ("prefixLength", ".cidr_prefix_length(net.CIDR) -> int", prefix_length),
    ("masked", ".cidr_masked(net.CIDR) -> net.CIDR", masked),
];

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    if text.contains('%') && text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()) {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        )),
    }
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = |why: &str| {
        Err(format!("network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}"))
    };
    let Some((address, length)) = text.rsplit_once('/') else { return wrong("no '/'") };
    let Ok(address) = address.parse::<IpAddr>() else {
        return wrong(&format!("ParseAddr({address:?}): unable to parse IP"));
    };
    let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    if !plain || (length.len() > 1 && length.starts_with('0')) {
        return wrong(&format!("bad bits after slash: {length:?}"));
    }
    let most = if address.is_ipv4() { 32 } else { 128 };
    let Some(length) = length.parse::<u8>().ok().filter(|length| *length <= most) else {
        return wrong("prefix length out of range");
    };
    if matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    Ok((address, length))
}

fn ip<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => {
            parse_ip(text).map(|address| Value::Object(Object::Ip(address))).map_err(EvalError::new)
        }
        [Value::Object(Object::Cidr(address, _))] => Ok(Value::Object(Object::Ip(*address))),
        _ => scope.refuse(args),
    }
}

fn is_ip<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => Ok(Value::Bool(parse_ip(text).is_ok())),
        _ => scope.refuse(args),
    }
}

fn is_canonical<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => {
            parse_ip(text).map(|address| Value::Bool(address.to_string() == **text)).map_err(EvalError::new)
        }
        _ => scope.refuse(args),
    }
}

fn of_ip<'a>(scope: &Scope<'_>, args: &[Value<'a>], what: impl FnOnce(&IpAddr) -> Value<'a>) -> Outcome<'a> {
    match args {
        [Value::Object(Object::Ip(address))] => Ok(what(address)),
        _ => scope.refuse(args),
    }
}

fn family<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_ip(scope, args, |address| Value::Int(if address.is_ipv4() { 4 } else { 6 }))
}

fn is_unspecified<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_ip(scope, args, |address| Value::Bool(address.is_unspecified()))
}

fn is_loopback<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_ip(scope, args, |address| Value::Bool(address.is_loopback()))
}

fn link_local_multicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets(), [224, 0, 0, _]),
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }
}

fn link_local_unicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_link_local_multicast<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_ip(scope, args, |address| Value::Bool(link_local_multicast(address)))
}

fn is_link_local_unicast<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_ip(scope, args, |address| Value::Bool(link_local_unicast(address)))
}

fn is_global_unicast<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_ip(scope, args, |address| {
        let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
        Value::Bool(!broadcast && !special && !link_local_unicast(address))
    })
}

fn cidr<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => match parse_cidr(text) {
            Ok((address, length)) => Ok(Value::Object(Object::Cidr(address, length))),
            Err(error) => {
                Err(EvalError::new(format!("network address parse error during conversion from string: {error}")))
            }
        },
        _ => scope.refuse(args),
    }
}

fn is_cidr<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => Ok(Value::Bool(parse_cidr(text).is_ok())),
        _ => scope.refuse(args),
    }
}

/// The address with zeros behind its network's part.
fn network(address: &IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(*address) & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(*address) & mask))
        }
    }
}

fn holds(of: (&IpAddr, u8), address: &IpAddr) -> bool {
    of.0.is_ipv4() == address.is_ipv4() && network(of.0, of.1) == network(address, of.1)
}

fn contains_ip<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Object(Object::Cidr(address, length)), other] = args else { return scope.refuse(args) };
    let other = match other {
        Value::Object(Object::Ip(other)) => *other,
        Value::String(text) => parse_ip(text).map_err(EvalError::new)?,
        _ => return scope.refuse(args),
    };
    Ok(Value::Bool(holds((address, *length), &other)))
}

fn contains_cidr<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Object(Object::Cidr(address, length)), other] = args else { return scope.refuse(args) };
    let (other, other_length) = match other {
        Value::Object(Object::Cidr(other, length)) => (*other, *length),
        Value::String(text) => parse_cidr(text).map_err(|error| {
            EvalError::new(format!("network address parse error during conversion from string: {error}"))
        })?,
        _ => return scope.refuse(args),
    };
    Ok(Value::Bool(*length <= other_length && holds((address, *length), &other)))
}

fn prefix_length<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Object(Object::Cidr(_, length))] => Ok(Value::Int((*length).into())),
        _ => scope.refuse(args),
    }
}

fn masked<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Object(Object::Cidr(address, length))] => {
            Ok(Value::Object(Object::Cidr(network(address, *length), *length)))
        }
        _ => scope.refuse(args),
    }
}
