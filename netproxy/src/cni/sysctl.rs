//! The kernel settings that pods' network needs, in the node's own namespace.
//!
//! What a setting was before it was changed is noted first, so that it can be
//! undone. Dying between the note and the change is harmless: only a value that
//! is ours is ever taken back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::modprobe;
use crate::note;

/// Whether the packet filter can see what a bridge hands on at all: `br_netfilter` is there.
const BRIDGE_FILTER: &str = "net/bridge/bridge-nf-call-iptables";

/// What loading `br_netfilter` turns on for every bridge of the machine. Our own bridge asks for it
/// by itself.
const BRIDGE_DEFAULTS: [&str; 3] =
    [BRIDGE_FILTER, "net/bridge/bridge-nf-call-ip6tables", "net/bridge/bridge-nf-call-arptables"];

/// Settings of the whole node, and their values.
const SETTINGS: [(&str, &str); 1] = [
    // Packets between pods, and between pods and elsewhere, pass through this node.
    ("net/ipv4/ip_forward", "1"),
];

/// Former values by setting, as the note has them.
type Former = BTreeMap<String, String>;

/// Prepares the kernel, and again: whoever reloads settings of the machine may mean another machine. What is right
/// already is not written, and what is changed for the first time is told to the file `note`. Returns what had to be
/// changed, a word for each.
///
/// # Errors
/// Names the setting that cannot be made.
pub fn prepare_node(note: &Path) -> io::Result<Vec<String>> {
    let root = Path::new("/proc/sys");
    // The module that nothing loads by itself.
    load_bridge_filter(root, || modprobe::load("br_netfilter"))?;
    prepare(root, note)
}

/// Has the module `br_netfilter` in the kernel. Where it was not, other bridges stay as they were.
fn load_bridge_filter(root: &Path, load: impl FnOnce() -> Result<(), String>) -> io::Result<()> {
    if root.join(BRIDGE_FILTER).exists() {
        return Ok(());
    }
    let loaded = load();
    if !root.join(BRIDGE_FILTER).exists() {
        let why = loaded.err().map(|why| format!(" ({why})")).unwrap_or_default();
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "the kernel does not filter bridges: load the module br_netfilter \
                 (modprobe br_netfilter) and start again{why}"
            ),
        ));
    }
    BRIDGE_DEFAULTS.iter().filter(|setting| root.join(setting).exists()).try_for_each(|setting| set(root, setting, "0"))
}

/// Loosens the check of the reverse path on a link of ours, whatever the node's other links have:
/// the kernel takes the greater of the link's and the node's value. Between nodes that disagree about
/// tunnels, packets come another way than they went.
///
/// # Errors
/// Names the setting that cannot be made.
pub fn loosen_reverse_path(link: &str) -> io::Result<()> {
    set(Path::new("/proc/sys"), &format!("net/ipv4/conf/{link}/rp_filter"), "2")
}

/// Lets packets that come in from a link of ours be passed on: with the node's own setting every link that is there
/// gets this, but one that is made later has what the machine's configuration says of new ones.
///
/// # Errors
/// Names the setting that cannot be made.
pub fn pass_on(link: &str) -> io::Result<()> {
    set(Path::new("/proc/sys"), &format!("net/ipv4/conf/{link}/forwarding"), "1")
}

/// What IPv6 learns from neighbours on a link: routes and addresses from routers, and better ways to somewhere.
const LEARNED: [&str; 3] = ["accept_ra", "autoconf", "accept_redirects"];

/// Has IPv6 learn nothing on a link of ours: a pod that calls itself a router would get the node's own traffic
/// (CVE-2020-10749). Upstream's plugin turns `accept_ra` off on the same links (containernetworking/plugins,
/// plugins/main/bridge/bridge.go and pkg/ip/link_linux.go). A kernel without IPv6 has no such settings.
///
/// # Errors
/// Names the setting that cannot be made.
pub fn learn_nothing(link: &str) -> io::Result<()> {
    learn_nothing_in(Path::new("/proc/sys"), link)
}

fn learn_nothing_in(root: &Path, link: &str) -> io::Result<()> {
    LEARNED.iter().try_for_each(|setting| match set(root, &format!("net/ipv6/conf/{link}/{setting}"), "0") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    })
}

