//! What others filter on the way of pods' packets and of those for Services, and how far it can be opened.
//!
//! An accept in our own tables does not outweigh a drop in another: every base chain of a hook has its
//! say. Docker, ufw and whoever writes with iptables filter in the chain `FORWARD`; there the usual
//! way is a rule that accepts pods' packets, as other pod networks put one, with our mark as its
//! comment. What else drops or rejects forwarded packets (firewalld, a ruleset of the machine's owner)
//! is left alone and told, with what to do.
//!
//! `plan` decides (purely), `kernel` reads and writes nf_tables.

pub(crate) mod kernel;
mod plan;

use std::process::{Command, Stdio};

use crate::backend::NftError;
use crate::cidr::Cidr4;
use crate::links::{BRIDGE, Owner};
use kernel::Filters;
pub use plan::AcceptedTraffic;
use plan::{Chain, Family, ObservedFilters};

/// Opens the way of packets where that is ours to do; returns what stays in the way, one line
/// each.
///
/// # Errors
/// When the kernel cannot be read or refuses a rule.
pub fn open(owner: &Owner, accepted: AcceptedTraffic) -> Result<Vec<String>, NftError> {
    let mut filters = Filters::open()?;
    let observed = look(&mut filters, accepted.cluster_cidr)?;
    let plan = plan::open(&observed, owner, accepted);
    filters.perform(&plan.steps)?;
    Ok(plan.problems)
}

/// Filters that [`open`] leaves in the way, one line each; changes nothing.
///
/// # Errors
/// When the kernel cannot be read.
pub fn in_the_way(cluster_cidr: Cidr4) -> Result<Vec<String>, NftError> {
    let observed = look(&mut Filters::open()?, cluster_cidr)?;
    Ok(plan::problems(&observed, cluster_cidr))
}

/// Service rules of another proxy, on one line.
///
/// # Errors
/// When the kernel cannot be read.
pub fn other_proxy() -> Result<Option<String>, NftError> {
    Ok(plan::other_proxy(&Filters::open()?.chains()?))
}

/// Takes the owner's rules out of others' chains; none is fine.
///
/// # Errors
/// When the kernel cannot be read or refuses.
pub fn close(owner: &Owner) -> Result<(), NftError> {
    let mut filters = Filters::open()?;
    let chains = filters.chains()?;
    let steps = plan::close(&chains, owner);
    filters.perform(&steps)
}

fn look(filters: &mut Filters, cluster_cidr: Cidr4) -> Result<ObservedFilters, NftError> {
    let mut chains = filters.chains()?;
    for chain in chains.iter_mut().filter(|chain| chain.is_in_the_way()) {
        chain.names_pods = names_pods(chain, cluster_cidr);
    }
    Ok(ObservedFilters { chains, legacy: legacy_policy() })
}

/// Whether a table says anything of pods: then somebody has thought of them.
fn names_pods(chain: &Chain, cluster_cidr: Cidr4) -> bool {
    let family = match chain.family {
        Family::Ip => "ip",
        Family::Inet => "inet",
        Family::Other => return false,
    };
    let text = output("nft", &["list", "table", family, &chain.table]);
    text.is_some_and(|text| text.contains(BRIDGE) || text.contains(&cluster_cidr.to_string()))
}

/// The policy of FORWARD in the older iptables, whose rules nf_tables does not show.
fn legacy_policy() -> Option<String> {
    let tables = std::fs::read_to_string("/proc/self/net/ip_tables_names").unwrap_or_default();
    tables.lines().find(|table| *table == "filter")?;
    let rules = output("iptables-legacy", &["-S", "FORWARD"])?;
    rules.lines().find_map(|line| line.strip_prefix("-P FORWARD ")).map(str::to_owned)
}

/// What a program says; `None` when it is missing or fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
