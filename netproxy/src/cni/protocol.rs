//! The CNI specification's words: requests from environment and standard
//! input, results and errors as JSON. Pure.
//!
//! Versions 0.3.0 to 1.1.0 of the specification are spoken.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::backend::NftError;
use crate::cidr::Cidr4;
use crate::cni::hostports::Scope;
use crate::cni::hostports::mapping::ReservedPort;
use crate::cni::ipam;
use crate::links::{LinkError, Owner};

/// Versions of the specification, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What the runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// The variables of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    pub command: Command,
    pub container_id: String,
    /// Path of the network namespace; may be gone on DEL.
    pub netns: Option<PathBuf>,
    pub ifname: String,
}

impl Environment {
    /// Reads and checks the variables.
    ///
    /// # Errors
    /// Names the variable that is missing or malformed (code 4).
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, PluginError> {
        let value = |name: &str| variable(name).filter(|value| !value.is_empty());
        let command = match value("CNI_COMMAND").as_deref() {
            Some("ADD") => Command::Add,
            Some("DEL") => Command::Del,
            Some("CHECK") => Command::Check,
            Some("GC") => Command::Gc,
            Some("STATUS") => Command::Status,
            Some("VERSION") => Command::Version,
            Some(other) => return Err(PluginError::environment(format!("CNI_COMMAND={other} is unknown"))),
            None => return Err(PluginError::environment("CNI_COMMAND is not set".to_owned())),
        };
        let of_a_container = matches!(command, Command::Add | Command::Del | Command::Check);
        let container_id = value("CNI_CONTAINERID").unwrap_or_default();
        let ifname = value("CNI_IFNAME").unwrap_or_default();
        let netns = value("CNI_NETNS").map(PathBuf::from);
        if of_a_container {
            check_id(&container_id)?;
            check_ifname(&ifname)?;
            if netns.is_none() && command != Command::Del {
                return Err(PluginError::environment("CNI_NETNS is not set".to_owned()));
            }
        }
        Ok(Self { command, container_id, netns, ifname })
    }
}

/// An id must be usable in names: alphanumeric first, then also `_.-`.
fn check_id(id: &str) -> Result<(), PluginError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let begins = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && id.chars().all(legal) {
        return Ok(());
    }
    Err(PluginError::environment(format!("CNI_CONTAINERID={id:?} is not a container id")))
}

/// A network's name is part of file names: only what the specification allows there.
fn check_name(name: &str) -> Result<(), PluginError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(legal) {
        return Ok(());
    }
    Err(PluginError::config(format!("name {name:?} is not a network name")))
}

/// What the kernel takes as an interface name.
fn check_ifname(name: &str) -> Result<(), PluginError> {
    let legal = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    if !name.is_empty() && name.len() <= 15 && name != "." && name != ".." && name.chars().all(legal) {
        return Ok(());
    }
    Err(PluginError::environment(format!("CNI_IFNAME={name:?} is not an interface name")))
}

/// A network configuration as written by [`super::write_conflist`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    #[serde(default = "oldest_version")]
    pub cni_version: String,
    #[serde(default)]
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub bridge: String,
    /// The node's part of the pod network.
    #[serde(default, deserialize_with = "prefix")]
    pub subnet: Option<Cidr4>,
    /// Bytes; 0 leaves the kernel's choice.
    #[serde(default)]
    pub mtu: u32,
    /// Directory of address leases.
    #[serde(default)]
    pub data_dir: PathBuf,
    /// Whose links these are.
    #[serde(default, deserialize_with = "owner")]
    pub owner: Option<Owner>,
    /// Ports of the node that no pod may have.
    #[serde(default)]
    pub reserved_ports: BTreeSet<ReservedPort>,
    /// Where cluster DNS answers, if that is on this node.
    #[serde(default)]
    pub dns_address: Option<Ipv4Addr>,
    /// What ADD has answered, on CHECK and DEL.
    #[serde(default)]
    pub prev_result: Value,
    /// What the runtime adds for this container. Only ADD looks into it: whatever it is, the
    /// container can be taken away again.
    #[serde(default)]
    pub runtime_config: Value,
    /// Containers that still live, on GC.
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<Attachment>>,
}

impl NetworkConfig {
    /// The node's part of the pod network.
    ///
    /// # Errors
    /// When there is none (code 7).
    pub fn subnet(&self) -> Result<Cidr4, PluginError> {
        self.subnet.ok_or_else(|| PluginError::config("the network configuration has no subnet".to_owned()))
    }

