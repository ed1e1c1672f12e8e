//! Tests of `scheduler::plugins`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeAffinity, Taint, Toleration};
use serde_json::{Value, json};

use super::affinity;
use super::image::ImageLocality;
use super::resources::{NodeResourcesBalancedAllocation, NodeResourcesFit, Strategy};
use super::taints::TaintToleration;
use crate::cache::Cache;
use crate::framework::{Profile, ScorePlugin};
use crate::pod::{HostPort, PodInfo};
use crate::profile::{PluginArgs, default_profile};
use crate::testing::{node, pod, pod_on};
use client::tolerations::tolerates;

fn profile() -> Profile {
    default_profile("default-scheduler", &PluginArgs::default())
}

fn fits(cache: &Cache, pod: &PodInfo) -> Vec<String> {
    let fits = |s: &&usize| crate::cycle::hint(&profile(), &cache.nodes, pod, **s, &BTreeSet::new());
    let mut names: Vec<_> = cache.nodes.order().iter().filter(fits).map(|s| cache.nodes.name(*s).to_owned()).collect();
    names.sort();
    names
}

fn scores(plugin: &dyn ScorePlugin, cache: &Cache, pod: &PodInfo) -> Vec<i64> {
    let Some(scorer) = plugin.pre_score(pod, &cache.nodes, cache.nodes.order()) else { return Vec::new() };
    let mut raw: Vec<i64> = cache.nodes.order().iter().map(|s| scorer.score(*s)).collect();
    scorer.normalize(&mut raw);
    raw
}

fn labelled(name: &str, labels: &[(&str, &str)]) -> Node {
    let mut n = node(name, "4", "8Gi");
    n.metadata.labels.as_mut().unwrap().extend(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    n
}

fn zones() -> Cache {
    let mut cache = Cache::default();
    cache.upsert_node(&labelled("a", &[("zone", "1"), ("cores", "4")]));
    cache.upsert_node(&labelled("b", &[("zone", "2"), ("cores", "16")]));
    cache.upsert_node(&labelled("c", &[]));
    cache
}

fn with_affinity(value: Value) -> PodInfo {
    let affinity: NodeAffinity = serde_json::from_value(value).unwrap();
    PodInfo { node_affinity: Some(affinity), ..pod("p", "") }
}

fn required(terms: Value) -> PodInfo {
    with_affinity(json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}))
}

#[test]
fn node_affinity_operators() {
    let cache = zones();
    for (expression, want) in [
        (json!({"key": "zone", "operator": "In", "values": ["1", "7"]}), vec!["a"]),
        (json!({"key": "zone", "operator": "NotIn", "values": ["1"]}), vec!["b", "c"]),
        (json!({"key": "zone", "operator": "Exists"}), vec!["a", "b"]),
        (json!({"key": "zone", "operator": "DoesNotExist"}), vec!["c"]),
        (json!({"key": "cores", "operator": "Gt", "values": ["4"]}), vec!["b"]),
        (json!({"key": "cores", "operator": "Lt", "values": ["5"]}), vec!["a"]),
        (json!({"key": "cores", "operator": "Gt", "values": ["x"]}), vec![]),
        (json!({"key": "never-seen", "operator": "NotIn", "values": ["1"]}), vec!["a", "b", "c"]),
        (json!({"key": "never-seen", "operator": "In", "values": ["1"]}), vec![]),
        (json!({"key": "zone", "operator": "Garbage"}), vec![]),
    ] {
        assert_eq!(fits(&cache, &required(json!([{"matchExpressions": [expression]}]))), want, "{expression}");
    }
}

#[test]
fn terms_are_alternatives_and_empty_ones_match_nothing() {
    let cache = zones();
    let zone = |z: &str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [z]}]});
    assert_eq!(fits(&cache, &required(json!([zone("1"), zone("2")]))), ["a", "b"]);
    assert!(fits(&cache, &required(json!([{}]))).is_empty());
    assert!(fits(&cache, &required(json!([]))).is_empty());
    let selected = PodInfo { node_selector: [("zone".to_owned(), "2".to_owned())].into(), ..pod("p", "") };
    assert_eq!(fits(&cache, &selected), ["b"]);
}

#[test]
fn a_named_node_is_the_only_one_looked_at() {
    let cache = zones();
    let name = |n: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [n]}]});
    assert_eq!(fits(&cache, &required(json!([name("c")]))), ["c"]);
    assert!(fits(&cache, &required(json!([name("gone")]))).is_empty());
    let not = json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["c"]}]}]);
    assert_eq!(fits(&cache, &required(not)), ["a", "b"]);
}

