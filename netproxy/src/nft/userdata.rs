//! What nft itself keeps in the kernel's user-data fields, so that `nft list ruleset` reads our
//! objects back: a table's or rule's comment, a set's byte orders and `typeof` expressions. Pure.
//!
//! The format is libnftnl's: type byte, length byte, value; numbers in host order.

use super::object::{DataType, FieldType, SetSpec};

/// The same for tables and rules.
const COMMENT: u8 = 0;
const SET_KEY_BYTE_ORDER: u8 = 0;
const SET_DATA_BYTE_ORDER: u8 = 1;
const SET_MERGE_ELEMENTS: u8 = 2;
const SET_KEY_TYPEOF: u8 = 3;
const SET_DATA_TYPEOF: u8 = 4;
const TYPEOF_EXPR: u8 = 0;
const TYPEOF_DATA: u8 = 1;

const BYTE_ORDER_INVALID: u32 = 0;
const BYTE_ORDER_BIG_ENDIAN: u32 = 2;

const EXPR_PAYLOAD: u32 = 7;
const EXPR_META: u32 = 9;
const EXPR_CONCAT: u32 = 13;
const EXPR_NUMGEN: u32 = 23;
const DESC_TH: u32 = 11;
const DESC_IP: u32 = 12;
const FIELD_IP_DADDR: u32 = 12;
const FIELD_TH_DPORT: u32 = 2;
const META_L4PROTO: u32 = 16;

fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u8::try_from(value.len()).expect("all values here are short");
    out.extend_from_slice(&[kind, length]);
    out.extend_from_slice(value);
}

fn put_u32(out: &mut Vec<u8>, kind: u8, value: u32) {
    put(out, kind, &value.to_ne_bytes());
}

/// A table's or rule's user data holding a comment.
#[must_use]
pub fn comment(comment: &str) -> Vec<u8> {
    let mut text = comment.as_bytes().to_vec();
    text.push(0);
    let mut out = Vec::with_capacity(text.len() + 2);
    put(&mut out, COMMENT, &text);
    out
}

/// The comment in a table's or rule's user data.
#[must_use]
pub fn comment_of(mut userdata: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok();
        }
        userdata = &rest[usize::from(*length)..];
    }
    None
}

/// A set's user data as nft writes it.
#[must_use]
pub fn set(spec: &SetSpec) -> Vec<u8> {
    let mut out = Vec::new();
    put_u32(&mut out, SET_KEY_BYTE_ORDER, byte_order(spec.key));
    if spec.data != DataType::None {
        let order = match spec.data {
            DataType::Fields(fields) => byte_order(fields),
            DataType::Verdict | DataType::None => BYTE_ORDER_INVALID,
        };
        put_u32(&mut out, SET_DATA_BYTE_ORDER, order);
    }
    if spec.key.contains(&FieldType::Index) {
        put(&mut out, SET_KEY_TYPEOF, &typeof_concat(spec.key));
        if let DataType::Fields(fields) = spec.data {
            put(&mut out, SET_DATA_TYPEOF, &typeof_concat(fields));
        }
    }
    put_u32(&mut out, SET_MERGE_ELEMENTS, 0);
    out
}

fn byte_order(fields: &[FieldType]) -> u32 {
    match fields {
        [FieldType::Ipv4Addr | FieldType::InetService] => BYTE_ORDER_BIG_ENDIAN,
        _ => BYTE_ORDER_INVALID,
    }
}

fn typeof_concat(fields: &[FieldType]) -> Vec<u8> {
    let mut parts = Vec::new();
    for (index, field) in (0u8..).zip(fields) {
        put(&mut parts, index, &typeof_field(*field));
    }
    let mut out = Vec::new();
    put_u32(&mut out, TYPEOF_EXPR, EXPR_CONCAT);
    put(&mut out, TYPEOF_DATA, &parts);
    out
}

fn typeof_field(field: FieldType) -> Vec<u8> {
    let (expr, parts): (u32, &[u32]) = match field {
        FieldType::Ipv4Addr => (EXPR_PAYLOAD, &[DESC_IP, FIELD_IP_DADDR]),
        FieldType::InetService => (EXPR_PAYLOAD, &[DESC_TH, FIELD_TH_DPORT]),
        FieldType::InetProto => (EXPR_META, &[META_L4PROTO]),
        // mode "inc", modulus 2, offset 0: only the type counts.
        FieldType::Index => (EXPR_NUMGEN, &[0, 2, 0]),
    };
    let mut data = Vec::new();
    for (index, part) in (0u8..).zip(parts) {
        put_u32(&mut data, index, *part);
    }
    let mut out = Vec::new();
    put_u32(&mut out, TYPEOF_EXPR, expr);
    put(&mut out, TYPEOF_DATA, &data);
    out
}