    /// What of the host ports' table is this network's.
    ///
    /// # Errors
    /// When there is no subnet (code 7).
    pub fn scope(&self) -> Result<Scope<'_>, PluginError> {
        Ok(Scope {
            subnet: self.subnet()?,
            reserved: &self.reserved_ports,
            dns: self.dns_address,
            owner: self.owner.as_ref(),
        })
    }

    /// Whose links these are.
    ///
    /// # Errors
    /// When nobody says so (code 7).
    pub fn owner(&self) -> Result<Owner, PluginError> {
        self.owner.clone().ok_or_else(|| PluginError::config("the network configuration has no owner".to_owned()))
    }

    /// What ADD has answered of the leased address, where the runtime says it. The node's part of the pod network may
    /// have been another one then.
    ///
    /// # Errors
    /// When it is not what the leases say.
    pub fn previous(&self, address: Ipv4Addr, ifname: &str) -> Result<Option<Previous>, PluginError> {
        if self.prev_result.is_null() {
            return Ok(None);
        }
        let list = |name: &str| self.prev_result[name].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = address.to_string();
        let found = list("ips").iter().find_map(|ip| {
            let prefix_len = ip["address"].as_str()?.strip_prefix(&text)?.strip_prefix('/')?.parse().ok()?;
            let gateway = ip["gateway"].as_str().and_then(|gateway| gateway.parse().ok());
            Some(Previous { prefix_len, gateway })
        });
        if found.is_none() {
            return Err(PluginError::check(format!("prevResult does not have the address {address}")));
        }
        if !list("interfaces").iter().any(|interface| interface["name"] == ifname) {
            return Err(PluginError::check(format!("prevResult does not have the interface {ifname}")));
        }
        Ok(found)
    }
}

/// What ADD has answered of a container's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Length of the subnet's prefix, in bits.
    pub prefix_len: u8,
    pub gateway: Option<Ipv4Addr>,
}

impl Previous {
    /// The address among those that the container's interface has, and the gateway that its default route has to name:
    /// those of ADD's answer, or, where the runtime does not tell it, those that follow from the interface itself.
    #[must_use]
    pub fn expected(
        told: Option<Self>,
        address: Ipv4Addr,
        there: impl IntoIterator<Item = (Ipv4Addr, u8)>,
    ) -> Option<Self> {
        let same = |(ip, len): &(Ipv4Addr, u8)| *ip == address && told.is_none_or(|told| told.prefix_len == *len);
        let (_, prefix_len) = there.into_iter().find(same)?;
        let derived = || Cidr4::new(address, prefix_len).and_then(ipam::gateway);
        Some(Self { prefix_len, gateway: told.and_then(|told| told.gateway).or_else(derived) })
    }
}

/// A container's interface in this network.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

fn prefix<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Cidr4>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}

fn owner<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Owner>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| Owner::new(&text).map_err(serde::de::Error::custom)).transpose()
}

fn oldest_version() -> String {
    VERSIONS[0].to_owned()
}

/// Reads a network configuration.
///
/// # Errors
/// When it is no JSON (code 6), of an unknown version (1) or lacks a field (7).
pub fn parse_config(text: &[u8]) -> Result<NetworkConfig, PluginError> {
    let config: NetworkConfig = serde_json::from_slice(text).map_err(|error| PluginError {
        code: 6,
        message: "the network configuration is malformed".to_owned(),
        details: error.to_string(),
    })?;
    if !VERSIONS.contains(&config.cni_version.as_str()) {
        return Err(PluginError {
            code: 1,
            message: format!("cniVersion {} is not spoken here", config.cni_version),
            details: VERSIONS.join(", "),
        });
    }
    if config.kind != "loopback" {
        let missing = [
            ("name", config.name.is_empty()),
            ("bridge", config.bridge.is_empty()),
            ("subnet", config.subnet.is_none()),
            ("dataDir", config.data_dir.as_os_str().is_empty()),
        ];
        if let Some((field, _)) = missing.iter().find(|(_, missing)| *missing) {
            return Err(PluginError::config(format!("the network configuration has no {field}")));
        }
        check_name(&config.name)?;
    }
    Ok(config)
}

/// The version that an answer to `text` should carry, whatever else is wrong.
pub fn version_of(text: &[u8]) -> &'static str {
    let asked = serde_json::from_slice::<Value>(text).ok();
    let asked = asked.as_ref().and_then(|value| value["cniVersion"].as_str());
    VERSIONS.into_iter().find(|version| Some(*version) == asked).unwrap_or(VERSIONS[VERSIONS.len() - 1])
}

/// The answer to VERSION.
pub fn versions() -> String {
    json!({"cniVersion": VERSIONS[VERSIONS.len() - 1], "supportedVersions": VERSIONS}).to_string()
}

/// A container's attachment, as an ADD reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub bridge: Interface,
    pub host: Interface,
    pub container: Interface,
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix, in bits.
    pub prefix_len: u8,
    pub gateway: Ipv4Addr,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// Path of its namespace when that is not the node's own.
    pub sandbox: Option<String>,
}

