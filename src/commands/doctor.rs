//! `copepod doctor`: the machine check by itself.

use anyhow::{Result, bail};

use crate::cli;
use crate::doctor::{Severity, Wanted, judge, neighbours, probe};

/// Prints what the machine lacks; fails when it cannot be a node.
///
/// # Errors
/// When a finding is fatal.
pub fn run() -> Result<()> {
    let mut findings = judge(&probe(), Wanted::ALL);
    findings.extend(neighbours::other_nodes());
    findings.extend(neighbours::filters(cli::CLUSTER_CIDR.parse()?));
    for finding in &findings {
        let mark = if finding.severity == Severity::Fatal { "FAIL" } else { "warn" };
        println!("{mark}  {}", finding.message);
    }
    let fatal = findings.iter().filter(|finding| finding.severity == Severity::Fatal);
    let fatal: Vec<_> = fatal.map(|finding| finding.message.as_str()).collect();
    if !fatal.is_empty() {
        bail!("this machine cannot be a node: {}", fatal.join("; "));
    }
    println!("  ok  this machine can be a node");
    Ok(())
}
