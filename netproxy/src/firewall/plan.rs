//! Which rules let pods' packets pass, and what is told of the rest. Pure.

use crate::cidr::Cidr4;
use crate::links::Owner;
use crate::nft::object::Verdict;
use crate::nft::statement::{Rule, Side, Statement};

/// An address family of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 alone.
    Ip,
    /// IPv4 and IPv6.
    Inet,
    /// No IPv4 packet passes there.
    Other,
}

/// What a base chain does with packets that no rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Accept,
    Drop,
}

/// A rule of ours in somebody's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedRule {
    pub handle: u64,
    pub comment: String,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub family: Family,
    pub table: String,
    pub name: String,
    /// The policy of a base chain that filters forwarded packets; `None` for any other chain.
    pub forward: Option<Policy>,
    /// How many rules there are; counted where forwarded packets are filtered.
    pub rules: usize,
    /// Rules with a copepod's mark.
    pub marked: Vec<MarkedRule>,
    /// Whether the table says anything of pods.
    pub names_pods: bool,
}

impl Chain {
    /// The chain that iptables writes to.
    fn is_iptables(&self) -> bool {
        (self.family, self.table.as_str(), self.name.as_str()) == (Family::Ip, "filter", "FORWARD")
    }

    /// firewalld's: it accepts by policy, and rejects at its end.
    fn is_firewalld(&self) -> bool {
        self.table == "firewalld" && self.rules > 0
    }

    /// Whether it keeps packets of pods from passing unless a rule says otherwise, and is not ours to
    /// open.
    pub fn is_in_the_way(&self) -> bool {
        let drops = self.forward == Some(Policy::Drop) || self.forward.is_some() && self.is_firewalld();
        drops && self.family != Family::Other && !self.is_iptables()
    }
}

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedFilters {
    pub chains: Vec<Chain>,
    /// The policy of FORWARD in the older iptables, where that is in use.
    pub legacy: Option<String>,
}

/// One change of somebody's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Before all other rules.
    Insert {
        table: String,
        chain: String,
        rule: Rule,
        comment: String,
    },
    Delete {
        table: String,
        chain: String,
        handle: u64,
    },
}

/// What to do, and what is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub problems: Vec<String>,
}

/// The packets that are let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedTraffic {
    /// Pods' own, from and to this range.
    pub cluster_cidr: Cidr4,
    /// Those of Services' clients elsewhere to endpoints elsewhere, on the network of another node for instance: they
    /// carry this mark on their first packet, and are translated afterwards. As the chain KUBE-FORWARD of upstream's
    /// iptables mode (pkg/proxy/iptables/proxier.go), but no connection that nobody translated.
    pub masquerade_mark: u32,
}

/// The rules that let packets pass, with their comments.
fn wanted(owner: &Owner, accepted: AcceptedTraffic) -> [(String, Rule); 4] {
    let AcceptedTraffic { cluster_cidr, masquerade_mark } = accepted;
    let accept = |mut when: Vec<Statement>| {
        when.push(Statement::Verdict(Verdict::Accept));
        Rule(when)
    };
    let pods = |side| accept(vec![Statement::AddrIn { side, net: cluster_cidr, negate: false }]);
    let mark = owner.mark();
    [
        (format!("{mark} from {cluster_cidr}"), pods(Side::Saddr)),
        (format!("{mark} to {cluster_cidr}"), pods(Side::Daddr)),
        (format!("{mark} marked {masquerade_mark:#x}"), accept(vec![Statement::MarkIsSet(masquerade_mark)])),
        (format!("{mark} translated"), accept(vec![Statement::CtStateEstablished, Statement::CtStatusDnat])),
    ]
}

fn is_of(marked: &MarkedRule, owner: &Owner) -> bool {
    owner.has_marked(&marked.comment)
}

