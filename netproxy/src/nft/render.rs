//! nft's text syntax for transactions and tables. Pure. Used in errors, in golden tests and by the backend
//! that runs the `nft` program, for tests.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::TableName;
use super::object::{BaseChain, ChainKind, DataType, FieldType, Hook, Key, Protocol, SetSpec, Table, Value, Verdict};
use super::statement::{Field, RejectWith, Rule, Side, Statement};
use super::transaction::{Op, Transaction};

/// A transaction on `table` as input of `nft -f`.
#[must_use]
pub fn transaction_text(table: TableName, tx: &Transaction) -> String {
    let mut out = String::new();
    for op in &tx.ops {
        op_text(table, op, &mut out);
        out.push('\n');
    }
    out
}

fn op_text(table: TableName, op: &Op, out: &mut String) {
    let written = match op {
        Op::AddTable => write!(out, "add table ip {table}"),
        Op::DeleteTable => write!(out, "delete table ip {table}"),
        Op::AddSet(spec) => write!(out, "add {} ip {table} {} {{ {} }}", set_keyword(spec), spec.name, spec_text(spec)),
        Op::DeleteSet(name) => write!(out, "delete set ip {table} {name}"),
        Op::AddChain(name, None) => write!(out, "add chain ip {table} {name}"),
        Op::AddChain(name, Some(base)) => write!(out, "add chain ip {table} {name} {{ {} }}", base_text(base)),
        Op::FlushChain(name) => write!(out, "flush chain ip {table} {name}"),
        Op::DeleteChain(name) => write!(out, "delete chain ip {table} {name}"),
        Op::AddRule(chain, rule) => {
            write!(out, "add rule ip {table} {chain} {} comment \"{}\"", rule_text(rule), rule.comment())
        }
        Op::AddElements(spec, elements) => {
            write!(out, "add element ip {table} {} {{ {} }}", spec.name, elements_text(spec, elements, true))
        }
        Op::DeleteElements(spec, elements) => {
            write!(out, "delete element ip {table} {} {{ {} }}", spec.name, elements_text(spec, elements, false))
        }
    };
    written.expect("writing to a String cannot fail");
}

fn set_keyword(spec: &SetSpec) -> &'static str {
    if spec.data == DataType::None { "set" } else { "map" }
}

/// A declaration's body. Keys with an index need `typeof`: `numgen` has no type name of its own.
fn spec_text(spec: &SetSpec) -> String {
    let typed = spec.key.contains(&FieldType::Index);
    let join = |fields: &[FieldType]| {
        fields.iter().map(|f| if typed { type_expression(*f) } else { type_name(*f) }).collect::<Vec<_>>().join(" . ")
    };
    let mut out = format!("{} {}", if typed { "typeof" } else { "type" }, join(spec.key));
    match spec.data {
        DataType::None => {}
        DataType::Verdict => out.push_str(" : verdict"),
        DataType::Fields(fields) => {
            out.push_str(" : ");
            out.push_str(&join(fields));
        }
    }
    out.push(';');
    if spec.dynamic {
        out.push_str(" flags dynamic,timeout;");
    }
    if spec.size > 0 {
        out.push_str(&format!(" size {};", spec.size));
    }
    out
}

fn type_name(field: FieldType) -> &'static str {
    match field {
        FieldType::Ipv4Addr => "ipv4_addr",
        FieldType::InetProto => "inet_proto",
        FieldType::InetService => "inet_service",
        FieldType::Index => "mark",
    }
}

fn type_expression(field: FieldType) -> &'static str {
    match field {
        FieldType::Ipv4Addr => "ip daddr",
        FieldType::InetProto => "meta l4proto",
        FieldType::InetService => "th dport",
        FieldType::Index => "numgen inc mod 2",
    }
}

fn base_text(base: &BaseChain) -> String {
    let kind = match base.kind {
        ChainKind::Nat => "nat",
        ChainKind::Filter => "filter",
    };
    let hook = match base.hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    };
    format!("type {kind} hook {hook} priority {}; policy accept;", base.priority)
}

fn elements_text(spec: &SetSpec, elements: &[(Key, Value)], values: bool) -> String {
    let mut out = String::new();
    for (key, value) in elements {
        if !out.is_empty() {
            out.push_str(", ");
        }
        components_text(spec.key, key, &mut out);
        // Deleting needs the key alone.
        match value {
            Value::Data(data) if values => {
                out.push_str(" : ");
                if let DataType::Fields(fields) = spec.data {
                    components_text(fields, data, &mut out);
                }
            }
            Value::Verdict(verdict) if values => {
                out.push_str(" : ");
                verdict_text(verdict, &mut out);
            }
            Value::None | Value::Data(_) | Value::Verdict(_) => {}
        }
    }
    out
}

