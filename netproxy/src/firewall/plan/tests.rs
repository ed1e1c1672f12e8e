//! Which filters stand in the way, and what is done about it: tables and properties.

#![allow(clippy::unwrap_used)]
use super::*;

fn owner() -> Owner {
    Owner::new("instance-1").unwrap()
}

fn pods() -> Cidr4 {
    "10.42.0.0/16".parse().unwrap()
}

fn accepted() -> AcceptedTraffic {
    AcceptedTraffic { cluster_cidr: pods(), masquerade_mark: 0x4000 }
}

fn chain(family: Family, table: &str, name: &str, forward: Option<Policy>, rules: usize) -> Chain {
    let (table, name) = (table.to_owned(), name.to_owned());
    Chain { family, table, name, forward, rules, marked: Vec::new(), names_pods: false }
}

fn iptables(policy: Policy, rules: usize) -> Chain {
    chain(Family::Ip, "filter", "FORWARD", Some(policy), rules)
}

fn observed(chains: &[Chain]) -> ObservedFilters {
    ObservedFilters { chains: chains.to_vec(), legacy: None }
}

/// Comments of the rules that are put in, and handles of those taken out.
fn opened(chains: &[Chain]) -> (Vec<String>, Vec<u64>) {
    let (mut comments, mut handles) = (Vec::new(), Vec::new());
    for step in open(&observed(chains), &owner(), accepted()).steps {
        match step {
            Step::Insert { comment, .. } => comments.push(comment),
            Step::Delete { handle, .. } => handles.push(handle),
        }
    }
    (comments, handles)
}

fn marked(handle: u64, comment: &str) -> MarkedRule {
    MarkedRule { handle, comment: comment.to_owned() }
}

const FROM: &str = "copepod:instance-1 from 10.42.0.0/16";
const TO: &str = "copepod:instance-1 to 10.42.0.0/16";
const MARKED: &str = "copepod:instance-1 marked 0x4000";
const TRANSLATED: &str = "copepod:instance-1 translated";

fn all() -> Vec<String> {
    [FROM, TO, MARKED, TRANSLATED].map(str::to_owned).to_vec()
}

#[test]
fn where_iptables_filters_pods_are_let_through_once() {
    assert_eq!(opened(&[iptables(Policy::Drop, 0)]), (all(), Vec::new()));
    assert_eq!(opened(&[iptables(Policy::Accept, 3)]), (all(), Vec::new()), "one of them may reject");
    assert_eq!(opened(&[iptables(Policy::Accept, 0)]), (Vec::new(), Vec::new()), "nothing is filtered");
    assert_eq!(opened(&[]), (Vec::new(), Vec::new()));
    let mut done = iptables(Policy::Drop, 4);
    done.marked = vec![marked(6, TRANSLATED), marked(7, TO), marked(8, FROM), marked(9, MARKED)];
    assert_eq!(opened(&[done]), (Vec::new(), Vec::new()));
}

#[test]
fn rules_for_another_range_or_for_no_filter_go_and_those_of_others_stay() {
    let mut there = iptables(Policy::Drop, 5);
    let foreign = marked(3, "copepod:instance-2 from 10.42.0.0/16");
    let longer = marked(4, "copepod:instance-10 from 10.42.0.0/16");
    there.marked = vec![foreign, longer, marked(5, "copepod:instance-1 from 10.244.0.0/16"), marked(6, FROM)];
    assert_eq!(opened(&[there.clone()]), (all()[1..].to_vec(), vec![5]));
    let steps = close(&[there.clone()], &owner());
    let handles: Vec<_> = steps.iter().map(|step| matches!(step, Step::Delete { handle: 5 | 6, .. })).collect();
    assert_eq!(handles, [true, true]);
    (there.forward, there.rules) = (Some(Policy::Accept), 4);
    assert_eq!(opened(&[there]), (Vec::new(), vec![5, 6]));
}

#[test]
fn what_is_not_ours_to_open_is_told_in_one_line() {
    let firewalld = |rules| chain(Family::Inet, "firewalld", "filter_FORWARD", Some(Policy::Accept), rules);
    let own = |policy| chain(Family::Inet, "filter", "forward", Some(policy), 1);
    for (chain, told) in [
        (firewalld(9), Some("firewall-cmd --permanent --zone=trusted --add-source=10.42.0.0/16")),
        (firewalld(0), None),
        (own(Policy::Drop), Some("nft insert rule inet filter forward ip saddr 10.42.0.0/16 accept")),
        (own(Policy::Accept), None),
        (Chain { names_pods: true, ..own(Policy::Drop) }, None),
        (Chain { family: Family::Other, ..own(Policy::Drop) }, None),
        (Chain { forward: None, ..own(Policy::Drop) }, None),
        (iptables(Policy::Drop, 0), None),
    ] {
        let plan = open(&observed(&[chain.clone(), chain.clone()]), &owner(), accepted());
        assert_eq!(plan.problems.len(), usize::from(told.is_some()), "{chain:?}: {:?}", plan.problems);
        assert!(
            plan.problems.iter().all(|line| line.contains(told.unwrap()) && !line.contains('\n')),
            "{:?}",
            plan.problems
        );
    }
    for (policy, lines) in [("ACCEPT", 0), ("DROP", 1)] {
        let observed = ObservedFilters { legacy: Some(policy.to_owned()), ..ObservedFilters::default() };
        assert_eq!(problems(&observed, pods()).len(), lines, "{policy}");
    }
}

#[test]
fn rules_of_another_proxy_are_seen() {
    let plain = |table: &str, name: &str| chain(Family::Ip, table, name, None, 0);
    for (table, name, seen) in [
        ("kube-proxy", "services", true),
        ("nat", "KUBE-SERVICES", true),
        ("nat", "KUBE-SVC-NPX46M4PTMTKRN6Y", true),
        // What every kubelet leaves behind does nothing.
        ("nat", "KUBE-MARK-MASQ", false),
        ("mangle", "KUBE-KUBELET-CANARY", false),
        ("copepod", "services", false),
        ("nat", "DOCKER", false),
    ] {
        let line = other_proxy(&[plain("nat", "POSTROUTING"), plain(table, name)]);
        assert_eq!(line.is_some(), seen, "{table} {name}");
        assert!(line.is_none_or(|line| line.contains("kube-proxy") && !line.contains('\n')));
    }
}

/// A client elsewhere that came to a node port, and an endpoint on another node's own network: neither is a pod.
#[test]
fn what_services_translate_passes_and_no_other_connection_does() {
    let rule = |comment: &str| {
        let rules = wanted(&owner(), accepted());
        crate::nft::render::rule_text(&rules.iter().find(|(of, _)| of == comment).unwrap().1)
    };
    assert_eq!(rule(MARKED), "meta mark & 0x4000 == 0x4000 accept");
    assert_eq!(rule(TRANSLATED), "ct state established,related ct status dnat accept");
    let other = AcceptedTraffic { masquerade_mark: 8, ..accepted() };
    let mut there = iptables(Policy::Drop, 4);
    there.marked = all().iter().zip(1..).map(|(comment, handle)| marked(handle, comment)).collect();
    let steps = open(&observed(&[there]), &owner(), other).steps;
    assert!(
        matches!(&steps[..], [Step::Delete { handle: 3, .. }, Step::Insert { comment, .. }] if comment.ends_with("0x8"))
    );
}