impl Interface {
    fn to_json(&self) -> Value {
        let mut value = json!({"name": self.name, "mac": self.mac});
        if let Some(sandbox) = &self.sandbox {
            value["sandbox"] = json!(sandbox);
        }
        value
    }
}

impl Attached {
    /// The result object in the words of `version`.
    pub fn to_json(&self, version: &str) -> String {
        let mut ip = json!({"address": format!("{}/{}", self.address, self.prefix_len), "gateway": self.gateway, "interface": 2});
        if version.starts_with("0.") {
            ip["version"] = json!("4");
        }
        json!({
            "cniVersion": version,
            "interfaces": [self.bridge.to_json(), self.host.to_json(), self.container.to_json()],
            "ips": [ip],
            "routes": [{"dst": "0.0.0.0/0", "gw": self.gateway}],
            "dns": {},
        })
        .to_string()
    }
}

/// The result of attaching the loopback interface.
pub fn loopback_result(version: &str, netns: &str) -> String {
    let mut ip = json!({"address": "127.0.0.1/8", "interface": 0});
    if version.starts_with("0.") {
        ip["version"] = json!("4");
    }
    json!({
        "cniVersion": version,
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns}],
        "ips": [ip],
        "dns": {},
    })
    .to_string()
}

/// An error as the specification reports it: 1 to 99 are its own codes, from
/// 100 on ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {details}")]
pub struct PluginError {
    pub code: u16,
    pub message: String,
    pub details: String,
}

impl PluginError {
    /// A variable is missing or malformed.
    pub fn environment(message: String) -> Self {
        Self { code: 4, message, details: String::new() }
    }

    /// The configuration makes no sense.
    pub fn config(message: String) -> Self {
        Self { code: 7, message, details: String::new() }
    }

    /// The system refused a step.
    pub fn io(step: &str, error: &std::io::Error) -> Self {
        Self { code: 5, message: step.to_owned(), details: error.to_string() }
    }

    /// No address is left.
    pub fn exhausted(subnet: Cidr4) -> Self {
        Self { code: 100, message: format!("no address is left in {subnet}"), details: String::new() }
    }

    /// Another container has a host port.
    pub fn port_taken(port: &str, by: &str) -> Self {
        Self { code: 102, message: format!("{port} is taken"), details: by.to_owned() }
    }

    /// An ADD could not work.
    pub fn unavailable(details: String) -> Self {
        Self { code: 50, message: "the plugin is not available".to_owned(), details }
    }

    /// The node itself has a host port.
    pub fn port_reserved(port: &str) -> Self {
        Self { code: 102, message: format!("host port {port} is taken"), details: "by the node itself".to_owned() }
    }

    /// What should be there is not.
    pub fn check(message: String) -> Self {
        Self { code: 101, message, details: String::new() }
    }

    /// The error object.
    pub fn to_json(&self, version: &str) -> String {
        json!({"cniVersion": version, "code": self.code, "msg": self.message, "details": self.details}).to_string()
    }
}

impl From<LinkError> for PluginError {
    fn from(error: LinkError) -> Self {
        let details = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        Self { code: 5, message: error.to_string(), details }
    }
}

