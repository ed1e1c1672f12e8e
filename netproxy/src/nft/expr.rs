//! Statements as the kernel's register machine: each becomes a few expressions. Pure bytes.
//!
//! Registers are used as nft uses them (first component in register 1, the next ones in the
//! 32-bit registers from 9 on), so that `nft list` shows rules as they were meant.

use super::object::{Key, Verdict};
use super::statement::{Field, RejectWith, Rule, Side, Statement};
use super::uapi::*;
use super::wire::Writer;
use crate::cidr::Cidr4;

/// Appends a rule's expression list.
pub fn put_expressions(w: &mut Writer, rule: &Rule) {
    let list = w.open(NFTA_RULE_EXPRESSIONS);
    for statement in &rule.0 {
        put_statement(w, statement);
    }
    w.close(list);
}

fn put_statement(w: &mut Writer, statement: &Statement) {
    match statement {
        Statement::CtStateNew => put_ct_bit(w, NFT_CT_STATE, NF_CT_STATE_NEW_BIT),
        Statement::CtStateEstablished => put_ct_bit(w, NFT_CT_STATE, NF_CT_STATE_ESTABLISHED_BITS),
        Statement::CtStatusDnat => put_ct_bit(w, NFT_CT_STATUS, IPS_DST_NAT),
        Statement::L4Proto(protocol) => {
            put_meta_load(w, NFT_META_L4PROTO, NFT_REG_1);
            put_cmp(w, NFT_CMP_EQ, &[protocol.number()]);
        }
        Statement::AddrIn { side, net, negate } => put_addr_in(w, *side, *net, *negate),
        Statement::IifName { name, prefix, negate } => put_iif_name(w, name.as_str(), *prefix, *negate),
        Statement::FibLocal(side) => {
            put_fib_type(w, *side);
            put_cmp(w, NFT_CMP_EQ, &RTN_LOCAL.to_ne_bytes());
        }
        Statement::InSet { key, set } => {
            put_key(w, key);
            put_lookup(w, set.as_str(), None);
        }
        Statement::NumgenInc(of) => {
            put_numgen(w, NFT_NG_INCREMENTAL, *of, NFT_REG_1);
            put_cmp(w, NFT_CMP_EQ, &0u32.to_ne_bytes());
        }
        Statement::MarkIsSet(mask) => {
            put_meta_load(w, NFT_META_MARK, NFT_REG_1);
            put_bitwise(w, &mask.to_ne_bytes(), &[0; 4]);
            put_cmp(w, NFT_CMP_EQ, &mask.to_ne_bytes());
        }
        Statement::SetMark(mask) => put_mark(w, !mask, *mask),
        Statement::ClearMark(mask) => put_mark(w, !mask, 0),
        Statement::UpdateSaddr { set, timeout } => put_update_saddr(w, set.as_str(), *timeout),
        Statement::DnatMap { key, map } => {
            put_key(w, key);
            put_lookup(w, map.as_str(), Some(NFT_REG_1));
            put_dnat(w, NFT_REG32_00 + 1, 0);
        }
        Statement::Dnat { addr, port } => {
            put_immediate(w, NFT_REG_1, &addr.octets());
            put_immediate(w, NFT_REG_2, &port.to_be_bytes());
            put_dnat(w, NFT_REG_2, NF_NAT_RANGE_PROTO_SPECIFIED);
        }
        Statement::Vmap { key, map } => {
            put_key(w, key);
            put_lookup(w, map.as_str(), Some(NFT_REG_VERDICT));
        }
        Statement::Masquerade => expression(w, "masq", |w| {
            w.put_be32(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY);
        }),
        Statement::Reject(with) => put_reject(w, *with),
        Statement::Verdict(verdict) => expression(w, "immediate", |w| {
            w.put_be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            let data = w.open(NFTA_IMMEDIATE_DATA);
            put_verdict(w, verdict);
            w.close(data);
        }),
    }
}

fn expression(w: &mut Writer, name: &str, body: impl FnOnce(&mut Writer)) {
    let element = w.open(NFTA_LIST_ELEM);
    w.put_str(NFTA_EXPR_NAME, name);
    let data = w.open(NFTA_EXPR_DATA);
    body(w);
    w.close(data);
    w.close(element);
}

fn put_value(w: &mut Writer, kind: u16, bytes: &[u8]) {
    let data = w.open(kind);
    w.put(NFTA_DATA_VALUE, bytes);
    w.close(data);
}

