//! A machine for a test: PID, mount and network namespaces with an interface
//! that leads nowhere, and empty /run, /var/lib and /var/log. Its process 1
//! ends with the test, however that ends, and everything on it with process 1.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};

use crate::picture::{Picture, files_below, hierarchies};
use crate::program::{self, Ended};
use crate::token::{self, Token};
use crate::watchdog::Watchdog;
use crate::{net, time};

/// Process 1: makes the machine, then buries orphans until its input ends.
const INIT: &str = "set -e
for directory in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 none $directory; done
[ -e /proc/sys/net/bridge ] || modprobe br_netfilter
ip link set lo up
ip link add eth0 type veth peer name cable
ip address add 192.0.2.1/24 dev eth0
ip link set cable up
ip link set eth0 up
echo ready
read -r || true";

/// Settings of the kernel that a node changes.
pub const SETTINGS: [&str; 3] =
    ["net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/bridge/bridge-nf-call-iptables"];

/// A machine; dropping it ends everything on it.
#[derive(Debug)]
pub struct Machine {
    // Dropped first: from then on nothing hangs that was not seen to.
    _watchdog: Watchdog,
    /// `unshare`, whose only child is process 1 and dies with it.
    unshare: Child,
    /// Process 1, as the real machine counts.
    init: u32,
    home: tempfile::TempDir,
    name: String,
    copepod: &'static str,
    _token: Rc<Token>,
}

/// A process as the machine counts.
#[derive(Clone, Debug)]
pub struct Running {
    pub pid: u32,
    pub arguments: Vec<String>,
}

