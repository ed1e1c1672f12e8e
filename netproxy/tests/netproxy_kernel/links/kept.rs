//! What somebody takes away comes back, and what pods need stays when the node's part of the network moves.

use harness::time;

use super::*;
use crate::net::ask_within;

#[test]
fn a_configuration_of_pods_that_somebody_removes_comes_back() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    a.start(NodeNetwork::Auto, &api);
    let before = a.conflist();
    a.remove_conflist();
    // Anything that happens to a node is a reason to look.
    annotate(&api, "a", &json!({}));
    eventually("it is there again", || a.conflist() == before);
}

#[test]
fn packets_are_passed_on_again_after_somebody_turned_that_off() {
    let (router, api) = (router(), Api::default());
    let (a, b) = two_nodes(&router, &api);
    let of = |setting: &'static str| {
        a.namespace.run(move || std::fs::read_to_string(format!("/proc/sys/net/ipv4/{setting}")).unwrap())
    };
    for (key, setting) in
        [("ipv4/ip_forward", "ip_forward"), ("ipv4/conf/copepod0/forwarding", "conf/copepod0/forwarding")]
    {
        a.namespace.sysctl(key, "0");
        // Anything that happens to a node is a reason to look.
        annotate(&api, "b", &json!({}));
        eventually(setting, || of(setting).trim() == "1");
        b.reaches(&a);
    }
    // For whoever ends the node: it was so before.
    assert_eq!(a.former_settings(), json!({"net/ipv4/ip_forward": "0"}));
}

/// As when a Node object is made anew, and another range is given to it.
#[test]
fn pods_keep_their_gateway_when_the_nodes_part_of_the_network_moves() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    a.start(NodeNetwork::Auto, &api);
    router.run(|| serve(200));
    let outside = SocketAddrV4::new([10, 1, 1, 254].into(), TARGET_PORT);
    router.ip("route add 10.42.1.0/24 via 10.1.1.1");
    let reaches =
        |a: &TestNode| a.pod.run(move || ask_within(outside, time::attempt()).is_ok_and(|answer| answer.pod == 200));
    eventually("the pod gets out", || reaches(&a));
    api.put("nodes", object("a", a.ip, 8));
    eventually("the new gateway", || bridge(&a).contains("10.42.8.1/24"));
    assert!(bridge(&a).contains("10.42.1.1/24"), "{}", bridge(&a));
    assert!(reaches(&a), "the pod that was there gets out");
    a.stop();
    a.run_network(a.config(NodeNetwork::Auto), &api);
    api.put("nodes", node("b", [10, 1, 1, 9], "10.42.9.0/24"));
    eventually("another start looked at everything", || a.shown().contains("10.42.9.0/24 via 10.1.1.9"));
    let pod = Namespace::new();
    a.call("ADD", "new", &pod);
    assert!(bridge(&a).contains("10.42.1.1/24"), "after another start, too: {}", bridge(&a));
    a.call("DEL", "pod", &a.pod);
    annotate(&api, "a", &json!({}));
    eventually("nobody needs it", || !bridge(&a).contains("10.42.1.1/24"));
    assert!(bridge(&a).contains("10.42.8.1/24") && bridge(&a).contains("10.43.0.10/32"), "{}", bridge(&a));
}
