//! The network configuration that containerd reads, and the plugin beside it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::PLUGIN_NAMES;
use super::hostports::mapping::ReservedPort;
use crate::cidr::Cidr4;
use crate::links::Owner;

/// The name of the network, and of its files of leases.
pub(super) const NETWORK: &str = "copepod";
/// Sorted before whatever else may lie in the directory: the runtime takes the first.
const FILE_NAME: &str = "10-copepod.conflist";

/// A node's pod network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniConfig {
    /// Name of the bridge.
    pub bridge: String,
    /// The node's part of the pod network.
    pub pod_cidr: Cidr4,
    /// Bytes; 0 leaves the kernel's choice.
    pub mtu: u32,
    /// Directory of address leases.
    pub data_dir: PathBuf,
    /// Whose links these are.
    pub owner: Owner,
    /// Ports of the node that no pod may have.
    pub reserved_ports: BTreeSet<ReservedPort>,
    /// Where cluster DNS answers, if that is on this node.
    pub dns_address: Option<Ipv4Addr>,
}

impl CniConfig {
    fn render(&self) -> Value {
        json!({
            // Runtimes that know the list take the greatest version they speak: from 1.1.0 on they ask for
            // GC and STATUS. Others read the single one, and could not read results of a later version.
            "cniVersion": "1.0.0",
            "cniVersions": ["1.0.0", "1.1.0"],
            "name": NETWORK,
            "plugins": [{
                "type": PLUGIN_NAMES[0],
                "bridge": self.bridge,
                "subnet": self.pod_cidr.to_string(),
                "mtu": self.mtu,
                "dataDir": self.data_dir,
                "owner": self.owner.id(),
                "reservedPorts": self.reserved_ports,
                "dnsAddress": self.dns_address,
                // The runtime tells us of host ports only when asked to.
                "capabilities": {"portMappings": true},
            }],
        })
    }
}

/// Writes the configuration into `directory`, atomically; the runtime watches
/// the directory and reports its network as ready when the file appears.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_conflist(directory: &Path, config: &CniConfig) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join(FILE_NAME);
    let text = serde_json::to_vec_pretty(&config.render())?;
    if fs::read(&path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let temporary = directory.join(format!(".{FILE_NAME}"));
    fs::write(&temporary, text)?;
    fs::rename(temporary, path)
}

/// Links `program` into `directory` under every name of the plugin.
///
/// # Errors
/// When the directory cannot be written.
pub fn install_plugin(directory: &Path, program: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for name in PLUGIN_NAMES {
        let link = directory.join(name);
        if fs::read_link(&link).is_ok_and(|target| target == program) {
            continue;
        }
        let temporary = directory.join(format!(".{name}"));
        let _ = fs::remove_file(&temporary);
        symlink(program, &temporary)?;
        fs::rename(&temporary, &link)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::nft::object::Protocol;

    #[test]
    fn what_is_written_is_what_the_plugin_reads() {
        let dir = tempfile::tempdir().unwrap();
        let config = CniConfig {
            bridge: "copepod0".to_owned(),
            pod_cidr: "10.42.1.0/24".parse().unwrap(),
            mtu: 1450,
            data_dir: "/run/x".into(),
            owner: Owner::new("instance-1").unwrap(),
            reserved_ports: [ReservedPort(Protocol::Tcp, 6443), ReservedPort(Protocol::Udp, 8472)].into(),
            dns_address: Some(Ipv4Addr::new(10, 43, 0, 10)),
        };
        write_conflist(dir.path(), &config).unwrap();
        write_conflist(dir.path(), &config).unwrap();
        let text = fs::read(dir.path().join(FILE_NAME)).unwrap();
        let list: Value = serde_json::from_slice(&text).unwrap();
        // What the runtime makes of a list for one plugin.
        let mut single = list["plugins"][0].clone();
        single["name"] = list["name"].clone();
        single["cniVersion"] = list["cniVersion"].clone();
        let read = super::super::protocol::parse_config(single.to_string().as_bytes()).unwrap();
        assert_eq!(read.subnet, Some(config.pod_cidr));
        assert_eq!((read.mtu, read.bridge.as_str()), (1450, "copepod0"));
        assert_eq!((read.owner, read.reserved_ports), (Some(config.owner), config.reserved_ports));
        assert_eq!(read.dns_address, config.dns_address);
        let versions = list["cniVersions"].as_array().unwrap();
        assert!(versions.contains(&list["cniVersion"]) && versions.contains(&Value::from("1.1.0")));
        assert_eq!(single["capabilities"]["portMappings"], true, "else the runtime keeps host ports to itself");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_plugin_is_linked_under_all_its_names() {
        let dir = tempfile::tempdir().unwrap();
        install_plugin(dir.path(), Path::new("/old")).unwrap();
        install_plugin(dir.path(), Path::new("/new")).unwrap();
        for name in PLUGIN_NAMES {
            assert_eq!(fs::read_link(dir.path().join(name)).unwrap(), Path::new("/new"));
        }
    }
}