impl From<NftError> for PluginError {
    /// nftables refused something about host ports, the only rules a plugin makes.
    fn from(error: NftError) -> Self {
        Self { code: 5, message: "rules of host ports".to_owned(), details: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Result<Environment, PluginError> {
        let map: BTreeMap<_, _> = pairs.iter().copied().collect();
        Environment::read(|name| map.get(name).map(|value| (*value).to_owned()))
    }

    const ADD: [(&str, &str); 4] =
        [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "abc"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", "eth0")];

    #[test]
    fn a_complete_request_is_read() {
        let request = environment(&ADD).unwrap();
        assert_eq!((request.command, request.container_id.as_str()), (Command::Add, "abc"));
        let delete = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "abc"), ("CNI_IFNAME", "eth0")];
        assert_eq!(environment(&delete).unwrap().netns, None, "DEL works without a namespace");
    }

    #[test]
    fn bad_variables_are_named() {
        for (name, value) in [
            ("CNI_COMMAND", "EAT"),
            ("CNI_CONTAINERID", "../x"),
            ("CNI_CONTAINERID", ""),
            ("CNI_IFNAME", "much-too-long-a-name"),
            ("CNI_IFNAME", "a/b"),
            ("CNI_NETNS", ""),
        ] {
            let mut pairs = ADD.to_vec();
            pairs.retain(|(key, _)| *key != name);
            pairs.push((name, value));
            let error = environment(&pairs).unwrap_err();
            assert_eq!(error.code, 4, "{name}={value}");
            assert!(error.message.contains(name), "{error}");
        }
    }

    #[test]
    fn bad_configurations_get_the_specified_codes() {
        let complete = r#""type":"copepod-cni","name":"n","bridge":"b","subnet":"10.42.0.0/24","dataDir":"/d""#;
        for (text, code) in [
            (String::new(), 6),
            ("[".to_owned(), 6),
            (format!(r#"{{"cniVersion":"9.9.9",{complete}}}"#), 1),
            (r#"{"cniVersion":"1.0.0","type":"copepod-cni"}"#.to_owned(), 7),
            (r#"{"cniVersion":"1.0.0","type":"copepod-cni","subnet":"10.42.0.0/40"}"#.to_owned(), 6),
            (format!(r#"{{"cniVersion":"1.0.0",{complete},"owner":"a b"}}"#), 6),
            (format!(r#"{{"cniVersion":"1.0.0",{}}}"#, complete.replace(r#""n""#, r#""../n""#)), 7),
            (format!(r#"{{"cniVersion":"1.0.0",{}}}"#, complete.replace(r#""n""#, r#""n/../../m""#)), 7),
            (format!(r#"{{"cniVersion":"1.0.0",{}}}"#, complete.replace(r#""n""#, r#"".n""#)), 7),
        ] {
            assert_eq!(parse_config(text.as_bytes()).unwrap_err().code, code, "{text}");
        }
        assert!(parse_config(format!(r#"{{"cniVersion":"1.0.0",{complete}}}"#).as_bytes()).is_ok());
    }

    #[test]
    fn a_container_is_judged_by_the_range_it_was_attached_in() {
        let address = Ipv4Addr::new(10, 42, 0, 5);
        // The node's range is another one by now.
        let config = |previous: &Value| -> NetworkConfig {
            let config = json!({"cniVersion": "1.0.0", "type": "copepod-cni", "name": "n", "bridge": "b",
                "subnet": "10.43.0.0/25", "dataDir": "/d", "prevResult": previous});
            parse_config(config.to_string().as_bytes()).unwrap()
        };
        let result = |ip: Value| json!({"ips": [ip], "interfaces": [{"name": "eth0"}]});
        let told = |ip: Value| config(&result(ip)).previous(address, "eth0").unwrap();
        let gateway = |last: u8| Some(Ipv4Addr::new(10, 42, 0, last));
        let full = told(json!({"address": "10.42.0.5/24", "gateway": "10.42.0.9"}));
        assert_eq!(full, Some(Previous { prefix_len: 24, gateway: gateway(9) }));
        assert_eq!(Previous::expected(full, address, [(address, 24)]), full);
        assert_eq!(Previous::expected(full, address, [(address, 25)]), None, "not what ADD has answered");
        assert_eq!(Previous::expected(full, address, []), None);
        let bare = told(json!({"address": "10.42.0.5/24"}));
        let derived = Some(Previous { prefix_len: 24, gateway: gateway(1) });
        assert_eq!(Previous::expected(bare, address, [(address, 24)]), derived);
        assert_eq!(config(&Value::Null).previous(address, "eth0"), Ok(None));
        assert_eq!(Previous::expected(None, address, [(Ipv4Addr::LOCALHOST, 8), (address, 24)]), derived);
        for (previous, ifname) in [
            (result(json!({"address": "10.42.0.50/24"})), "eth0"),
            (result(json!({"address": "10.42.0.5"})), "eth0"),
            (result(json!({"address": "10.42.0.5/24"})), "eth1"),
            (json!({}), "eth0"),
        ] {
            assert_eq!(config(&previous).previous(address, ifname).unwrap_err().code, 101, "{previous} {ifname}");
        }
    }

    #[test]
    fn results_follow_the_asked_version() {
        let interface =
            |name: &str| Interface { name: name.to_owned(), mac: "00:11:22:33:44:55".to_owned(), sandbox: None };
        let attached = Attached {
            bridge: interface("copepod0"),
            host: interface("veth1"),
            container: Interface { sandbox: Some("/n".to_owned()), ..interface("eth0") },
            address: Ipv4Addr::new(10, 42, 0, 5),
            prefix_len: 24,
            gateway: Ipv4Addr::new(10, 42, 0, 1),
        };
        let new: Value = serde_json::from_str(&attached.to_json("1.0.0")).unwrap();
        assert_eq!(new["ips"][0], json!({"address": "10.42.0.5/24", "gateway": "10.42.0.1", "interface": 2}));
        assert_eq!(new["interfaces"][2]["sandbox"], "/n");
        let old: Value = serde_json::from_str(&attached.to_json("0.4.0")).unwrap();
        assert_eq!(old["ips"][0]["version"], "4");
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_not_a_panic(text in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse_config(&text);
            let _ = version_of(&text);
        }
    }
}