/// Appends a verdict (inside an attribute that holds data).
pub fn put_verdict(w: &mut Writer, verdict: &Verdict) {
    let code = match verdict {
        Verdict::Accept => NF_ACCEPT,
        Verdict::Drop => NF_DROP,
        Verdict::Return => NFT_RETURN,
        Verdict::Jump(_) => NFT_JUMP,
        Verdict::Goto(_) => NFT_GOTO,
    };
    let nest = w.open(NFTA_DATA_VERDICT);
    w.put_be32(NFTA_VERDICT_CODE, code.cast_unsigned());
    if let Some(chain) = verdict.chain() {
        w.put_str(NFTA_VERDICT_CHAIN, chain.as_str());
    }
    w.close(nest);
}

/// Appends a value of a map element (inside an attribute that holds data).
pub fn put_data(w: &mut Writer, data: &Key) {
    w.put(NFTA_DATA_VALUE, data.as_bytes());
}

fn put_key(w: &mut Writer, key: &[Field]) {
    for (index, field) in (0u32..).zip(key) {
        let register = if index == 0 { NFT_REG_1 } else { NFT_REG32_00 + index };
        match field {
            Field::Saddr => put_payload(w, NFT_PAYLOAD_NETWORK_HEADER, 12, 4, register),
            Field::Daddr => put_payload(w, NFT_PAYLOAD_NETWORK_HEADER, 16, 4, register),
            Field::Dport => put_payload(w, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register),
            Field::L4Proto => put_meta_load(w, NFT_META_L4PROTO, register),
            Field::NumgenInc(of) => put_numgen(w, NFT_NG_INCREMENTAL, *of, register),
            Field::NumgenRandom(of) => put_numgen(w, NFT_NG_RANDOM, *of, register),
        }
    }
}

fn put_payload(w: &mut Writer, base: u32, offset: u32, length: u32, register: u32) {
    expression(w, "payload", |w| {
        w.put_be32(NFTA_PAYLOAD_DREG, register);
        w.put_be32(NFTA_PAYLOAD_BASE, base);
        w.put_be32(NFTA_PAYLOAD_OFFSET, offset);
        w.put_be32(NFTA_PAYLOAD_LEN, length);
    });
}

fn put_meta_load(w: &mut Writer, key: u32, register: u32) {
    expression(w, "meta", |w| {
        w.put_be32(NFTA_META_KEY, key);
        w.put_be32(NFTA_META_DREG, register);
    });
}

fn put_cmp(w: &mut Writer, op: u32, bytes: &[u8]) {
    expression(w, "cmp", |w| {
        w.put_be32(NFTA_CMP_SREG, NFT_REG_1);
        w.put_be32(NFTA_CMP_OP, op);
        put_value(w, NFTA_CMP_DATA, bytes);
    });
}

fn put_bitwise(w: &mut Writer, mask: &[u8; 4], xor: &[u8; 4]) {
    expression(w, "bitwise", |w| {
        w.put_be32(NFTA_BITWISE_SREG, NFT_REG_1);
        w.put_be32(NFTA_BITWISE_DREG, NFT_REG_1);
        w.put_be32(NFTA_BITWISE_LEN, 4);
        put_value(w, NFTA_BITWISE_MASK, mask);
        put_value(w, NFTA_BITWISE_XOR, xor);
    });
}

fn put_mark(w: &mut Writer, mask: u32, xor: u32) {
    put_meta_load(w, NFT_META_MARK, NFT_REG_1);
    put_bitwise(w, &mask.to_ne_bytes(), &xor.to_ne_bytes());
    expression(w, "meta", |w| {
        w.put_be32(NFTA_META_KEY, NFT_META_MARK);
        w.put_be32(NFTA_META_SREG, NFT_REG_1);
    });
}

fn put_ct_bit(w: &mut Writer, key: u32, bit: u32) {
    expression(w, "ct", |w| {
        w.put_be32(NFTA_CT_KEY, key);
        w.put_be32(NFTA_CT_DREG, NFT_REG_1);
    });
    put_bitwise(w, &bit.to_ne_bytes(), &[0; 4]);
    put_cmp(w, NFT_CMP_NEQ, &[0; 4]);
}

