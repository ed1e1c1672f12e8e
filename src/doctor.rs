//! What a machine must have to be a node, and what to do where it has not.
//! `probe` looks, `judge` decides (purely), and both `doctor` and every start
//! of a node use them.

pub mod neighbours;
mod probe;

use crate::cli::{Cni, NodeArgs};
pub use probe::probe;

/// What was found on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub root: bool,
    /// Whether the programs are on PATH.
    pub containerd: bool,
    pub oci_runtime: bool,
    pub nft: bool,
    /// Effective capabilities, bit by bit as in /proc/self/status.
    pub capabilities: u64,
    /// Mounted cgroup controllers, of any version.
    pub controllers: Vec<String>,
    /// Why the kernel does not take the rules of Services; not asked without
    /// the capability to ask.
    pub nftables_refusal: Option<String>,
    pub overlayfs: bool,
    pub bridge: bool,
    /// Whether what a bridge hands on can be filtered: `br_netfilter`.
    pub bridge_filter: bool,
}

/// What the machine is to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// A containerd of our own.
    pub private_containerd: bool,
    /// Our own network of pods.
    pub bridge_network: bool,
    /// Whether a containerd that runs already would do instead.
    pub foreign_containerd: bool,
}

impl Wanted {
    /// Everything that copepod can do itself.
    pub const ALL: Self = Self { private_containerd: true, bridge_network: true, foreign_containerd: true };
    /// The nodes of a local cluster, which bring a containerd each.
    pub const LOCAL_CLUSTER: Self = Self { foreign_containerd: false, ..Self::ALL };

    /// What these arguments ask for.
    pub fn by(node: &NodeArgs) -> Self {
        let private_containerd = node.container_runtime_endpoint.is_none();
        Self { private_containerd, bridge_network: node.cni == Cni::Bridge, foreign_containerd: true }
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A node cannot run.
    Fatal,
    /// A node runs with less.
    Warning,
}

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// One line: what is missing and what to do.
    pub message: String,
}

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// What the rules of Services are made with, as the kernel's modules are called.
const NFT_MODULES: &str =
    "nf_tables, nft_chain_nat, nft_ct, nft_fib_ipv4, nft_masq, nft_nat, nft_numgen, nft_reject_ipv4";

/// What the machine lacks; empty when it can be a node in full. What merely
/// follows from another finding is not told.
pub fn judge(facts: &Facts, wanted: Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut check = |holds: bool, severity: Severity, message: &str| {
        if !holds {
            findings.push(Finding { severity, message: message.to_owned() });
        }
    };
    use Severity::{Fatal, Warning};
    check(facts.root, Fatal, "not running as root: start copepod as root (sudo copepod …)");
    if wanted.private_containerd {
        let or =
            if wanted.foreign_containerd { ", or name a running one with --container-runtime-endpoint" } else { "" };
        check(facts.containerd, Fatal, &format!("containerd is not on PATH: apt-get install containerd{or}"));
        check(facts.oci_runtime, Fatal, "neither runc nor crun is on PATH: apt-get install runc");
    }
    if let Some(refusal) = &facts.nftables_refusal {
        let message = format!(
            "the kernel refuses the nftables rules of Services ({refusal}): \
             load the modules {NFT_MODULES}, or boot a kernel that has them"
        );
        check(false, Fatal, &message);
    }
    if let Some(message) = lacking_bridge(facts).filter(|_| wanted.bridge_network) {
        check(false, Fatal, message);
    }
    let can = |capability: u64| !facts.root || facts.capabilities & capability != 0;
    check(
        can(CAP_SYS_ADMIN),
        Fatal,
        "CAP_SYS_ADMIN is missing: containers cannot be made; give the process this capability",
    );
    check(
        can(CAP_NET_ADMIN),
        Fatal,
        "CAP_NET_ADMIN is missing: pods cannot have a network; give the process this capability",
    );
    if let Some(message) = missing_controllers(&facts.controllers) {
        check(false, Fatal, &message);
    }
    check(
        facts.overlayfs,
        Warning,
        "the kernel has no overlay file system: images are copied instead, which is slow; load the module overlay",
    );
    check(
        facts.nft,
        Warning,
        "nft is not on PATH: rulesets cannot be read back for verification; apt-get install nftables",
    );
    check(
        can(CAP_SYS_RESOURCE),
        Warning,
        "CAP_SYS_RESOURCE is missing: containers cannot be protected from the OOM killer",
    );
    findings
}

