//! The kernel's connection tracking over netlink: list UDP flows, delete one.

use std::net::Ipv4Addr;

use netlink_sys::Socket;

use super::{Flow, Tuple};
use crate::backend::NftError;
use crate::backend::netlink::{dump, netfilter_socket};
use crate::nft::uapi::{NFNL_SUBSYS_CTNETLINK, NFPROTO_IPV4, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use crate::nft::wire::{Attribute, Attributes, Message, WireError, Writer};

const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const UDP: u8 = 17;

/// Access to tracked flows.
pub trait Conntrack: Send {
    /// All tracked IPv4 UDP flows.
    ///
    /// # Errors
    /// [`NftError`] when they cannot be read.
    fn udp_flows(&mut self) -> Result<Vec<Flow>, NftError>;

    /// Forgets a flow; fine when it is gone already.
    ///
    /// # Errors
    /// [`NftError`] when the kernel refuses.
    fn delete(&mut self, flow: &Flow) -> Result<(), NftError>;
}

/// Connection tracking in the network namespace of the thread that opened it.
pub struct CtNetlink {
    socket: Socket,
    seq: u32,
}

impl std::fmt::Debug for CtNetlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CtNetlink").field("seq", &self.seq).finish_non_exhaustive()
    }
}

impl CtNetlink {
    /// Opens a socket.
    ///
    /// # Errors
    /// [`NftError::Socket`].
    pub fn new() -> Result<Self, NftError> {
        Ok(Self { socket: netfilter_socket()?, seq: 0 })
    }

    fn request(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Writer)) -> (Vec<u8>, u32) {
        self.seq = self.seq.wrapping_add(1);
        let mut w = Writer::with_capacity(128);
        w.begin((NFNL_SUBSYS_CTNETLINK << 8) | kind, NLM_F_REQUEST | flags, self.seq, NFPROTO_IPV4, 0);
        fill(&mut w);
        w.end();
        (w.into_bytes(), self.seq)
    }
}

impl Conntrack for CtNetlink {
    fn udp_flows(&mut self) -> Result<Vec<Flow>, NftError> {
        let (request, seq) = self.request(IPCTNL_MSG_CT_GET, NLM_F_DUMP, |_| {});
        let mut flows = Vec::new();
        dump(&self.socket, &request, seq, |message| {
            flows.extend(flow(message)?);
            Ok(())
        })?;
        Ok(flows)
    }

    fn delete(&mut self, flow: &Flow) -> Result<(), NftError> {
        let (request, seq) = self.request(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, |w| put_flow(w, flow));
        match dump(&self.socket, &request, seq, |_| Ok(())) {
            Err(e) if e.is_not_found() => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

fn put_flow(w: &mut Writer, flow: &Flow) {
    let tuple = w.open(CTA_TUPLE_ORIG);
    let ip = w.open(CTA_TUPLE_IP);
    w.put(CTA_IP_V4_SRC, &flow.original.src.octets());
    w.put(CTA_IP_V4_DST, &flow.original.dst.octets());
    w.close(ip);
    let proto = w.open(CTA_TUPLE_PROTO);
    w.put(CTA_PROTO_NUM, &[UDP]);
    w.put(CTA_PROTO_SRC_PORT, &flow.original.sport.to_be_bytes());
    w.put(CTA_PROTO_DST_PORT, &flow.original.dport.to_be_bytes());
    w.close(proto);
    w.close(tuple);
    if flow.zone != 0 {
        w.put(CTA_ZONE, &flow.zone.to_be_bytes());
    }
}

/// The flow a message describes; `None` for other protocols.
pub(crate) fn flow(message: &Message<'_>) -> Result<Option<Flow>, WireError> {
    let attributes = message.attributes()?;
    let Some(original) = tuple(&attributes.find(CTA_TUPLE_ORIG)?)? else { return Ok(None) };
    let Some(reply) = tuple(&attributes.find(CTA_TUPLE_REPLY)?)? else { return Ok(None) };
    let zone = attributes.get(CTA_ZONE)?.map_or(Ok(0), |a| a.be16())?;
    Ok(Some(Flow { original, reply, zone }))
}

fn tuple(attribute: &Attribute<'_>) -> Result<Option<Tuple>, WireError> {
    let nested = attribute.nested();
    let proto = nested.find(CTA_TUPLE_PROTO)?.nested();
    if proto.find(CTA_PROTO_NUM)?.array::<1>()? != [UDP] {
        return Ok(None);
    }
    let ip = nested.find(CTA_TUPLE_IP)?.nested();
    let address = |attributes: &Attributes<'_>, kind: u16| -> Result<Option<Ipv4Addr>, WireError> {
        attributes.get(kind)?.map(|a| a.array::<4>().map(Ipv4Addr::from)).transpose()
    };
    let (Some(src), Some(dst)) = (address(&ip, CTA_IP_V4_SRC)?, address(&ip, CTA_IP_V4_DST)?) else {
        return Ok(None);
    };
    let sport = proto.find(CTA_PROTO_SRC_PORT)?.be16()?;
    let dport = proto.find(CTA_PROTO_DST_PORT)?.be16()?;
    Ok(Some(Tuple { src, dst, sport, dport }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::nft::wire::messages;

    fn encoded() -> Vec<u8> {
        let original = Tuple { src: [10, 0, 0, 1].into(), dst: [10, 43, 0, 10].into(), sport: 4000, dport: 53 };
        let wanted = Flow { original, reply: original, zone: 7 };
        let mut w = Writer::default();
        w.begin(NFNL_SUBSYS_CTNETLINK << 8, 0, 1, NFPROTO_IPV4, 0);
        put_flow(&mut w, &wanted);
        w.end();
        w.into_bytes()
    }

    #[test]
    fn reads_what_it_writes_and_survives_garbage() {
        let bytes = encoded();
        let message = messages(&bytes).next().unwrap().unwrap();
        let original = message.attributes().unwrap().find(CTA_TUPLE_ORIG).unwrap();
        let read = tuple(&original).unwrap().unwrap();
        assert_eq!((read.dst, read.dport), (Ipv4Addr::new(10, 43, 0, 10), 53));
        assert_eq!(flow(&message), Err(WireError::Missing(CTA_TUPLE_REPLY)));
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut broken = bytes.clone();
                broken[at] = value;
                for message in messages(&broken).flatten() {
                    let _ = flow(&message);
                    let _ = message.attributes().and_then(|a| a.find(CTA_TUPLE_ORIG)).and_then(|a| tuple(&a));
                }
            }
        }
    }
}
