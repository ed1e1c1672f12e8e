//! The algebra of differences, the encodings, and what happens to garbage.
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::sync::Arc;

use proptest::prelude::*;

use super::apply::{ApplyError, apply};
use super::decode;
use super::diff::diff;
use super::encode::encode;
use super::object::*;
use super::render::transaction_text;
use super::statement::{Field, Rule, Side, Statement, tag_of_comment};
use super::transaction::{Op, Transaction};
use super::uapi::*;
use super::userdata;
use super::wire::{WireError, Writer, messages};
use super::{TABLE, TableName};

const OTHER: TableName = TableName::new("other");

fn vmap(name: &str) -> Arc<SetSpec> {
    Arc::new(SetSpec {
        name: name.into(),
        key: &[FieldType::Ipv4Addr],
        data: DataType::Verdict,
        dynamic: false,
        size: 0,
    })
}

fn rule(seed: u8, set: Option<&str>) -> Rule {
    let net = crate::cidr::Cidr4::host(Ipv4Addr::new(10, 0, 0, seed));
    let mut statements = vec![Statement::AddrIn { side: Side::Saddr, net, negate: false }];
    match set {
        Some(map) => statements.push(Statement::Vmap { key: vec![Field::Daddr], map: map.into() }),
        None => statements.push(Statement::Verdict(Verdict::Drop)),
    }
    Rule(statements)
}

