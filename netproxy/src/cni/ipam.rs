//! Addresses and host ports of pods: one file of leases per network, changed under a lock.
//!
//! `Leases` decides; `with_leases` locks, reads, writes and replaces the file.
//! The file lives below the run directory, so a reboot, which ends all pods and takes their
//! interfaces, by which a lost file is made anew, forgets the leases too. A process that dies in between leaves the old
//! file (the rename did not happen) or a lease whose namespace is gone, which the
//! next shortage, claim to its ports or collection takes back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::hostports::mapping::{HostPort, ReservedPort};
use crate::cidr::Cidr4;

/// Who holds an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    pub container_id: String,
    pub ifname: String,
    /// Path of the network namespace; when it is gone, so is the holder.
    pub netns: PathBuf,
    /// The node's ports that lead to the holder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<HostPort>,
}

impl Holder {
    /// Whether this is the interface `ifname` of a container.
    pub fn is(&self, container_id: &str, ifname: &str) -> bool {
        self.container_id == container_id && self.ifname == ifname
    }
}

/// Why nothing was leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No address is left.
    Exhausted,
    /// Another container has a host port.
    PortTaken {
        /// The port wanted.
        port: HostPort,
        /// Who has it.
        by: String,
    },
}

/// The leases of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leases {
    /// The address handed out last: the search goes on behind it, so that an
    /// address rests as long as possible before it is used again.
    last: Option<Ipv4Addr>,
    holders: BTreeMap<Ipv4Addr, Holder>,
}

impl Leases {
    /// The address that `container_id` holds for `ifname`.
    pub fn held_by(&self, container_id: &str, ifname: &str) -> Option<Ipv4Addr> {
        self.holders.iter().find(|(_, holder)| holder.is(container_id, ifname)).map(|(address, _)| *address)
    }

    /// The holder of `address`.
    pub fn holder(&self, address: Ipv4Addr) -> Option<&Holder> {
        self.holders.get(&address)
    }

    /// The addresses that are leased.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.holders.keys().copied()
    }

    /// Addresses of holders with host ports, and those ports; none that the node needs itself.
    pub fn with_ports(&self, reserved: &BTreeSet<ReservedPort>) -> Vec<(Ipv4Addr, Vec<HostPort>)> {
        let free = |holder: &Holder| {
            let ports = holder.ports.iter().filter(|port| !port.is_among(reserved));
            ports.copied().collect::<Vec<_>>()
        };
        let ports = self.holders.iter().map(|(address, holder)| (*address, free(holder)));
        ports.filter(|(_, ports)| !ports.is_empty()).collect()
    }

    /// Leases a free address, or the one already held, and the holder's host
    /// ports with it. Network, gateway (the first host) and broadcast are never
    /// leased.
    ///
    /// # Errors
    /// When `subnet` is full or a port is taken.
    pub fn acquire(&mut self, subnet: Cidr4, holder: Holder) -> Result<Ipv4Addr, Refusal> {
        let held = self.held_by(&holder.container_id, &holder.ifname);
        let others = self.holders.iter().filter(|(address, _)| Some(**address) != held);
        for (address, other) in others {
            let taken = holder.ports.iter().find(|port| other.ports.iter().any(|theirs| theirs.conflicts(port)));
            if let Some(port) = taken {
                let by = format!("container {} at {address}", other.container_id);
                return Err(Refusal::PortTaken { port: *port, by });
            }
        }
        let address = held.or_else(|| self.free(subnet)).ok_or(Refusal::Exhausted)?;
        if held.is_none() {
            self.last = Some(address);
        }
        self.holders.insert(address, holder);
        Ok(address)
    }

    fn free(&self, subnet: Cidr4) -> Option<Ipv4Addr> {
        let (first, last) = pod_range(subnet)?;
        let start = self.last.map(Ipv4Addr::to_bits).filter(|last_used| (first..last).contains(last_used));
        let start = start.map_or(first, |last_used| last_used + 1);
        let candidates = (start..=last).chain(first..start).map(Ipv4Addr::from_bits);
        candidates.into_iter().find(|address| !self.holders.contains_key(address))
    }

    /// Drops the leases whose holder does not live; returns those with host
    /// ports, which lead nowhere from now on.
    pub fn retain(&mut self, lives: impl Fn(&Holder) -> bool) -> Vec<(Ipv4Addr, Vec<HostPort>)> {
        let (alive, dead): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.holders).into_iter().partition(|(_, holder)| lives(holder));
        self.holders = alive;
        dead.into_iter()
            .map(|(address, holder)| (address, holder.ports))
            .filter(|(_, ports)| !ports.is_empty())
            .collect()
    }

    /// How many addresses are leased.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether no address is leased.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}

