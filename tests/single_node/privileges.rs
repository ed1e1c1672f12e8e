//! A machine or a user that lacks something is told so in one line that says
//! what to do, before anything is touched.

use anyhow::{Result, ensure};

use crate::machine::{self, COPEPOD};

/// Who takes what away, and the words of the one line.
const LACKS: &[(&[&str], &str)] = &[
    // A user without a name in a user namespace is nobody, and may read the program.
    (&["unshare", "--user"], "not running as root: start copepod as root"),
    (&["setpriv", "--bounding-set=-net_admin"], "CAP_NET_ADMIN is missing: pods cannot have a network; give"),
    (&["setpriv", "--bounding-set=-sys_admin"], "CAP_SYS_ADMIN is missing: containers cannot be made; give"),
    (
        &["unshare", "--mount", "bash", "-c", "umount --recursive --lazy /sys/fs/cgroup && \"$0\" \"$@\""],
        "cgroup controllers are not mounted (cpu, memory, pids): mount cgroup2",
    ),
];

/// Commands that need a whole node.
const COMMANDS: &[&[&str]] = &[
    &["up"],
    &["up", "--detach"],
    &["agent", "--kubeconfig=/nonexistent"],
    &["cluster", "create", "dev", "--no-merge"],
];

#[test]
fn a_lack_is_one_line_that_says_what_to_do() -> Result<()> {
    let machine = machine::new("lacks")?;
    let before = machine.picture()?;
    for (without, expected) in LACKS {
        for command in COMMANDS {
            let (success, told) = machine.try_run(&[without, &[COPEPOD][..], command].concat())?;
            let lines: Vec<_> =
                told.lines().filter(|line| !line.starts_with("warn  ") && !line.contains(" WARN ")).collect();
            ensure!(!success && lines.len() == 1 && lines[0].contains(expected), "{without:?} {command:?}: {told}");
        }
        let (success, told) = machine.try_run(&[without, &[COPEPOD, "doctor"][..]].concat())?;
        let fatal: Vec<_> = told.lines().filter(|line| line.starts_with("FAIL")).collect();
        ensure!(!success && fatal.len() == 1 && fatal[0].contains(expected), "{without:?} doctor: {told}");
    }
    machine.expect_unchanged_since(&before)
}

#[test]
fn another_user_is_told_to_be_root() -> Result<()> {
    let machine = machine::new("user")?;
    machine.run(&["install", "-d", "-m", "0700", "/run/copepod"])?;
    // Nobody may not look into the directory of the build.
    machine.run(&["install", COPEPOD, "/run/program"])?;
    let as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/run/program", "down"];
    let (success, told) = machine.try_run(&as_nobody)?;
    ensure!(!success && told.contains("/run/copepod") && told.contains("run it as root"), "{told}");
    Ok(())
}

#[test]
fn a_complete_machine_is_told_so() -> Result<()> {
    let machine = machine::new("whole")?;
    let told = machine.copepod(&["doctor"])?;
    ensure!(told.lines().last() == Some("  ok  this machine can be a node"), "{told}");
    ensure!(machine.run(&["nft", "list", "ruleset"])?.is_empty(), "the check left rules behind");
    Ok(())
}