fn components_text(types: &[FieldType], key: &Key, out: &mut String) {
    for (index, field) in types.iter().enumerate() {
        if index > 0 {
            out.push_str(" . ");
        }
        let word = key.component(index).unwrap_or_default();
        let written = match field {
            FieldType::Ipv4Addr => write!(out, "{}", Ipv4Addr::from(word)),
            FieldType::InetProto => match Protocol::from_number(word[0]) {
                Some(protocol) => write!(out, "{}", protocol.as_str()),
                None => write!(out, "{}", word[0]),
            },
            FieldType::InetService => write!(out, "{}", u16::from_be_bytes([word[0], word[1]])),
            FieldType::Index => write!(out, "{}", u32::from_ne_bytes(word)),
        };
        written.expect("writing to a String cannot fail");
    }
}

fn verdict_text(verdict: &Verdict, out: &mut String) {
    match verdict {
        Verdict::Accept => out.push_str("accept"),
        Verdict::Drop => out.push_str("drop"),
        Verdict::Return => out.push_str("return"),
        Verdict::Jump(chain) => {
            out.push_str("jump ");
            out.push_str(chain.as_str());
        }
        Verdict::Goto(chain) => {
            out.push_str("goto ");
            out.push_str(chain.as_str());
        }
    }
}

/// A rule without its comment.
#[must_use]
pub fn rule_text(rule: &Rule) -> String {
    let mut out = String::new();
    for statement in &rule.0 {
        if !out.is_empty() {
            out.push(' ');
        }
        statement_text(statement, &mut out);
    }
    out
}

fn side_text(side: Side) -> &'static str {
    match side {
        Side::Saddr => "saddr",
        Side::Daddr => "daddr",
    }
}

fn key_text(key: &[Field]) -> String {
    let parts = key.iter().map(|field| match field {
        Field::Saddr => "ip saddr".to_owned(),
        Field::Daddr => "ip daddr".to_owned(),
        Field::L4Proto => "meta l4proto".to_owned(),
        Field::Dport => "th dport".to_owned(),
        Field::NumgenInc(of) => format!("numgen inc mod {of}"),
        Field::NumgenRandom(of) => format!("numgen random mod {of}"),
    });
    parts.collect::<Vec<_>>().join(" . ")
}

/// Appends one statement.
pub fn statement_text(statement: &Statement, out: &mut String) {
    let written = match statement {
        Statement::CtStateNew => write!(out, "ct state new"),
        Statement::CtStateEstablished => write!(out, "ct state established,related"),
        Statement::CtStatusDnat => write!(out, "ct status dnat"),
        Statement::L4Proto(protocol) => write!(out, "meta l4proto {}", protocol.as_str()),
        Statement::AddrIn { side, net, negate } => {
            write!(out, "ip {} {}{net}", side_text(*side), if *negate { "!= " } else { "" })
        }
        Statement::IifName { name, prefix, negate } => {
            let (not, any) = (if *negate { "!= " } else { "" }, if *prefix { "*" } else { "" });
            write!(out, "iifname {not}\"{name}{any}\"")
        }
        Statement::FibLocal(side) => write!(out, "fib {} type local", side_text(*side)),
        Statement::InSet { key, set } => write!(out, "{} @{set}", key_text(key)),
        Statement::NumgenInc(of) => write!(out, "numgen inc mod {of} 0"),
        Statement::MarkIsSet(mask) => write!(out, "meta mark & {mask:#x} == {mask:#x}"),
        Statement::SetMark(mask) => write!(out, "meta mark set meta mark | {mask:#x}"),
        Statement::ClearMark(mask) => write!(out, "meta mark set meta mark & {:#x}", !mask),
        Statement::UpdateSaddr { set, timeout } => write!(out, "update @{set} {{ ip saddr timeout {timeout}s }}"),
        Statement::DnatMap { key, map } => write!(out, "dnat ip to {} map @{map}", key_text(key)),
        Statement::Dnat { addr, port } => write!(out, "dnat to {addr}:{port}"),
        Statement::Vmap { key, map } => write!(out, "{} vmap @{map}", key_text(key)),
        Statement::Masquerade => write!(out, "masquerade fully-random"),
        Statement::Reject(RejectWith::TcpReset) => write!(out, "reject with tcp reset"),
        Statement::Reject(RejectWith::PortUnreachable) => write!(out, "reject"),
        Statement::Verdict(verdict) => {
            verdict_text(verdict, out);
            Ok(())
        }
    };
    written.expect("writing to a String cannot fail");
}

/// A table the way people read it, for golden tests: sets with their elements, then chains.
#[must_use]
pub fn table_text(table: &Table) -> String {
    let mut out = String::new();
    for (name, set) in &table.sets {
        let elements: Vec<_> = set.elements.iter().map(|(k, v)| (*k, v.clone())).collect();
        out.push_str(&format!("{} {name} {{ {} }}\n", set_keyword(&set.spec), spec_text(&set.spec)));
        for element in &elements {
            out.push_str(&format!("  {}\n", elements_text(&set.spec, std::slice::from_ref(element), true)));
        }
    }
    for (name, chain) in &table.chains {
        out.push_str(&format!("chain {name}\n"));
        if let Some(base) = &chain.base {
            out.push_str(&format!("  {}\n", base_text(base)));
        }
        for rule in &chain.rules {
            out.push_str(&format!("  {}\n", rule_text(rule)));
        }
    }
    out
}