/// Undoes what [`prepare_node`] noted, unless somebody else has changed it since.
///
/// # Errors
/// When the note cannot be read, or a setting not be made; the rest is done.
pub fn restore_node(note: &Path) -> io::Result<()> {
    restore(Path::new("/proc/sys"), note)
}

fn prepare(root: &Path, note: &Path) -> io::Result<Vec<String>> {
    let mut changed = Vec::new();
    for (setting, value) in SETTINGS {
        changed.extend(change(root, note, setting, value)?);
    }
    Ok(changed)
}

/// Makes a setting; tells what it was where that was something else.
fn change(root: &Path, note: &Path, setting: &str, value: &str) -> io::Result<Option<String>> {
    let present = fs::read_to_string(root.join(setting)).ok().map(|present| present.trim().to_owned());
    let other = present.filter(|present| present != value);
    if let Some(other) = &other {
        let mut former: Former = note::read(note)?;
        // An earlier start changed it first, and somebody changed it back.
        if !former.contains_key(setting) {
            former.insert(setting.to_owned(), other.clone());
            note::write(note, &former)?;
        }
    }
    set(root, setting, value)?;
    Ok(other.map(|other| format!("{} was {other}", setting.replace('/', "."))))
}

fn restore(root: &Path, note: &Path) -> io::Result<()> {
    let former: Former = note::read(note)?;
    let restored = SETTINGS.iter().map(|(setting, ours)| {
        let Some(value) = former.get(*setting) else { return Ok(()) };
        match fs::read_to_string(root.join(setting)) {
            Ok(present) if present.trim() == *ours => set(root, setting, value),
            _ => Ok(()),
        }
    });
    // All of it is tried, whatever fails.
    let restored: Vec<io::Result<()>> = restored.collect();
    restored.into_iter().collect()
}

/// Lets loopback addresses pass `link`, so that the node reaches containers' ports at 127.0.0.1.
///
/// # Errors
/// Names the setting that cannot be made.
pub fn route_localnet(link: &str) -> io::Result<()> {
    set(Path::new("/proc/sys"), &format!("net/ipv4/conf/{link}/route_localnet"), "1")
}

