//! Tests of `scheduler::cycle`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use super::super::cache::Cache;
use super::super::nodes::CPU;
use super::super::profile::{PluginArgs, default_profile};
use super::super::testing::{node, pod, pod_on};
use super::*;

fn profile() -> Profile {
    default_profile("default-scheduler", &PluginArgs::default())
}

fn cluster(names: &[(&str, &str)]) -> Cache {
    let mut cache = Cache::default();
    for (name, cpu) in names {
        cache.upsert_node(&node(name, cpu, "8Gi"));
    }
    cache
}

fn run(cache: &Cache, pod: &PodInfo) -> Result<String, String> {
    let mut start = 0;
    match schedule_one(&profile(), &cache.nodes, pod, &mut start, &mut XorShift::new(7)) {
        Decision::Node { slot, .. } => Ok(cache.nodes.name(slot).to_owned()),
        Decision::Unschedulable(r) => Err(message(&r, None)),
    }
}

#[test]
fn the_emptiest_node_wins() {
    let mut cache = cluster(&[("a", "4"), ("b", "4"), ("c", "4")]);
    for (name, host) in [("1", "a"), ("2", "c"), ("3", "c")] {
        cache.pod_seen(&pod_on(name, "500m", host));
    }
    assert_eq!(run(&cache, &pod("p", "100m")), Ok("b".into()));
}

#[test]
fn the_message_counts_reasons_as_upstream() {
    use k8s_openapi::api::core::v1::Taint;
    let mut cache = cluster(&[("a", "1")]);
    for name in ["b", "c"] {
        let mut tainted = node(name, "8", "8Gi");
        let taint = Taint { key: "k".into(), effect: "NoSchedule".into(), ..Taint::default() };
        tainted.spec.as_mut().unwrap().taints = Some(vec![taint]);
        cache.upsert_node(&tainted);
    }
    assert_eq!(
        run(&cache, &pod("p", "2")),
        Err("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).".into())
    );
    assert_eq!(run(&cluster(&[]), &pod("p", "2")), Err("no nodes available to schedule pods".into()));
}

#[test]
fn one_node_may_have_several_reasons() {
    let mut cache = Cache::default();
    let mut full = node("a", "1", "8Gi");
    full.status.as_mut().unwrap().allocatable.as_mut().unwrap().get_mut("pods").unwrap().0 = "0".into();
    cache.upsert_node(&full);
    assert_eq!(
        run(&cache, &pod("p", "2")),
        Err("0/1 nodes are available: 1 Insufficient cpu, 1 Too many pods.".into())
    );
}

#[test]
fn enough_is_adaptive_fixed_or_all() {
    for (nodes, percentage, want) in [
        (50, 0, 50),
        (100, 0, 100),
        (1000, 0, 420),
        (5000, 0, 500),
        (6000, 0, 300),
        (10_000, 0, 500),
        (1000, 30, 300),
        (1000, 100, 1000),
        (1000, 1, 100),
    ] {
        assert_eq!(enough_nodes(nodes, percentage), want, "{nodes} {percentage}");
    }
}

#[test]
fn the_start_moves_on_so_that_all_nodes_are_used() {
    let mut cache = Cache::default();
    for i in 0..1000 {
        cache.upsert_node(&node(&format!("n{i}"), "4", "8Gi"));
    }
    let (profile, mut start, mut ties) = (profile(), 0, XorShift::new(3));
    let Decision::Node { evaluated, feasible, .. } =
        schedule_one(&profile, &cache.nodes, &pod("p", "1"), &mut start, &mut ties)
    else {
        panic!("fits")
    };
    assert_eq!((evaluated, feasible, start), (420, 420, 420));
    schedule_one(&profile, &cache.nodes, &pod("p", "1"), &mut start, &mut ties);
    schedule_one(&profile, &cache.nodes, &pod("p", "1"), &mut start, &mut ties);
    assert_eq!(start, 260);
}

#[test]
fn ties_are_broken_evenly_and_repeatably() {
    let cache = cluster(&[("a", "4"), ("b", "4"), ("c", "4"), ("d", "4")]);
    let draw = |seed| {
        let (mut start, mut ties, mut counts) = (0, XorShift::new(seed), [0_u32; 4]);
        for _ in 0..4000 {
            let Decision::Node { slot, .. } =
                schedule_one(&profile(), &cache.nodes, &pod("p", ""), &mut start, &mut ties)
            else {
                panic!("fits")
            };
            counts[slot] += 1;
        }
        counts
    };
    assert_eq!(draw(11), draw(11));
    assert!(draw(11).iter().all(|n| (800..1200).contains(n)), "{:?}", draw(11));
}

#[test]
fn nothing_is_ever_overcommitted() {
    let mut cache = cluster(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let (mut start, mut ties, mut placed) = (0, XorShift::new(5), 0);
    for i in 0..100 {
        let p = pod(&format!("p{i}"), "300m");
        if let Decision::Node { slot, .. } = schedule_one(&profile(), &cache.nodes, &p, &mut start, &mut ties) {
            cache.assume(&p, slot);
            placed += 1;
        }
    }
    assert_eq!(placed, 3 + 6 + 10);
    let cpu = &cache.nodes.columns[CPU];
    assert!(cache.nodes.order().iter().all(|s| cpu.requested[*s] <= cpu.allocatable[*s]));
}
