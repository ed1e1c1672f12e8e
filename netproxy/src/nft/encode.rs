//! Transactions as one netlink batch. Pure bytes; sending is the backend's.

use super::TableName;
use super::expr::{put_data, put_expressions, put_verdict};
use super::object::{BaseChain, ChainKind, DataType, FieldType, Key, Name, SetShape, SetSpec, Value};
use super::statement::Rule;
use super::transaction::{Op, Transaction};
use super::uapi::*;
use super::userdata;
use super::wire::Writer;

/// Element lists are split below this many bytes: an attribute's length has 16 bits.
const ELEMENTS_PER_MESSAGE: usize = 60_000;

/// An encoded transaction.
#[derive(Debug)]
pub struct Batch {
    /// The bytes to send in one go.
    pub bytes: Vec<u8>,
    /// For each message between begin and end, in order, the op it came from. The message at index
    /// `i` has sequence number `first_seq + 1 + i`.
    pub ops: Vec<usize>,
    /// The sequence number of the begin message.
    pub first_seq: u32,
}

impl Batch {
    /// The op a reply with this sequence number is about; `None` for the batch itself.
    #[must_use]
    pub fn op_of(&self, seq: u32) -> Option<usize> {
        let index = seq.wrapping_sub(self.first_seq).checked_sub(1)?;
        self.ops.get(usize::try_from(index).ok()?).copied()
    }
}

impl FieldType {
    /// nft's data type id and the unpadded length in bytes.
    fn id(self) -> (u32, u32) {
        match self {
            Self::Index => (4, 4),
            Self::Ipv4Addr => (7, 4),
            Self::InetProto => (12, 1),
            Self::InetService => (13, 2),
        }
    }
}

fn type_and_len(fields: &[FieldType]) -> (u32, u32) {
    match fields {
        // A single component is not padded.
        [only] => only.id(),
        _ => fields.iter().fold((0, 0), |(kind, len), field| ((kind << 6) | field.id().0, len + 4)),
    }
}

impl SetSpec {
    /// The declaration as the kernel tells it back.
    #[must_use]
    pub fn shape(&self) -> SetShape {
        let (key_type, key_len) = type_and_len(self.key);
        let (map, data_type, data_len) = match self.data {
            DataType::None => (0, 0, 0),
            DataType::Verdict => (NFT_SET_MAP, NFT_DATA_VERDICT, 0),
            DataType::Fields(fields) => {
                let (kind, len) = type_and_len(fields);
                (NFT_SET_MAP, kind, len)
            }
        };
        let dynamic = if self.dynamic { NFT_SET_TIMEOUT | NFT_SET_EVAL } else { 0 };
        SetShape { flags: map | dynamic, key_type, key_len, data_type, data_len, size: self.size }
    }
}

/// Encodes `tx` for `table`, which bears `mark` as its comment when it is made. With `generation` the kernel refuses
/// the batch when its ruleset changed meanwhile. With `commit` false the batch has no end, so the kernel checks
/// everything and applies nothing.
#[must_use]
pub fn encode(
    (table, mark): (TableName, Option<&str>),
    tx: &Transaction,
    first_seq: u32,
    generation: Option<u32>,
    commit: bool,
) -> Batch {
    let w = Writer::with_capacity(256 + tx.len() * 80);
    let mut encoder = Encoder { table: table.as_str(), mark, w, ops: Vec::new(), seq: first_seq, op: 0 };
    encoder.w.begin(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, first_seq, 0, NFNL_SUBSYS_NFTABLES);
    if let Some(generation) = generation {
        encoder.w.put_be32(NFNL_BATCH_GENID, generation);
    }
    encoder.w.end();
    for (index, op) in tx.ops.iter().enumerate() {
        encoder.op = index;
        encoder.put(op);
    }
    // One acknowledgement, for the last request: every kernel answers it when the batch is done.
    if !encoder.ops.is_empty() {
        encoder.w.add_flags(NLM_F_ACK);
    }
    if commit {
        let seq = encoder.seq.wrapping_add(1);
        encoder.w.begin(NFNL_MSG_BATCH_END, NLM_F_REQUEST, seq, 0, NFNL_SUBSYS_NFTABLES);
        encoder.w.end();
    }
    Batch { bytes: encoder.w.into_bytes(), ops: encoder.ops, first_seq }
}

/// Whether a name fits the kernel's limit.
#[must_use]
pub fn name_fits(name: &Name) -> bool {
    (1..=128).contains(&name.as_str().len())
}

struct Encoder<'a> {
    table: &'static str,
    mark: Option<&'a str>,
    w: Writer,
    ops: Vec<usize>,
    seq: u32,
    op: usize,
}