/// A prefix match: whole bytes are compared directly, others through a mask, as nft does.
fn put_addr_in(w: &mut Writer, side: Side, net: Cidr4, negate: bool) {
    let offset = match side {
        Side::Saddr => 12,
        Side::Daddr => 16,
    };
    let op = if negate { NFT_CMP_NEQ } else { NFT_CMP_EQ };
    let bytes = net.addr().octets();
    let whole = usize::from(net.prefix_len() / 8);
    if net.prefix_len() > 0 && net.prefix_len().is_multiple_of(8) {
        put_payload(w, NFT_PAYLOAD_NETWORK_HEADER, offset, u32::from(net.prefix_len() / 8), NFT_REG_1);
        put_cmp(w, op, &bytes[..whole]);
    } else {
        put_payload(w, NFT_PAYLOAD_NETWORK_HEADER, offset, 4, NFT_REG_1);
        put_bitwise(w, &net.mask().octets(), &[0; 4]);
        put_cmp(w, op, &bytes);
    }
}

/// A whole name is compared with its padding, the beginning of one without.
fn put_iif_name(w: &mut Writer, name: &str, prefix: bool, negate: bool) {
    let mut padded = [0; IFNAMSIZ];
    let length = name.len().min(IFNAMSIZ - 1);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    put_meta_load(w, NFT_META_IIFNAME, NFT_REG_1);
    let op = if negate { NFT_CMP_NEQ } else { NFT_CMP_EQ };
    put_cmp(w, op, if prefix { &padded[..length] } else { &padded });
}

fn put_fib_type(w: &mut Writer, side: Side) {
    let flags = match side {
        Side::Saddr => NFTA_FIB_F_SADDR,
        Side::Daddr => NFTA_FIB_F_DADDR,
    };
    expression(w, "fib", |w| {
        w.put_be32(NFTA_FIB_FLAGS, flags);
        w.put_be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
        w.put_be32(NFTA_FIB_DREG, NFT_REG_1);
    });
}

fn put_lookup(w: &mut Writer, set: &str, dreg: Option<u32>) {
    expression(w, "lookup", |w| {
        w.put_be32(NFTA_LOOKUP_SREG, NFT_REG_1);
        if let Some(dreg) = dreg {
            w.put_be32(NFTA_LOOKUP_DREG, dreg);
        }
        w.put_str(NFTA_LOOKUP_SET, set);
    });
}

fn put_numgen(w: &mut Writer, kind: u32, modulus: u32, register: u32) {
    expression(w, "numgen", |w| {
        w.put_be32(NFTA_NG_DREG, register);
        w.put_be32(NFTA_NG_MODULUS, modulus.max(1));
        w.put_be32(NFTA_NG_TYPE, kind);
        w.put_be32(NFTA_NG_OFFSET, 0);
    });
}

fn put_immediate(w: &mut Writer, register: u32, bytes: &[u8]) {
    expression(w, "immediate", |w| {
        w.put_be32(NFTA_IMMEDIATE_DREG, register);
        put_value(w, NFTA_IMMEDIATE_DATA, bytes);
    });
}

fn put_dnat(w: &mut Writer, port_register: u32, flags: u32) {
    expression(w, "nat", |w| {
        w.put_be32(NFTA_NAT_TYPE, NFT_NAT_DNAT);
        w.put_be32(NFTA_NAT_FAMILY, u32::from(NFPROTO_IPV4));
        w.put_be32(NFTA_NAT_REG_ADDR_MIN, NFT_REG_1);
        w.put_be32(NFTA_NAT_REG_PROTO_MIN, port_register);
        if flags != 0 {
            w.put_be32(NFTA_NAT_FLAGS, flags);
        }
    });
}

fn put_update_saddr(w: &mut Writer, set: &str, timeout: u32) {
    put_key(w, &[Field::Saddr]);
    expression(w, "dynset", |w| {
        w.put_be32(NFTA_DYNSET_SREG_KEY, NFT_REG_1);
        w.put_be32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
        w.put(NFTA_DYNSET_TIMEOUT, &(u64::from(timeout) * 1000).to_be_bytes());
        w.put_str(NFTA_DYNSET_SET_NAME, set);
    });
}

fn put_reject(w: &mut Writer, with: RejectWith) {
    let (kind, code) = match with {
        RejectWith::TcpReset => (NFT_REJECT_TCP_RST, 0),
        RejectWith::PortUnreachable => (NFT_REJECT_ICMP_UNREACH, ICMP_PORT_UNREACH),
    };
    expression(w, "reject", |w| {
        w.put_be32(NFTA_REJECT_TYPE, kind);
        w.put(NFTA_REJECT_ICMP_CODE, &[code]);
    });
}