fn set(root: &Path, setting: &str, value: &str) -> io::Result<()> {
    let path = root.join(setting);
    if fs::read_to_string(&path).is_ok_and(|present| present.trim() == value) {
        return Ok(());
    }
    let named = |error: io::Error| io::Error::new(error.kind(), format!("set {setting} to {value}: {error}"));
    // The kernel makes its files itself: opened to write, a missing one stays missing.
    let file = fs::OpenOptions::new().write(true).truncate(true).open(&path);
    file.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes())).map_err(named)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FORWARD: &str = "net/ipv4/ip_forward";
    const FILTER: &str = "net/ipv4/conf/all/rp_filter";

    /// A kernel whose settings all read `value`.
    fn kernel(value: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for setting in [FORWARD, FILTER].into_iter().chain(BRIDGE_DEFAULTS) {
            let path = dir.path().join(setting);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        let note = dir.path().join("note");
        (dir, note)
    }

    fn get(root: &Path, setting: &str) -> String {
        fs::read_to_string(root.join(setting)).unwrap().trim().to_owned()
    }

    #[test]
    fn what_was_is_what_will_be() {
        let (dir, note) = kernel("0");
        for changed in [&["net.ipv4.ip_forward was 0".to_owned()][..], &[]] {
            assert_eq!(prepare(dir.path(), &note).unwrap(), changed);
            assert_eq!(get(dir.path(), FORWARD), "1");
        }
        for _ in 0..2 {
            restore(dir.path(), &note).unwrap();
            assert_eq!(get(dir.path(), FORWARD), "0");
        }
    }

    #[test]
    fn only_what_is_ours_is_taken_back() {
        let (dir, note) = kernel("1");
        prepare(dir.path(), &note).unwrap();
        assert_eq!(note::read::<Former>(&note).unwrap(), Former::new(), "all of it was right");
        fs::write(dir.path().join(FORWARD), "0").unwrap();
        prepare(dir.path(), &note).unwrap();
        // Somebody else changed it since.
        fs::write(dir.path().join(FORWARD), "2").unwrap();
        restore(dir.path(), &note).unwrap();
        assert_eq!(get(dir.path(), FORWARD), "2");
        // A later start changes it again: the first value counts.
        prepare(dir.path(), &note).unwrap();
        restore(dir.path(), &note).unwrap();
        assert_eq!(get(dir.path(), FORWARD), "0");
    }

    #[test]
    fn the_protection_of_other_links_stays() {
        for value in ["0", "1", "2"] {
            let (dir, note) = kernel(value);
            load_bridge_filter(dir.path(), || panic!("it is loaded")).unwrap();
            prepare(dir.path(), &note).unwrap();
            for setting in [FILTER].into_iter().chain(BRIDGE_DEFAULTS) {
                assert_eq!(get(dir.path(), setting), value, "{setting}");
            }
        }
    }

    #[test]
    fn links_learn_nothing_where_there_is_ipv6() {
        let dir = tempfile::tempdir().unwrap();
        learn_nothing_in(dir.path(), "copepod.1").unwrap();
        assert!(!dir.path().join("net").exists(), "nothing is made up");
        let link = dir.path().join("net/ipv6/conf/copepod.1");
        fs::create_dir_all(&link).unwrap();
        // As old kernels: some are there, some are not.
        for (setting, value) in [("accept_ra", "2\n"), ("accept_redirects", "1\n"), ("forwarding", "1\n")] {
            fs::write(link.join(setting), value).unwrap();
        }
        learn_nothing_in(dir.path(), "copepod.1").unwrap();
        let values = ["accept_ra", "accept_redirects", "forwarding"].map(|setting| get(&link, setting));
        assert_eq!(values, ["0", "0", "1"]);
        fs::remove_file(link.join("accept_ra")).unwrap();
        fs::create_dir(link.join("accept_ra")).unwrap();
        assert!(learn_nothing_in(dir.path(), "copepod.1").unwrap_err().to_string().contains("accept_ra"));
    }

    #[test]
    fn a_module_that_is_loaded_changes_nothing_for_other_bridges() {
        let (dir, _) = kernel("0");
        let bridge = dir.path().join("net/bridge");
        fs::remove_dir_all(&bridge).unwrap();
        let loaded = load_bridge_filter(dir.path(), || {
            fs::create_dir_all(&bridge).unwrap();
            BRIDGE_DEFAULTS.iter().for_each(|setting| fs::write(dir.path().join(setting), "1").unwrap());
            Ok(())
        });
        loaded.unwrap();
        assert_eq!(BRIDGE_DEFAULTS.map(|setting| get(dir.path(), setting)), ["0", "0", "0"]);
    }

    #[test]
    fn nothing_is_changed_that_cannot_be_noted() {
        let (dir, note) = kernel("0");
        for garbage in ["", "{", "[]", "{\"a\": 1}"] {
            fs::write(&note, garbage).unwrap();
            assert!(prepare(dir.path(), &note).unwrap_err().to_string().contains("is damaged"), "{garbage:?}");
            assert!(restore(dir.path(), &note).is_err(), "{garbage:?}");
            assert_eq!(get(dir.path(), FORWARD), "0");
        }
        fs::write(&note, "{\"kernel/core_pattern\": \"|/bin/sh\", \"../x\": \"1\"}").unwrap();
        restore(dir.path(), &note).unwrap();
        assert!(!dir.path().join("kernel").exists(), "only settings of ours are ever written");
        assert!(prepare(dir.path(), Path::new("/no/such/directory/note")).is_err());
        assert_eq!(get(dir.path(), FORWARD), "0");
    }

    #[test]
    fn a_kernel_that_lacks_something_is_told() {
        let (dir, note) = kernel("2");
        fs::remove_file(dir.path().join(BRIDGE_FILTER)).unwrap();
        let told = load_bridge_filter(dir.path(), || Err("no modules".to_owned())).unwrap_err().to_string();
        assert!(told.contains("modprobe br_netfilter") && told.contains("no modules"), "{told}");
        fs::remove_file(dir.path().join(FORWARD)).unwrap();
        assert!(prepare(dir.path(), &note).unwrap_err().to_string().contains(FORWARD));
        restore(dir.path(), &note).unwrap();
    }
}