/// The gateway: the first host of the subnet. `None` when it has no room for
/// a gateway and a pod.
pub fn gateway(subnet: Cidr4) -> Option<Ipv4Addr> {
    pod_range(subnet).map(|(first, _)| Ipv4Addr::from_bits(first - 1))
}

/// First and last address for pods.
fn pod_range(subnet: Cidr4) -> Option<(u32, u32)> {
    if subnet.prefix_len() > 30 {
        return None;
    }
    let network = subnet.addr().to_bits();
    let hosts = u32::MAX >> subnet.prefix_len();
    Some((network + 2, network + hosts - 1))
}

/// What a container's interface has noted on it, so that its lease can be told without the file.
pub fn note(address: Ipv4Addr, holder: &Holder) -> String {
    format!("{address} {} {} {}", holder.container_id, holder.ifname, holder.netns.display())
}

/// The address that a note tells of.
pub fn noted_address(note: &str) -> Option<Ipv4Addr> {
    note.split(' ').next()?.parse().ok()
}

/// The lease that a note tells of, without ports.
pub(crate) fn read_note(note: &str) -> Option<(Ipv4Addr, Holder)> {
    let mut words = note.splitn(4, ' ');
    let (address, container_id) = (words.next()?.parse().ok()?, words.next()?.to_owned());
    let (ifname, netns) = (words.next()?.to_owned(), words.next()?.into());
    Some((address, Holder { container_id, ifname, netns, ports: Vec::new() }))
}

impl Leases {
    /// The leases that containers' interfaces tell of; `ports` are those that lead to an address.
    pub fn rebuild<'a>(notes: impl Iterator<Item = &'a str>, ports: &BTreeMap<Ipv4Addr, Vec<HostPort>>) -> Self {
        let with_ports = |(address, holder): (Ipv4Addr, Holder)| {
            (address, Holder { ports: ports.get(&address).cloned().unwrap_or_default(), ..holder })
        };
        Self { last: None, holders: notes.filter_map(read_note).map(with_ports).collect() }
    }
}

/// Why leases could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LeasesError {
    /// They cannot be told.
    #[error(transparent)]
    Unknown(#[from] io::Error),
    /// What was changed cannot be written: it is as it was.
    #[error("write the leases: {0}")]
    Unwritten(#[source] io::Error),
}

/// Changes the leases of `network` below `directory` under its lock. Where the file is damaged or missing, `rebuild`
/// says what the leases are: guessing would hand an address out twice. A damaged one is kept beside what takes its
/// place, which is whole before: whoever dies in between leaves the damage for the next one to see.
///
/// # Errors
/// When the directory cannot be used, or the leases of a damaged or missing file cannot be told.
pub fn with_leases<T>(
    directory: &Path,
    network: &str,
    rebuild: impl FnOnce() -> io::Result<Leases>,
    change: impl FnOnce(&mut Leases) -> T,
) -> Result<T, LeasesError> {
    fs::create_dir_all(directory)?;
    let lock =
        OpenOptions::new().create(true).truncate(false).write(true).open(directory.join(format!("{network}.lock")))?;
    let _lock: Flock<File> = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| io::Error::from(error))?;
    let path = directory.join(format!("{network}.json"));
    let (mut leases, before) = match read(&path) {
        Ok(leases) => (leases.clone(), Some(leases)),
        Err(error) if [io::ErrorKind::InvalidData, io::ErrorKind::NotFound].contains(&error.kind()) => {
            let told = rebuild();
            (told.map_err(|why| io::Error::other(format!("{error}, and nothing else tells: {why}")))?, None)
        }
        Err(error) => return Err(error.into()),
    };
    let result = change(&mut leases);
    if before.as_ref() != Some(&leases) {
        write(directory, network, &leases, before.is_none()).map_err(LeasesError::Unwritten)?;
    }
    Ok(result)
}

