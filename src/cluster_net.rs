//! The Services' network and the address of the cluster's DNS, as a joining node finds them: the
//! cluster's own word, what was typed, or what the node was told when it last asked.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use kube::{Api, Client};
use netproxy::cidr::Cidr4;
use serde::{Deserialize, Serialize};

use crate::cli::ClusterNet;
use crate::files;
use crate::node::UsageError;

/// How long a start waits for the cluster's word: pods that run already must not wait for an API server.
const PATIENCE: Duration = Duration::from_secs(5);

/// The ServiceCIDR of the API server's own flag (upstream's `DefaultServiceCIDRName`).
const DEFAULT_RANGES: &str = "kubernetes";

/// What a cluster says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Networks {
    /// The Services' networks; none where the cluster has no such objects, or shows them to nobody.
    services: Vec<String>,
    /// The address of the Service `kube-dns`.
    dns: Option<String>,
}

/// Which flags were typed.
#[derive(Clone, Copy, Debug)]
struct Typed {
    range: bool,
    dns: bool,
}

/// Takes over what the cluster says, and remembers it in `file`. What is not known is warned of.
///
/// # Errors
/// When the cluster's word is not what was typed.
pub async fn resolve(net: &ClusterNet, typed: &[String], client: &Client, file: &Path) -> Result<ClusterNet> {
    let is_typed = |flag: &str| typed.iter().any(|word| word.split('=').next() == Some(flag));
    let typed = Typed { range: is_typed("--service-cluster-ip-range"), dns: is_typed("--cluster-dns") };
    let fetched = tokio::time::timeout(PATIENCE, fetch(client)).await;
    let told = match fetched {
        Ok(Ok(told)) => {
            files::replace(file, &serde_json::to_vec(&told)?, 0o600).context("remember the cluster's networks")?;
            told
        }
        _ => std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default(),
    };
    let (net, warnings) = decide(net, typed, &told)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(net)
}

async fn fetch(client: &Client) -> kube::Result<Networks> {
    let ranges = Api::<ServiceCIDR>::all(client.clone()).list(&ListParams::default()).await;
    let services = match ranges {
        Ok(ranges) => first_first(ranges.items),
        // Older than v1.33, or not for this client's eyes.
        Err(kube::Error::Api(status)) if [403, 404].contains(&status.code) => Vec::new(),
        Err(error) => return Err(error),
    };
    let only = ListParams::default().fields("metadata.name=kube-dns");
    let dns = match Api::<Service>::namespaced(client.clone(), "kube-system").list(&only).await {
        Ok(found) => found.items.into_iter().find_map(|service| service.spec?.cluster_ip),
        Err(kube::Error::Api(status)) if status.code == 403 => None,
        Err(error) => return Err(error),
    };
    Ok(Networks { services, dns })
}

/// The ranges of these objects, those that the cluster began with before all that were added since.
fn first_first(mut ranges: Vec<ServiceCIDR>) -> Vec<String> {
    ranges.sort_by_key(|range| range.metadata.name.as_deref() != Some(DEFAULT_RANGES));
    ranges.into_iter().filter_map(|range| range.spec?.cidrs).flatten().collect()
}