impl Machine {
    /// Makes a machine for the program at `copepod`; `name` tells it from other tests'.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str, copepod: &'static str) -> Result<Self> {
        let token = token::take()?;
        let mut unshare = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", INIT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run unshare")?;
        let mut told = String::new();
        let stdout = unshare.stdout.take().context("no output")?;
        BufReader::new(stdout).read_line(&mut told)?;
        ensure!(told == "ready\n", "the machine cannot be made: {:?}", unshare.wait());
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", unshare.id()))?;
        let init = children.trim().parse().context("unshare has one child")?;
        let name = format!("{name}{}", std::process::id());
        let (dump, end) = (move || state(init), move || kill(init));
        let watchdog = Watchdog::start(&name, dump, end);
        Ok(Self { _watchdog: watchdog, unshare, init, home: tempfile::tempdir()?, name, copepod, _token: token })
    }

    /// The name of this test's cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parent of this test's cgroups: the real machine's are shared by all.
    pub fn cgroup_root(&self) -> String {
        format!("/copepod-test-{}", self.name)
    }

    /// Lays a cable to another machine: this one's address, the other, and its address.
    pub fn cable(&self, (own, other, others): (&str, &Self, &str)) -> Result<()> {
        let (here, there) = (self.init.to_string(), other.init.to_string());
        let peer = ["type", "veth", "peer", "name", "join0", "netns", &there];
        let ends = [&["link", "add", "join0", "netns", &here][..], &peer].concat();
        let made = Command::new("ip").args(ends).status().context("run ip")?;
        ensure!(made.success(), "the cable cannot be laid");
        for (machine, address) in [(self, own), (other, others)] {
            machine.run(&["ip", "address", "add", &format!("{address}/24"), "dev", "join0"])?;
            machine.run(&["ip", "link", "set", "join0", "up"])?;
        }
        Ok(())
    }

    /// A path of this machine as the test sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// A command that runs on this machine.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--pid", "--target", &self.init.to_string()]);
        command.args(words).env("HOME", self.home.path()).env_remove("KUBECONFIG").stdin(Stdio::null());
        command
    }

    /// Runs a command whatever comes of it: whether it succeeded, and what it printed.
    pub fn try_run(&self, words: &[&str]) -> Result<(bool, String)> {
        let Ended { status, stdout, stderr } = program::run(&mut self.command(words), None)?;
        Ok((status.success(), stderr + &stdout))
    }

    /// Runs a command that has to succeed; what it printed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let ended = program::run(&mut self.command(words), None)?;
        ended.success(&format!("{words:?}"))
    }

    /// Runs the program under test.
    pub fn copepod(&self, arguments: &[&str]) -> Result<String> {
        self.run(&[&[self.copepod], arguments].concat())
    }

    /// Asks the node's API.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run(&[&["kubectl", "--kubeconfig=/var/lib/copepod/admin.kubeconfig"], arguments].concat())
    }

    /// Listens on a port of this machine, as a process that is not on it.
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        self.network().run(|| Ok(TcpListener::bind(("0.0.0.0", port))?))
    }

    /// Its network namespace.
    #[must_use]
    pub fn network(&self) -> net::Namespace {
        net::Namespace::at(format!("/proc/{}/ns/net", self.init))
    }

    /// Kills a process of this machine.
    pub fn kill_9(&self, pid: u32) -> Result<()> {
        self.run(&["kill", "-9", &pid.to_string()]).map(drop)
    }

    /// Every process but the first, dead ones excepted.
    pub fn processes(&self) -> Result<Vec<Running>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path("/proc"))? {
            let path = entry?.path();
            let Ok(pid) = path.file_name().unwrap_or_default().to_string_lossy().parse::<u32>() else { continue };
            // Whoever has no command line is buried soon.
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
            let arguments: Vec<_> = words.filter(|word| !word.is_empty()).collect();
            if pid != 1 && !arguments.is_empty() {
                found.push(Running { pid, arguments });
            }
        }
        Ok(found)
    }

    /// The process whose program's name and first argument are these.
    pub fn process(&self, program: &str, argument: &str) -> Result<Running> {
        let is = |running: &Running| {
            let mut words = running.arguments.iter();
            words.next().is_some_and(|word| Path::new(word).ends_with(program))
                && words.next().is_some_and(|word| word == argument)
        };
        self.processes()?.into_iter().find(is).with_context(|| format!("no {program} {argument} runs"))
    }

    /// Everything that a node might leave.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn picture(&self) -> Result<Picture> {
        let mut picture = Picture::default();
        picture.add("process", self.processes()?.into_iter().map(|p| format!("{}: {}", p.pid, p.arguments.join(" "))));
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", self.init))?;
        picture.add("mount", mounts.lines().filter_map(|line| line.split(' ').nth(4)));
        // A link's flags come and go with its peer's.
        picture.add("link", self.run(&["ip", "-brief", "link"])?.lines().filter_map(|line| line.split(' ').next()));
        for (kind, command) in [
            ("route", &["ip", "-4", "route", "show", "table", "all"][..]),
            ("rule", &["ip", "-4", "rule"]),
            ("nft", &["nft", "list", "ruleset"]),
        ] {
            picture.add(kind, self.run(command)?.lines());
        }
        for setting in SETTINGS {
            let value = self.run(&["cat", &format!("/proc/sys/{setting}")])?;
            picture.add("setting", [format!("{setting} is {}", value.trim())]);
        }
        for directory in ["/run", "/var/lib", "/var/log", "/etc/cni", "/opt/cni", "/opt/containerd"] {
            files_below(&self.path(directory), &mut |path| {
                picture.add("file", [path.strip_prefix(self.path("/")).unwrap_or(path).display()]);
            });
        }
        for cgroup in self.cgroups()? {
            files_below(&cgroup, &mut |path| {
                if path.is_dir() {
                    picture.add("cgroup", [path.display()]);
                }
            });
        }
        Ok(picture)
    }

    /// Fails unless everything is as it was, in both directions. The dead may take a moment for it.
    ///
    /// # Errors
    /// Lists what is left, or what was somebody else's and is gone.
    pub fn expect_unchanged_since(&self, before: &Picture) -> Result<()> {
        time::until("everything is as it was", || self.picture()?.expect_same(before))
    }

    /// Where a node of this machine, or a local cluster's, has its cgroups.
    fn cgroups(&self) -> Result<Vec<PathBuf>> {
        let parents = [self.cgroup_root(), format!("/copepod/{}", self.name)];
        let below = |hierarchy: PathBuf| parents.each_ref().map(|parent| hierarchy.join(&parent[1..]));
        Ok(hierarchies()?.into_iter().flat_map(below).collect())
    }

    /// Fails when a process is in a cgroup that is neither the test's own nor
    /// below the node's root: nobody would find that one afterwards.
    pub fn expect_cgroups_in_place(&self) -> Result<()> {
        let own = fs::read_to_string(format!("/proc/{}/cgroup", self.init))?;
        for running in self.processes()? {
            let cgroups = fs::read_to_string(self.path(&format!("/proc/{}/cgroup", running.pid))).unwrap_or_default();
            for line in cgroups.lines() {
                let path = line.splitn(3, ':').nth(2).unwrap_or_default();
                let below = path.starts_with(&format!("{}/kubepods/", self.cgroup_root()));
                ensure!(below || own.lines().any(|own| own == line), "{running:?} is in {line}");
            }
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its child is killed with it, and with that one its whole namespace.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let _ = time::until("the machine's end", || {
            if Path::new(&format!("/proc/{}/ns", self.init)).exists() { bail!("not yet") } else { Ok(()) }
        });
        // Cgroups outlive everything: those of a failed test are removed here.
        for cgroup in self.cgroups().unwrap_or_default() {
            let mut directories = Vec::new();
            files_below(&cgroup, &mut |path| directories.push(path.to_owned()));
            for directory in directories.iter().rev().filter(|path| path.is_dir()) {
                let _ = fs::remove_dir(directory);
            }
        }
    }
}

/// What runs on the machine with this process 1, and the ends of its logs.
fn state(init: u32) -> String {
    let root = PathBuf::from(format!("/proc/{init}/root"));
    let mut text = processes_below(&root.join("proc"));
    for log in ["var/lib/copepod/copepod.log", "var/log/copepod-test.log"] {
        let lines = fs::read_to_string(root.join(log)).unwrap_or_default();
        let from = lines.lines().count().saturating_sub(40);
        text += &lines.lines().skip(from).map(|line| format!("{line}\n")).collect::<String>();
    }
    text
}

/// The processes of a /proc, and what each waits in.
pub fn processes_below(proc: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&line).replace('\0', " ");
        let wchan = fs::read_to_string(entry.path().join("wchan")).unwrap_or_default();
        if !words.is_empty() {
            text += &format!("{} in {wchan}: {words}\n", entry.file_name().display());
        }
    }
    text
}

/// Ends the machine with this process 1.
fn kill(init: u32) {
    if let Ok(pid) = i32::try_from(init) {
        // Gone in this moment is as good.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Opens a pipe file for reading without waiting for a writer.
pub fn open_without_waiting(path: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path).with_context(|| format!("open {}", path.display()))
}