impl Encoder<'_> {
    fn begin(&mut self, kind: u16, flags: u16) {
        self.seq = self.seq.wrapping_add(1);
        self.ops.push(self.op);
        self.w.begin((NFNL_SUBSYS_NFTABLES << 8) | kind, NLM_F_REQUEST | flags, self.seq, NFPROTO_IPV4, 0);
    }

    fn put(&mut self, op: &Op) {
        match op {
            Op::AddTable => {
                self.begin(NFT_MSG_NEWTABLE, NLM_F_CREATE);
                self.w.put_str(NFTA_TABLE_NAME, self.table);
                self.w.put_be32(NFTA_TABLE_FLAGS, 0);
                if let Some(mark) = self.mark {
                    self.w.put(NFTA_TABLE_USERDATA, &userdata::comment(mark));
                }
            }
            Op::DeleteTable => {
                self.begin(NFT_MSG_DELTABLE, 0);
                self.w.put_str(NFTA_TABLE_NAME, self.table);
            }
            Op::AddSet(spec) => self.put_set(spec),
            Op::DeleteSet(name) => {
                self.begin(NFT_MSG_DELSET, 0);
                self.w.put_str(NFTA_SET_TABLE, self.table);
                self.w.put_str(NFTA_SET_NAME, name.as_str());
            }
            Op::AddChain(name, base) => self.put_chain(name, base.as_ref()),
            Op::FlushChain(name) => {
                self.begin(NFT_MSG_DELRULE, 0);
                self.w.put_str(NFTA_RULE_TABLE, self.table);
                self.w.put_str(NFTA_RULE_CHAIN, name.as_str());
            }
            Op::DeleteChain(name) => {
                self.begin(NFT_MSG_DELCHAIN, 0);
                self.w.put_str(NFTA_CHAIN_TABLE, self.table);
                self.w.put_str(NFTA_CHAIN_NAME, name.as_str());
            }
            Op::AddRule(chain, rule) => self.put_rule(chain, rule),
            Op::AddElements(spec, elements) => {
                return self.put_elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, spec, elements);
            }
            Op::DeleteElements(spec, elements) => {
                return self.put_elements(NFT_MSG_DELSETELEM, 0, spec, elements);
            }
        }
        self.w.end();
    }

    fn put_set(&mut self, spec: &SetSpec) {
        let shape = spec.shape();
        self.begin(NFT_MSG_NEWSET, NLM_F_CREATE);
        self.w.put_str(NFTA_SET_TABLE, self.table);
        self.w.put_str(NFTA_SET_NAME, spec.name.as_str());
        self.w.put_be32(NFTA_SET_FLAGS, shape.flags);
        self.w.put_be32(NFTA_SET_KEY_TYPE, shape.key_type);
        self.w.put_be32(NFTA_SET_KEY_LEN, shape.key_len);
        if shape.flags & NFT_SET_MAP != 0 {
            self.w.put_be32(NFTA_SET_DATA_TYPE, shape.data_type);
            self.w.put_be32(NFTA_SET_DATA_LEN, shape.data_len);
        }
        // Any id that is unique in the batch; sets are referred to by name.
        self.w.put_be32(NFTA_SET_ID, self.seq);
        if shape.size > 0 {
            let desc = self.w.open(NFTA_SET_DESC);
            self.w.put_be32(NFTA_SET_DESC_SIZE, shape.size);
            self.w.close(desc);
        }
        self.w.put(NFTA_SET_USERDATA, &userdata::set(spec));
    }

    fn put_chain(&mut self, name: &Name, base: Option<&BaseChain>) {
        self.begin(NFT_MSG_NEWCHAIN, NLM_F_CREATE);
        self.w.put_str(NFTA_CHAIN_TABLE, self.table);
        self.w.put_str(NFTA_CHAIN_NAME, name.as_str());
        let Some(base) = base else { return };
        let kind = match base.kind {
            ChainKind::Nat => "nat",
            ChainKind::Filter => "filter",
        };
        self.w.put_str(NFTA_CHAIN_TYPE, kind);
        self.w.put_be32(NFTA_CHAIN_POLICY, NF_ACCEPT.cast_unsigned());
        let hook = self.w.open(NFTA_CHAIN_HOOK);
        self.w.put_be32(NFTA_HOOK_HOOKNUM, base.hook as u32);
        self.w.put_be32(NFTA_HOOK_PRIORITY, base.priority.cast_unsigned());
        self.w.close(hook);
    }

    fn put_rule(&mut self, chain: &Name, rule: &Rule) {
        self.begin(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
        self.w.put_str(NFTA_RULE_TABLE, self.table);
        self.w.put_str(NFTA_RULE_CHAIN, chain.as_str());
        put_expressions(&mut self.w, rule);
        self.w.put(NFTA_RULE_USERDATA, &userdata::comment(&rule.comment()));
    }

    fn put_elements(&mut self, kind: u16, flags: u16, spec: &SetSpec, elements: &[(Key, Value)]) {
        let mut rest = elements;
        while !rest.is_empty() {
            self.begin(kind, flags);
            self.w.put_str(NFTA_SET_ELEM_LIST_TABLE, self.table);
            self.w.put_str(NFTA_SET_ELEM_LIST_SET, spec.name.as_str());
            let list = self.w.open(NFTA_SET_ELEM_LIST_ELEMENTS);
            while let [(key, value), tail @ ..] = rest {
                if self.w.len_since(list) > ELEMENTS_PER_MESSAGE {
                    break;
                }
                self.put_element(spec, key, value, kind == NFT_MSG_NEWSETELEM);
                rest = tail;
            }
            self.w.close(list);
            self.w.end();
        }
    }

    fn put_element(&mut self, spec: &SetSpec, key: &Key, value: &Value, with_value: bool) {
        let element = self.w.open(NFTA_LIST_ELEM);
        let nest = self.w.open(NFTA_SET_ELEM_KEY);
        let (_, key_len) = type_and_len(spec.key);
        let length = usize::try_from(key_len).unwrap_or(0).min(key.as_bytes().len());
        self.w.put(NFTA_DATA_VALUE, &key.as_bytes()[..length]);
        self.w.close(nest);
        if with_value && *value != Value::None {
            let nest = self.w.open(NFTA_SET_ELEM_DATA);
            match value {
                Value::Data(data) => put_data(&mut self.w, data),
                Value::Verdict(verdict) => put_verdict(&mut self.w, verdict),
                Value::None => {}
            }
            self.w.close(nest);
        }
        self.w.close(element);
    }
}