fn lacking_bridge(facts: &Facts) -> Option<&'static str> {
    match (facts.bridge, facts.bridge_filter) {
        (true, true) => None,
        (false, _) => Some("the kernel has no bridge devices: load the module bridge, or choose --cni none"),
        (true, false) => Some(
            "the kernel does not filter bridges, which Services between pods of one node need: \
             load the module br_netfilter (modprobe br_netfilter), or choose --cni none",
        ),
    }
}

fn missing_controllers(mounted: &[String]) -> Option<String> {
    let missing = ["cpu", "memory", "pids"].into_iter().filter(|name| !mounted.iter().any(|mounted| mounted == name));
    let missing: Vec<_> = missing.collect();
    (!missing.is_empty()).then(|| {
        format!(
            "cgroup controllers are not mounted ({}): mount cgroup2 at /sys/fs/cgroup; \
             if the kernel leaves them out, boot it with cgroup_enable={}",
            missing.join(", "),
            missing.join(" cgroup_enable=")
        )
    })
}

/// Fails unless this machine can be a node; what it merely lacks is for the caller to show.
///
/// # Errors
/// Lists every fatal finding.
pub fn require(wanted: Wanted) -> anyhow::Result<Vec<String>> {
    let (fatal, warnings): (Vec<_>, Vec<_>) =
        judge(&probe(), wanted).into_iter().partition(|finding| finding.severity == Severity::Fatal);
    if fatal.is_empty() {
        return Ok(warnings.into_iter().map(|warning| warning.message).collect());
    }
    let lines: Vec<_> = fatal.into_iter().map(|finding| finding.message).collect();
    anyhow::bail!("{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            root: true,
            containerd: true,
            oci_runtime: true,
            nft: true,
            capabilities: u64::MAX,
            controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
            nftables_refusal: None,
            overlayfs: true,
            bridge: true,
            bridge_filter: true,
        }
    }

    #[test]
    fn a_complete_machine_has_no_findings() {
        assert_eq!(judge(&good(), Wanted::ALL), []);
    }

    #[test]
    fn each_lack_is_one_line_that_says_what_to_do() {
        type Break = fn(&mut Facts);
        let cases: [(Break, Severity, &str); 10] = [
            (|f| (f.root, f.capabilities) = (false, 0), Severity::Fatal, "sudo copepod"),
            (|f| f.containerd = false, Severity::Fatal, "apt-get install containerd"),
            (|f| f.oci_runtime = false, Severity::Fatal, "apt-get install runc"),
            (|f| f.nftables_refusal = Some("EOPNOTSUPP".to_owned()), Severity::Fatal, "load the modules nf_tables"),
            (|f| f.capabilities &= !CAP_NET_ADMIN, Severity::Fatal, "CAP_NET_ADMIN"),
            (|f| f.capabilities &= !CAP_SYS_RESOURCE, Severity::Warning, "CAP_SYS_RESOURCE"),
            (|f| f.controllers.retain(|c| c != "pids"), Severity::Fatal, "cgroup_enable=pids"),
            (|f| (f.bridge, f.bridge_filter) = (false, false), Severity::Fatal, "the module bridge"),
            (|f| f.bridge_filter = false, Severity::Fatal, "modprobe br_netfilter"),
            (|f| f.nft = false, Severity::Warning, "apt-get install nftables"),
        ];
        for (damage, severity, hint) in cases {
            let mut facts = good();
            damage(&mut facts);
            let findings = judge(&facts, Wanted::ALL);
            assert_eq!(findings.len(), 1, "{hint}");
            assert_eq!(findings[0].severity, severity, "{hint}");
            assert!(findings[0].message.contains(hint) && !findings[0].message.contains('\n'), "{findings:?}");
        }
    }

    #[test]
    fn what_others_see_to_is_not_needed_here() {
        let facts = Facts { containerd: false, oci_runtime: false, ..good() };
        assert_eq!(judge(&facts, Wanted { private_containerd: false, ..Wanted::ALL }), []);
        let findings = judge(&Facts { containerd: false, ..good() }, Wanted::LOCAL_CLUSTER);
        assert!(!findings[0].message.contains("--container-runtime-endpoint"), "it has no such flag: {findings:?}");
        let facts = Facts { bridge: false, bridge_filter: false, ..good() };
        assert_eq!(judge(&facts, Wanted { bridge_network: false, ..Wanted::ALL }), []);
    }
}