/// What the node takes, and what it should be told about that.
fn decide(given: &ClusterNet, typed: Typed, told: &Networks) -> Result<(ClusterNet, Vec<String>), UsageError> {
    let (mut net, mut warnings) = (given.clone(), Vec::new());
    let ranges: Vec<Cidr4> = told.services.iter().filter_map(|range| range.parse().ok()).collect();
    let typed_range = given.service_cluster_ip_range.parse::<Cidr4>().ok().filter(|_| typed.range);
    match (ranges.as_slice(), typed_range) {
        ([], Some(_)) => {}
        ([], None) => warnings.push(format!(
            "the cluster does not say which network its Services have; {} is taken: name its own with \
             --service-cluster-ip-range",
            given.service_cluster_ip_range
        )),
        (ranges, Some(range)) if !ranges.contains(&range) => {
            return Err(UsageError(format!(
                "--service-cluster-ip-range={range}: the cluster's Services have {}",
                told.services.join(", ")
            )));
        }
        (_, Some(_)) => {}
        ([first, ..], None) => net.service_cluster_ip_range = first.to_string(),
    }
    let dns = told.dns.as_ref().and_then(|address| address.parse::<IpAddr>().ok());
    match (dns, given.cluster_dns.filter(|_| typed.dns)) {
        (Some(told), Some(given)) if told != given => warnings.push(format!(
            "--cluster-dns={given}: the cluster's Service kube-dns has {told}; names in pods are asked of {given}"
        )),
        (Some(told @ IpAddr::V4(_)), None) => net.cluster_dns = Some(told),
        _ => {}
    }
    Ok((net, warnings))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn net(range: &str, dns: Option<&str>) -> ClusterNet {
        ClusterNet {
            cluster_cidr: "10.42.0.0/16".to_owned(),
            service_cluster_ip_range: range.to_owned(),
            cluster_dns: dns.map(|address| address.parse().unwrap()),
            cluster_domain: "cluster.local".to_owned(),
        }
    }

    fn told(services: &[&str], dns: Option<&str>) -> Networks {
        Networks { services: services.iter().map(|&range| range.to_owned()).collect(), dns: dns.map(str::to_owned) }
    }

    #[test]
    fn the_clusters_word_counts_where_nothing_was_typed() {
        let usual = net("10.43.0.0/16", None);
        let nothing = Typed { range: false, dns: false };
        let (taken, warnings) = decide(&usual, nothing, &told(&["10.96.0.0/12"], Some("10.96.0.10"))).unwrap();
        assert_eq!(taken.service_cluster_ip_range, "10.96.0.0/12");
        assert_eq!((taken.cluster_dns, warnings), (Some("10.96.0.10".parse().unwrap()), vec![]));
        // Of two families the one that is spoken.
        let (taken, _) = decide(&usual, nothing, &told(&["fd00::/108", "10.96.0.0/12"], Some("fd00::a"))).unwrap();
        assert_eq!((taken.service_cluster_ip_range.as_str(), taken.cluster_dns), ("10.96.0.0/12", None));
    }

    #[test]
    fn a_range_that_was_added_is_not_the_first() {
        let range = |name: &str, cidr: &str| {
            let object = json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}});
            serde_json::from_value::<ServiceCIDR>(object).unwrap()
        };
        let ranges = vec![range("added", "10.99.0.0/24"), range("kubernetes", "10.96.0.0/16")];
        assert_eq!(first_first(ranges), ["10.96.0.0/16", "10.99.0.0/24"]);
    }

    #[test]
    fn what_was_typed_has_to_be_the_clusters() {
        let typed = Typed { range: true, dns: true };
        let given = net("10.50.0.0/16", Some("10.50.0.10"));
        let error = decide(&given, typed, &told(&["10.96.0.0/12"], None)).unwrap_err().0;
        assert_eq!(error, "--service-cluster-ip-range=10.50.0.0/16: the cluster's Services have 10.96.0.0/12");
        // A resolver of the node's own is somebody's choice.
        let (taken, warnings) = decide(&given, typed, &told(&["10.50.0.0/16"], Some("10.50.0.53"))).unwrap();
        assert_eq!(taken.cluster_dns, given.cluster_dns);
        assert!(warnings.len() == 1 && warnings[0].contains("kube-dns has 10.50.0.53"), "{warnings:?}");
    }

    #[test]
    fn what_nobody_says_is_warned_of() {
        let usual = net("10.43.0.0/16", None);
        let (taken, warnings) = decide(&usual, Typed { range: false, dns: false }, &Networks::default()).unwrap();
        assert_eq!(taken.service_cluster_ip_range, "10.43.0.0/16");
        assert!(warnings.len() == 1 && warnings[0].contains("10.43.0.0/16 is taken"), "{warnings:?}");
        let (_, warnings) = decide(&usual, Typed { range: true, dns: false }, &Networks::default()).unwrap();
        assert_eq!(warnings, [""; 0]);
    }
}