#[test]
fn preferred_terms_add_up() {
    let prefer = |w: i32, z: &str| json!({"weight": w, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": [z]}]}});
    let p =
        with_affinity(json!({"preferredDuringSchedulingIgnoredDuringExecution": [prefer(20, "1"), prefer(80, "2")]}));
    assert_eq!(scores(&affinity::NodeAffinity, &zones(), &p), [25, 100, 0]);
}

#[test]
fn tolerations_as_upstream() {
    let taint = Taint { key: "k".into(), value: Some("v".into()), effect: "NoExecute".into(), time_added: None };
    let check = |key: &str, operator: &str, value: &str, effect: &str, want: bool| {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let t = Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        };
        assert_eq!(tolerates(&t, &taint), want, "{t:?}");
    };
    check("k", "", "v", "NoExecute", true);
    check("k", "Equal", "v", "", true);
    check("k", "Equal", "w", "", false);
    check("k", "Exists", "", "", true);
    check("", "Exists", "", "", true);
    check("", "Equal", "v", "", false);
    check("j", "Exists", "", "", false);
    check("k", "Exists", "", "NoSchedule", false);
    check("k", "Garbage", "v", "", false);
}

#[test]
fn soft_taints_lower_the_score() {
    let mut cache = Cache::default();
    for (name, n) in [("a", 0), ("b", 1), ("c", 2)] {
        let taint = |i| Taint { key: format!("k{i}"), effect: "PreferNoSchedule".into(), ..Taint::default() };
        let mut tainted = node(name, "4", "8Gi");
        tainted.spec.as_mut().unwrap().taints = Some((0..n).map(taint).collect());
        cache.upsert_node(&tainted);
    }
    assert_eq!(scores(&TaintToleration, &cache, &pod("p", "")), [100, 50, 0]);
    assert_eq!(fits(&cache, &pod("p", "")).len(), 3);
}

#[test]
fn strategies_of_fit() {
    let mut cache = Cache::default();
    cache.upsert_node(&node("a", "1", "1Gi"));
    cache.upsert_node(&node("b", "1", "1Gi"));
    cache.pod_seen(&pod_on("x", "500m", "b"));
    let fit = |strategy| NodeResourcesFit { strategy, resources: vec![("cpu".to_owned(), 1)] };
    let p = pod("p", "250m");
    assert_eq!(scores(&fit(Strategy::LeastAllocated), &cache, &p), [75, 25]);
    assert_eq!(scores(&fit(Strategy::MostAllocated), &cache, &p), [25, 75]);
    let shape = vec![(0, 10), (50, 0), (100, 10)];
    assert_eq!(scores(&fit(Strategy::RequestedToCapacityRatio(shape)), &cache, &p), [50, 50]);
}

#[test]
fn balance_prefers_even_use() {
    let mut cache = Cache::default();
    cache.upsert_node(&node("a", "1", "1Gi"));
    cache.upsert_node(&node("b", "2", "64Gi"));
    let mut p = pod("p", "500m");
    p.requests.exact.memory = 512 * 1024 * 1024;
    let s = scores(&NodeResourcesBalancedAllocation::default(), &cache, &p);
    assert_eq!(s[0], 100);
    assert!(s[1] < 90, "{s:?}");
    assert!(scores(&NodeResourcesBalancedAllocation::default(), &cache, &pod("p", "")).is_empty());
}

#[test]
fn extended_resources_must_exist() {
    let mut cache = zones();
    let mut p = pod("p", "");
    p.requests.exact.scalars = vec![("example.com/gpu".to_owned(), 1)];
    assert!(fits(&cache, &p).is_empty());
    let mut gpu = node("g", "4", "8Gi");
    let quantity = k8s_openapi::apimachinery::pkg::api::resource::Quantity("1".into());
    gpu.status.as_mut().unwrap().allocatable.as_mut().unwrap().insert("example.com/gpu".into(), quantity);
    cache.upsert_node(&gpu);
    assert_eq!(fits(&cache, &p), ["g"]);
    let taken = PodInfo { node: Some("g".into()), ..p.clone() };
    cache.pod_seen(&taken);
    assert!(fits(&cache, &PodInfo { name: "q".into(), ..p }).is_empty());
}

#[test]
fn ports_cordons_and_names() {
    let mut cache = zones();
    let port = |ip: &str| vec![HostPort { ip: ip.to_owned(), protocol: "TCP".to_owned(), port: 80 }];
    cache.pod_seen(&PodInfo { host_ports: port("10.0.0.1"), ..pod_on("x", "", "a") });
    cache.pod_seen(&PodInfo { host_ports: port("0.0.0.0"), ..pod_on("y", "", "b") });
    assert_eq!(fits(&cache, &PodInfo { host_ports: port("10.0.0.2"), ..pod("p", "") }), ["a", "c"]);
    assert_eq!(fits(&cache, &PodInfo { host_ports: port("0.0.0.0"), ..pod("p", "") }), ["c"]);
    let mut cordoned = labelled("c", &[]);
    cordoned.spec.as_mut().unwrap().unschedulable = Some(true);
    cache.upsert_node(&cordoned);
    assert_eq!(fits(&cache, &pod("p", "")), ["a", "b"]);
    let all = Toleration { operator: Some("Exists".into()), ..Toleration::default() };
    assert_eq!(fits(&cache, &PodInfo { tolerations: vec![all], ..pod("p", "") }), ["a", "b", "c"]);
    assert_eq!(fits(&cache, &PodInfo { node: Some("b".into()), ..pod("p", "") }), ["b"]);
}

#[test]
fn nodes_with_the_image_are_preferred() {
    let mut cache = Cache::default();
    for (name, size) in [("a", 0_i64), ("b", 600 * 1024 * 1024)] {
        let mut n = node(name, "4", "8Gi");
        if size > 0 {
            let image = ContainerImage { names: Some(vec!["r/app:latest".into()]), size_bytes: Some(size) };
            n.status.as_mut().unwrap().images = Some(vec![image]);
        }
        cache.upsert_node(&n);
    }
    let p = PodInfo { images: vec!["r/app".into()], ..pod("p", "") };
    let s = scores(&ImageLocality, &cache, &p);
    assert!(s[0] == 0 && s[1] > 20, "{s:?}");
}