/// Tables whose references are valid: rules use sets that are there, elements chains that are there.
fn any_table() -> impl Strategy<Value = Table> {
    let chains = proptest::collection::btree_map(0u8..6, proptest::collection::vec(any::<(u8, u8)>(), 0..4), 1..6);
    let sets =
        proptest::collection::btree_map(0u8..4, proptest::collection::btree_map(0u8..8, any::<u8>(), 0..8), 0..4);
    (chains, sets).prop_map(|(chains, sets)| {
        let mut table = Table::default();
        let names: Vec<Name> = chains.keys().map(|c| format!("chain-{c}").into()).collect();
        for (set, elements) in &sets {
            let declared = table.declare(&vmap(&format!("set-{set}")));
            for (key, target) in elements {
                let chain = &names[usize::from(*target) % names.len()];
                let key = Key::new().addr(Ipv4Addr::new(10, 1, 1, *key));
                declared.elements.insert(key, Value::Verdict(Verdict::Goto(chain.clone())));
            }
        }
        let set_names: Vec<Name> = table.sets.keys().cloned().collect();
        for ((number, rules), name) in chains.iter().zip(&names) {
            let used = |pick: u8| (!set_names.is_empty()).then(|| &set_names[usize::from(pick) % set_names.len()]);
            let rules = rules.iter().map(|(seed, pick)| rule(*seed, used(*pick).map(Name::as_str))).collect();
            let hook = BaseChain { kind: ChainKind::Filter, hook: Hook::Input, priority: 0 };
            let base = (*number == 0).then_some(hook);
            table.chains.insert(name.clone(), Chain { base, rules });
        }
        table
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn applying_the_difference_gives_the_other(a in any_table(), b in any_table()) {
        let tx = diff(Some(&a.observe()), &b);
        let mut table = Some(a);
        apply(&mut table, &tx).unwrap();
        apply(&mut table, &Transaction::delete_chains(&tx.stale_chains)).unwrap();
        prop_assert_eq!(table.as_ref(), Some(&b));
        prop_assert!(diff(Some(&b.observe()), &b).is_empty());
        let mut fresh = None;
        apply(&mut fresh, &diff(None, &b)).unwrap();
        prop_assert_eq!(fresh, Some(b));
    }

    #[test]
    fn datagrams_of_any_bytes_are_errors_not_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_everything(&bytes);
    }

    #[test]
    fn bent_datagrams_are_errors_not_panics(a in any_table(), at in any::<usize>(), value in any::<u8>()) {
        let mut bytes = encode((TABLE, None), &diff(None, &a), 1, Some(7), true).bytes;
        let at = at % bytes.len();
        bytes[at] = value;
        read_everything(&bytes);
    }
}

fn read_everything(bytes: &[u8]) {
    for message in messages(bytes).flatten() {
        let _ = decode::chain(TABLE, &message);
        let _ = decode::rule(TABLE, &message);
        let _ = decode::set(TABLE, &message);
        let _ = decode::elements(&message);
        let _ = decode::generation(&message);
        let _ = message.error_code();
    }
    let _ = userdata::comment_of(bytes);
}

#[test]
fn what_is_encoded_is_decoded() {
    let spec = vmap("map");
    let key = Key::new().addr(Ipv4Addr::LOCALHOST);
    let value = Value::Verdict(Verdict::Jump("target".into()));
    let base = BaseChain { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: -7 };
    let ops = vec![
        Op::AddSet(Arc::clone(&spec)),
        Op::AddChain("target".into(), Some(base)),
        Op::AddRule("target".into(), rule(1, None)),
        Op::AddElements(spec.clone(), vec![(key, value.clone())]),
    ];
    let batch = encode((TABLE, None), &Transaction { ops, stale_chains: Vec::new() }, 100, None, true);
    let all: Vec<_> = messages(&batch.bytes).map(Result::unwrap).collect();
    assert_eq!(all.len(), 6, "begin, four requests, end");
    let (name, set) = decode::set(TABLE, &all[1]).unwrap().unwrap();
    assert_eq!((name.as_str(), set.shape), ("map", spec.shape()));
    assert_eq!(decode::set(OTHER, &all[1]).unwrap(), None);
    assert_eq!(decode::chain(OTHER, &all[2]).unwrap(), None);
    assert_eq!(decode::rule(OTHER, &all[3]).unwrap(), None);
    assert_eq!(decode::chain(TABLE, &all[2]).unwrap().unwrap(), ("target".into(), Some(base)));
    assert_eq!(decode::rule(TABLE, &all[3]).unwrap().unwrap(), ("target".into(), rule(1, None).tag()));
    assert_eq!(decode::elements(&all[4]).unwrap(), [(key, value)]);
    assert_eq!(all[4].flags & NLM_F_ACK, NLM_F_ACK, "the last request is acknowledged");
    assert_eq!(
        all.iter().map(|m| batch.op_of(m.seq)).collect::<Vec<_>>(),
        [None, Some(0), Some(1), Some(2), Some(3), None]
    );
    let unfinished = encode((TABLE, None), &Transaction::delete_table(), 1, None, false);
    assert!(messages(&unfinished.bytes).all(|m| m.unwrap().kind != NFNL_MSG_BATCH_END));
}

#[test]
fn large_element_lists_are_split() {
    let spec = vmap("map");
    let addr = |n: u32| Key::new().addr(Ipv4Addr::from_bits(n));
    let elements: Vec<_> = (0..10_000).map(|n| (addr(n), Value::Verdict(Verdict::Goto("somewhere".into())))).collect();
    let tx = Transaction { ops: vec![Op::AddElements(spec, elements.clone())], stale_chains: Vec::new() };
    let batch = encode((TABLE, None), &tx, 1, None, true);
    let mut read = Vec::new();
    for message in messages(&batch.bytes).map(Result::unwrap) {
        if message.kind == (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWSETELEM {
            assert!(message.payload.len() < 65_536);
            assert_eq!(batch.op_of(message.seq), Some(0));
            read.extend(decode::elements(&message).unwrap());
        }
    }
    assert_eq!(read, elements);
}

#[test]
fn another_declaration_replaces_the_table() {
    let mut old = Table::default();
    old.declare(&vmap("set"));
    let mut new = Table::default();
    new.declare(&Arc::new(SetSpec { data: DataType::None, ..(*vmap("set")).clone() }));
    let tx = diff(Some(&old.observe()), &new);
    assert_eq!(tx.ops[..2], [Op::DeleteTable, Op::AddTable]);
    let mut table = Some(old);
    apply(&mut table, &tx).unwrap();
    assert_eq!(table, Some(new));
}

#[test]
fn a_rule_that_is_not_ours_makes_its_chain_be_refilled() {
    let mut table = Table::default();
    table.chains.insert("c".into(), Chain { base: None, rules: vec![rule(1, None)] });
    let mut observed = table.observe();
    observed.chains.get_mut("c").unwrap().1.push(0);
    let tx = diff(Some(&observed), &table);
    assert_eq!(tx.ops, [Op::FlushChain("c".into()), Op::AddRule("c".into(), rule(1, None))]);
    assert_eq!(tag_of_comment(&rule(1, None).comment()), rule(1, None).tag());
    for foreign in ["", "v1:", "v1:xyz", "hello", "v1:00000000000000000000000000001"] {
        assert!(tag_of_comment(foreign) <= 1, "{foreign}");
    }
}

#[test]
fn the_fake_refuses_what_the_kernel_refuses() {
    let spec = vmap("set");
    let element = vec![(Key::new().addr(Ipv4Addr::LOCALHOST), Value::Verdict(Verdict::Goto("c".into())))];
    let check = |ops: Vec<Op>, expect: fn(&ApplyError) -> bool| {
        let mut table = Some(Table::default());
        let error = apply(&mut table, &Transaction { ops, stale_chains: Vec::new() }).unwrap_err();
        assert!(expect(&error), "{error}");
    };
    let add_set = || Op::AddSet(Arc::clone(&spec));
    let add_chain = || Op::AddChain("c".into(), None);
    let add = || Op::AddElements(Arc::clone(&spec), element.clone());
    check(vec![add_set(), add()], |e| matches!(e, ApplyError::NotFound(_)));
    check(vec![add_chain(), add_set(), add(), add()], |e| matches!(e, ApplyError::Exists(_)));
    check(vec![add_chain(), add_set(), add(), Op::DeleteChain("c".into())], |e| matches!(e, ApplyError::Busy(_)));
    check(vec![add_chain(), Op::AddRule("c".into(), rule(1, Some("set")))], |e| matches!(e, ApplyError::NotFound(_)));
    let used = vec![add_set(), add_chain(), Op::AddRule("c".into(), rule(1, Some("set"))), Op::DeleteSet("set".into())];
    check(used, |e| matches!(e, ApplyError::Busy(_)));
}

#[test]
fn text_is_what_nft_reads() {
    let spec = Arc::new(SetSpec {
        name: "endpoints".into(),
        key: &[FieldType::Ipv4Addr, FieldType::InetProto, FieldType::InetService, FieldType::Index],
        data: DataType::Fields(&[FieldType::Ipv4Addr, FieldType::InetService]),
        dynamic: false,
        size: 0,
    });
    let key = Key::new().addr(Ipv4Addr::new(10, 43, 0, 1)).proto(Protocol::Udp).port(53).index(2);
    let value = Value::Data(Key::new().addr(Ipv4Addr::new(10, 42, 0, 1)).port(5353));
    let ops = vec![
        Op::AddTable,
        Op::AddSet(Arc::clone(&spec)),
        Op::AddElements(Arc::clone(&spec), vec![(key, value.clone())]),
        Op::DeleteElements(spec, vec![(key, value)]),
        Op::AddChain("c".into(), Some(BaseChain { kind: ChainKind::Nat, hook: Hook::Output, priority: -100 })),
    ];
    let text = transaction_text(OTHER, &Transaction { ops, stale_chains: Vec::new() });
    assert_eq!(
        text,
        "add table ip other\n\
         add map ip other endpoints { typeof ip daddr . meta l4proto . th dport . numgen inc mod 2 : ip daddr . th dport; }\n\
         add element ip other endpoints { 10.43.0.1 . udp . 53 . 2 : 10.42.0.1 . 5353 }\n\
         delete element ip other endpoints { 10.43.0.1 . udp . 53 . 2 }\n\
         add chain ip other c { type nat hook output priority -100; policy accept; }\n"
    );
}

#[test]
fn cut_messages_are_errors() {
    let mut w = Writer::default();
    w.begin(NLMSG_ERROR, 0, 1, 0, 0);
    w.end();
    let bytes = w.into_bytes();
    let message = messages(&bytes).next().unwrap().unwrap();
    assert!(matches!(message.error_code(), Err(WireError::Length { .. })));
    assert!(matches!(messages(&bytes[..10]).next(), Some(Err(WireError::Length { .. }))));
    assert_eq!(Key::from_bytes(&[0; 17]), None);
    assert_eq!(Key::from_bytes(&[1, 2]).unwrap().as_bytes(), [1, 2, 0, 0], "padded as in a register");
}