/// Puts the leases in the place of those that are there; keeps the file where it is damaged.
fn write(directory: &Path, network: &str, leases: &Leases, is_damaged: bool) -> io::Result<()> {
    let (path, temporary) = (directory.join(format!("{network}.json")), directory.join(format!(".{network}.json")));
    if let Err(error) = fs::write(&temporary, serde_json::to_vec(leases)?) {
        // The half of it takes room that may be what is missing.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    if is_damaged {
        let aside = directory.join(format!("{network}.json.damaged"));
        // For people to look at: nothing depends on it, and there may be none.
        let _ = fs::remove_file(&aside);
        let _ = fs::hard_link(&path, &aside);
    }
    fs::rename(&temporary, &path)
}

/// The leases in a file. An error of the kind `NotFound` or `InvalidData` means that it tells nothing.
fn read(path: &Path) -> io::Result<Leases> {
    let text = fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{} cannot be read: {error}", path.display())))?;
    let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {error}", path.display()));
    serde_json::from_slice(&text).map_err(damaged)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::nft::object::Protocol;

    fn holder(id: usize) -> Holder {
        let netns = format!("/n/{id}").into();
        Holder { container_id: format!("c{id}"), ifname: "eth0".to_owned(), netns, ports: Vec::new() }
    }

    #[test]
    fn addresses_rest_before_they_return() {
        let subnet: Cidr4 = "10.42.3.0/29".parse().unwrap();
        let mut leases = Leases::default();
        let hosts: Vec<_> = (0..5).map(|id| leases.acquire(subnet, holder(id)).unwrap().octets()[3]).collect();
        assert_eq!(hosts, [2, 3, 4, 5, 6]);
        assert_eq!(leases.acquire(subnet, holder(9)), Err(Refusal::Exhausted));
        leases.retain(|holder| !holder.is("c1", "eth0") && !holder.is("c3", "eth0"));
        assert_eq!(leases.acquire(subnet, holder(9)).unwrap().octets()[3], 3);
        assert_eq!(leases.acquire(subnet, holder(10)).unwrap().octets()[3], 5);
        assert_eq!(gateway(subnet).unwrap().octets()[3], 1);
    }

    #[test]
    fn asking_again_gives_the_same_address() {
        let subnet: Cidr4 = "10.42.3.0/24".parse().unwrap();
        let mut leases = Leases::default();
        let first = leases.acquire(subnet, holder(1));
        assert_eq!(leases.acquire(subnet, holder(1)), first);
        assert_eq!(leases.len(), 1);
    }

    #[test]
    fn a_host_port_has_one_holder() {
        let subnet: Cidr4 = "10.42.3.0/24".parse().unwrap();
        let tcp = |host_ip, host_port| HostPort { host_ip, protocol: Protocol::Tcp, host_port, container_port: 80 };
        let with = |id, ports: &[HostPort]| Holder { ports: ports.to_vec(), ..holder(id) };
        let mut leases = Leases::default();
        let first = leases.acquire(subnet, with(1, &[tcp(None, 80), tcp(None, 81)])).unwrap();
        let refused = leases.acquire(subnet, with(2, &[tcp(None, 82), tcp(Some(Ipv4Addr::LOCALHOST), 81)]));
        let Err(Refusal::PortTaken { port, by }) = refused else { panic!("{refused:?}") };
        assert_eq!((port.host_port, by), (81, "container c1 at 10.42.3.2".to_owned()));
        assert_eq!(leases.len(), 1, "nothing is kept of a refused request");
        assert_eq!(leases.acquire(subnet, with(1, &[tcp(None, 81)])), Ok(first), "its own ports are no obstacle");
        leases.acquire(subnet, with(2, &[tcp(None, 80)])).unwrap();
        leases.acquire(subnet, holder(3)).unwrap();
        assert_eq!(leases.with_ports(&BTreeSet::new()).len(), 2);
        let left = leases.with_ports(&BTreeSet::from([ReservedPort(Protocol::Tcp, 80)]));
        assert_eq!(left, [(first, vec![tcp(None, 81)])], "what the node needs itself leads nowhere");
        let gone = leases.retain(|holder| holder.is("c2", "eth0"));
        assert_eq!(gone, [(first, vec![tcp(None, 81)])], "those without ports have nothing to close");
        assert_eq!(leases.len(), 1);
    }

    #[test]
    fn files_of_leases_without_ports_are_read_and_written_as_ever() {
        let text =
            r#"{"last":"10.42.3.2","holders":{"10.42.3.2":{"container_id":"c1","ifname":"eth0","netns":"/n/1"}}}"#;
        let leases: Leases = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&leases).unwrap(), text);
        let port = HostPort { host_ip: None, protocol: Protocol::Udp, host_port: 53, container_port: 5353 };
        let holder = Holder { ports: vec![port], ..holder(1) };
        let text = serde_json::to_string(&holder).unwrap();
        assert!(text.contains(r#""ports":[{"protocol":"udp","hostPort":53,"containerPort":5353}]"#), "{text}");
        assert_eq!(serde_json::from_str::<Holder>(&text).unwrap(), holder);
    }

    #[test]
    fn tiny_subnets_have_no_pods() {
        assert_eq!(gateway("10.0.0.0/31".parse().unwrap()), None);
        let refused = Leases::default().acquire("10.0.0.0/32".parse().unwrap(), holder(1));
        assert_eq!(refused, Err(Refusal::Exhausted));
    }

    /// For files that are whole.
    fn whole() -> io::Result<Leases> {
        Err(io::Error::other("nobody asks"))
    }

    fn none() -> io::Result<Leases> {
        Ok(Leases::default())
    }

    #[test]
    fn a_damaged_file_is_named_and_kept_where_nothing_else_tells() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net.json");
        fs::write(&path, b"\xff{").unwrap();
        let error = with_leases(dir.path(), "net", whole, |leases| leases.len()).unwrap_err();
        assert!(error.to_string().contains("net.json is damaged"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"\xff{");
    }

    #[test]
    fn leases_of_a_damaged_file_are_told_by_interfaces() {
        let subnet: Cidr4 = "10.42.3.0/24".parse().unwrap();
        let mut leases = Leases::default();
        let held: Vec<_> = (0..3).map(|id| leases.acquire(subnet, holder(id)).unwrap()).collect();
        let notes: Vec<_> = held.iter().map(|address| note(*address, leases.holder(*address).unwrap())).collect();
        let port = HostPort { host_ip: None, protocol: Protocol::Udp, host_port: 53, container_port: 5353 };
        let ports = BTreeMap::from([(held[1], vec![port]), (Ipv4Addr::LOCALHOST, vec![port])]);
        let garbage = ["", "x", "10.42.3.9", "10.42.3.9 c", "999.1.1.1 c eth0 /n"];
        let dir = tempfile::tempdir().unwrap();
        for damage in [&b"\xff{"[..], b"", b"{}x", b"{\"last\":7}"] {
            fs::write(dir.path().join("net.json"), damage).unwrap();
            let rebuild = || Ok(Leases::rebuild(notes.iter().map(String::as_str).chain(garbage), &ports));
            let healed = with_leases(dir.path(), "net", rebuild, |leases| leases.clone()).unwrap();
            leases.last = None;
            leases.holders.get_mut(&held[1]).unwrap().ports = vec![port];
            assert_eq!(healed, leases);
            assert_eq!(with_leases(dir.path(), "net", whole, |leases| leases.clone()).unwrap(), leases, "written");
            assert_eq!(fs::read(dir.path().join("net.json.damaged")).unwrap(), damage);
        }
    }

    #[test]
    fn a_missing_file_is_made_anew_as_well() {
        let (dir, subnet) = (tempfile::tempdir().unwrap(), "10.42.3.0/24".parse().unwrap());
        let mut there = Leases::default();
        let held = there.acquire(subnet, holder(1)).unwrap();
        let next = with_leases(dir.path(), "net", || Ok(there), |leases| leases.acquire(subnet, holder(2))).unwrap();
        assert_ne!(next, Ok(held));
        let written = with_leases(dir.path(), "net", whole, |leases| leases.addresses().collect::<Vec<_>>()).unwrap();
        assert_eq!(written, [held, next.unwrap()]);
        fs::remove_file(dir.path().join("net.json")).unwrap();
        let error = with_leases(dir.path(), "net", whole, |_| ()).unwrap_err();
        assert!(error.to_string().contains("nothing else tells"), "an address would be given twice: {error}");
    }

    /// Has no room for the file that is to take the place of `net.json`, whoever writes it.
    fn fill(dir: &Path) {
        std::os::unix::fs::symlink("/dev/full", dir.join(".net.json")).unwrap();
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was() {
        let (dir, subnet) = (tempfile::tempdir().unwrap(), "10.42.3.0/24".parse().unwrap());
        with_leases(dir.path(), "net", none, |leases| leases.acquire(subnet, holder(1))).unwrap().unwrap();
        let whole_text = fs::read(dir.path().join("net.json")).unwrap();
        for text in [whole_text.as_slice(), b"\xff{"] {
            fs::write(dir.path().join("net.json"), text).unwrap();
            fill(dir.path());
            let failed = with_leases(dir.path(), "net", none, |leases| leases.acquire(subnet, holder(2))).unwrap_err();
            let LeasesError::Unwritten(why) = failed else { panic!("{failed}") };
            assert_eq!(why.kind(), io::ErrorKind::StorageFull);
            assert_eq!(fs::read(dir.path().join("net.json")).unwrap(), text, "a damage is seen until it is mended");
            assert!(!dir.path().join(".net.json").exists() && !dir.path().join("net.json.damaged").exists());
        }
    }

    #[test]
    fn parallel_processes_never_share_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let subnet: Cidr4 = "10.42.3.0/24".parse().unwrap();
        let take = |id: usize| {
            let path = dir.path().to_owned();
            std::thread::spawn(move || {
                with_leases(&path, "net", none, |leases| leases.acquire(subnet, holder(id))).unwrap().unwrap()
            })
        };
        let threads: Vec<_> = (0..32).map(take).collect();
        let taken: std::collections::BTreeSet<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(taken.len(), 32);
    }

    proptest! {
        #[test]
        fn leases_stay_unique_and_inside(steps in proptest::collection::vec((any::<bool>(), 0usize..12), 0..200)) {
            let subnet: Cidr4 = "10.1.2.8/29".parse().unwrap();
            let mut leases = Leases::default();
            for (take, id) in steps {
                if take {
                    if let Ok(address) = leases.acquire(subnet, holder(id)) {
                        prop_assert!(subnet.contains(address) && address.octets()[3] >= 10 && address.octets()[3] <= 14);
                    } else {
                        prop_assert_eq!(leases.len(), 5);
                    }
                } else {
                    leases.retain(|other| *other != holder(id));
                }
            }
        }
    }
}