/// What lets packets pass where iptables filters; a chain that filters nothing is left alone.
pub fn open(observed: &ObservedFilters, owner: &Owner, accepted: AcceptedTraffic) -> Plan {
    let mut steps = Vec::new();
    for chain in observed.chains.iter().filter(|chain| chain.is_iptables()) {
        let Some(policy) = chain.forward else { continue };
        let filters = policy == Policy::Drop || chain.rules > chain.marked.len();
        let wanted = wanted(owner, accepted);
        let (table, name) = (&chain.table, &chain.name);
        let stale = chain.marked.iter().filter(|marked| is_of(marked, owner));
        let stale = stale.filter(|marked| !filters || wanted.iter().all(|(comment, _)| *comment != marked.comment));
        steps.extend(stale.map(|stale| Step::Delete {
            table: table.clone(),
            chain: name.clone(),
            handle: stale.handle,
        }));
        let missing = wanted
            .into_iter()
            .filter(|(comment, _)| filters && chain.marked.iter().all(|marked| marked.comment != *comment));
        steps.extend(missing.map(|(comment, rule)| Step::Insert {
            table: table.clone(),
            chain: name.clone(),
            rule,
            comment,
        }));
    }
    Plan { steps, problems: problems(observed, accepted.cluster_cidr) }
}

/// What takes the owner's rules out again.
pub fn close(chains: &[Chain], owner: &Owner) -> Vec<Step> {
    let of_chain = |chain: &Chain| {
        let ours: Vec<_> = chain.marked.iter().filter(|marked| is_of(marked, owner)).collect();
        ours.into_iter()
            .map(|ours| Step::Delete { table: chain.table.clone(), chain: chain.name.clone(), handle: ours.handle })
            .collect::<Vec<_>>()
    };
    chains.iter().flat_map(of_chain).collect()
}

/// What stays in pods' way.
pub fn problems(observed: &ObservedFilters, cluster_cidr: Cidr4) -> Vec<String> {
    let in_the_way = observed.chains.iter().filter(|chain| chain.is_in_the_way() && !chain.names_pods);
    let mut lines: Vec<_> = in_the_way
        .map(|chain| {
            if chain.is_firewalld() {
                return format!(
                    "firewalld rejects what pods send and get: firewall-cmd --permanent --zone=trusted \
                     --add-source={cluster_cidr} && firewall-cmd --reload"
                );
            }
            let family = if chain.family == Family::Ip { "ip" } else { "inet" };
            let (table, name) = (&chain.table, &chain.name);
            format!(
                "the nftables chain {name} of the table {family} {table} drops what pods send and get: \
                 nft insert rule {family} {table} {name} ip saddr {cluster_cidr} accept, and the same with ip daddr"
            )
        })
        .collect();
    if let Some(policy) = observed.legacy.as_ref().filter(|policy| *policy != "ACCEPT") {
        lines.push(format!(
            "the policy of FORWARD in iptables-legacy is {policy}: \
             iptables-legacy -I FORWARD -s {cluster_cidr} -j ACCEPT, and the same with -d"
        ));
    }
    lines.sort();
    lines.dedup();
    lines
}

/// Service rules of another proxy: both would translate the same addresses.
pub fn other_proxy(chains: &[Chain]) -> Option<String> {
    let upstream = |chain: &&Chain| {
        chain.table == "kube-proxy"
            || chain.table == "nat" && ["KUBE-SERVICES", "KUBE-SVC"].contains(&kube(&chain.name))
    };
    let chain = chains.iter().find(upstream)?;
    let named = if chain.table == "kube-proxy" {
        "the nftables table kube-proxy is".to_owned()
    } else {
        format!("the iptables chain {} of the table nat is", chain.name)
    };
    Some(format!(
        "{named} there: end kube-proxy and remove its rules (kube-proxy --cleanup), or Services are translated twice"
    ))
}

/// The kind of one of kube-proxy's chains, without the Service's own part.
fn kube(name: &str) -> &str {
    let end = name.char_indices().filter(|(_, c)| *c == '-').nth(1).map_or(name.len(), |(index, _)| index);
    &name[..end]
}

#[cfg(test)]
mod tests;
