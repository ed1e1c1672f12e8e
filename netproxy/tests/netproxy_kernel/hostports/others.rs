//! Host ports beside what is not theirs: other networks, the node itself, and whoever takes things away.

use super::*;

#[test]
fn containers_of_another_network_keep_their_ports() {
    let node = Node::new();
    make_bridge(&node.net.node, "copepod8", Ipv4Addr::new(10, 42, 8, 1));
    let namespaces = [Namespace::new(), Namespace::new()];
    let elsewhere = |command, index: usize, host_port| {
        let mut more = ports(&[mapping("", "tcp", host_port)]);
        more["name"] = json!("other");
        more["bridge"] = json!("copepod8");
        more["subnet"] = json!("10.42.8.0/24");
        node.call(command, &format!("other-{index}"), netns(&namespaces[index]), more)
    };
    elsewhere("ADD", 0, 80).unwrap();
    let (table, links) = (node.observed(), node.links());
    let error = node.add(1, &[mapping("", "tcp", 80)]).err().unwrap();
    assert_eq!(error["code"], 102, "{error}");
    assert!(error["details"].as_str().unwrap().contains("10.42.8.2"), "{error}");
    assert_eq!((node.observed(), node.links(), node.leases().contains("pod-1")), (table, links, false));
    let pod = node.add(1, &[mapping("", "tcp", 81)]).unwrap();
    assert_eq!(elsewhere("ADD", 1, 81).unwrap_err()["code"], 102);
    elsewhere("CHECK", 0, 80).unwrap();
    node.collect(&[&pod]);
    assert_eq!(node.elements(), 6);
    elsewhere("DEL", 0, 80).unwrap();
    assert_eq!((node.elements(), node.who(&node.net.client, at(NODE_IP, 81))), (3, Ok(1)));
}

/// A Node whose object was made anew may get another range than the one its running containers are in.
#[test]
fn host_ports_outlive_a_move_of_the_nodes_network_and_go_with_their_containers() {
    let node = Node::new();
    let (first, second) =
        (node.add(1, &[mapping("", "tcp", 80)]).unwrap(), node.add(2, &[mapping("", "tcp", 81)]).unwrap());
    node.net.node.ip(&format!("addr add 10.42.8.1/24 dev {BRIDGE}"));
    let moved = |command, id: &str, namespace: &Namespace, mappings: &[Value]| {
        let mut more = ports(mappings);
        more["subnet"] = json!("10.42.8.0/24");
        node.call(command, id, netns(namespace), more)
    };
    moved("DEL", &first.id, &first.namespace, &[]).unwrap();
    assert_eq!(
        (node.elements(), node.who(&node.net.client, at(NODE_IP, 81))),
        (3, Ok(2)),
        "the other's alone are left"
    );
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 80)), Err(ErrorKind::ConnectionRefused));
    let third = Namespace::new();
    let taken = moved("ADD", "pod-3", &third, &[mapping("", "tcp", 81)]).unwrap_err();
    assert!(taken["details"].as_str().unwrap().contains(&second.id), "{taken}");
    moved("ADD", "pod-3", &third, &[mapping("", "tcp", 80)]).unwrap();
    third.run(|| serve(3));
    let answers = || node.who(&node.net.client, at(NODE_IP, 80)) == Ok(3);
    eventually("the port leads into the new network", answers);
    // Asked for again, it is attached where the network is now.
    let again = moved("ADD", &second.id, &Namespace::new(), &[mapping("", "tcp", 81)]).unwrap();
    assert!(again["ips"][0]["address"].as_str().unwrap().starts_with("10.42.8."), "{again}");
    assert_eq!(node.elements(), 6);
}

/// Where there is no room, pods can still end: they may be what takes it.
#[test]
fn a_container_is_detached_though_its_lease_cannot_be_taken_back() {
    let node = Node::new();
    let pod = node.add(1, &[mapping("", "tcp", 80)]).unwrap();
    std::os::unix::fs::symlink("/dev/full", node.data.path().join(".copepod.json")).unwrap();
    node.delete(&pod).unwrap();
    assert_eq!((node.elements(), node.links()), (0, 0));
    assert!(node.leases().contains("pod-1"), "it could not be written");
    drop(pod);
    let config = restored::config(&node);
    node.net.node.run(move || cni::restore_host_ports(&config).unwrap());
    assert_eq!((node.elements(), node.leases().contains("pod-1")), (0, false), "its namespace is gone");
}

/// The file goes, the containers stay.
#[test]
fn leases_that_somebody_removed_are_made_anew() {
    let node = Node::new();
    let first = node.add(1, &[mapping("", "tcp", 80)]).unwrap();
    std::fs::remove_file(node.data.path().join("copepod.json")).unwrap();
    assert_eq!(node.add(2, &[mapping("", "tcp", 80)]).err().unwrap()["code"], 102);
    assert_ne!(node.add(2, &[]).unwrap().address, first.address);
    node.check(&first, &[mapping("", "tcp", 80)]).unwrap();
}

#[test]
fn the_nodes_own_ports_stay_the_nodes() {
    let node = Node::new();
    answer(&node.net.node, Ipv4Addr::UNSPECIFIED, 10250);
    for host_ip in ["", "127.0.0.1", "192.0.2.1"] {
        let mappings = [mapping("", "tcp", 8000), mapping(host_ip, "tcp", 10250)];
        let error = node.add(1, &mappings).err().unwrap();
        assert_eq!(error["code"], 102, "{error}");
        assert_eq!((node.links(), node.leases().contains("pod-1")), (0, false), "nothing is left of it");
    }
    // Tunnels end on a UDP port.
    assert_eq!(node.add(1, &[mapping("", "udp", 8472)]).err().unwrap()["code"], 102);
    let _pod = node.add(1, &[mapping("", "udp", 10251), mapping("", "tcp", 10251), mapping("", "tcp", 8472)]).unwrap();
    for from in [&node.net.client, &node.net.node] {
        assert_eq!(node.who(from, at(NODE_IP, 10250)), Ok(99));
        assert_eq!(node.who(from, at(NODE_IP, 10251)), Ok(1));
    }
}

/// Answers on a port as nobody's container would.
fn answer(node: &Namespace, address: Ipv4Addr, port: u16) {
    node.run(move || {
        let (listener, socket) =
            (TcpListener::bind((address, port)).unwrap(), UdpSocket::bind((address, port)).unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = std::io::Write::write_all(&mut stream, &[99, 0, 0, 0, 0]);
            }
        });
        std::thread::spawn(move || {
            while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                let _ = socket.send_to(&[99], from);
            }
        });
    });
}

/// Cluster DNS answers at an address of its own on the pods' bridge, which is the node's like every other.
#[test]
fn cluster_dns_stays_the_nodes_whatever_port_a_container_has() {
    let node = Node::new();
    node.net.node.ip(&format!("addr add {DNS}/32 dev {BRIDGE}"));
    answer(&node.net.node, DNS, 53);
    let mappings = [mapping("", "udp", 53), mapping("", "tcp", 53), mapping(&DNS.to_string(), "tcp", 54)];
    let (pod, other) = (node.add(1, &mappings).unwrap(), node.add(2, &[]).unwrap());
    for (from, namespace) in [("the node", &node.net.node), ("a pod", &other.namespace), ("itself", &pod.namespace)] {
        let socket = udp_socket(namespace, Ipv4Addr::UNSPECIFIED);
        assert_eq!(ask_udp(&socket, at(DNS, 53)).unwrap(), 99, "UDP from {from}");
        assert_eq!(node.who(namespace, at(DNS, 53)), Ok(99), "TCP from {from}");
        assert_eq!(node.who(namespace, at(DNS, 54)), Err(ErrorKind::ConnectionRefused), "its other ports from {from}");
        let socket = udp_socket(namespace, Ipv4Addr::UNSPECIFIED);
        assert_eq!(ask_udp(&socket, at(NODE_IP, 53)).unwrap(), 1, "the node's own address from {from}");
    }
}

#[test]
fn a_check_sees_what_somebody_took_away() {
    let node = Node::new();
    let check = |pod: &Pod, more: Value| node.call("CHECK", &pod.id, netns(&pod.namespace), more);
    for (index, damage) in ["link set eth0 down", "addr flush dev eth0", "route del default"].into_iter().enumerate() {
        let pod = node.add(u8::try_from(index).unwrap(), &[]).unwrap();
        let address = format!("{}/24", pod.address);
        let said = |address: &str, ifname| json!({"prevResult": {"ips": [{"address": address}], "interfaces": [{"name": ifname}]}});
        check(&pod, said(&address, "eth0")).unwrap();
        assert_eq!(check(&pod, said("10.42.7.99/24", "eth0")).unwrap_err()["code"], 101);
        assert_eq!(check(&pod, said(&address, "eth1")).unwrap_err()["code"], 101);
        pod.namespace.ip(damage);
        assert_eq!(check(&pod, json!({})).unwrap_err()["code"], 101, "{damage}");
    }
    let pod = node.add(7, &[]).unwrap();
    node.net.node.ip(&format!("link set {} nomaster", links::veth_name(&pod.id, "eth0")));
    assert_eq!(check(&pod, json!({})).unwrap_err()["code"], 101);
}

#[test]
fn without_its_bridge_the_plugin_is_not_available() {
    let node = Node::new();
    let status = || node.call("STATUS", "", PathBuf::new(), json!({}));
    status().unwrap();
    let attach = || node.add(1, &[]).err().unwrap();
    node.net.node.ip(&format!("link set {BRIDGE} down"));
    assert_eq!(status().unwrap_err()["code"], 50);
    node.net.node.ip(&format!("link delete {BRIDGE}"));
    assert_eq!(status().unwrap_err()["code"], 50);
    assert!(attach()["msg"].as_str().unwrap().contains(BRIDGE));
    // One of somebody else is no bridge of ours.
    node.net.node.ip(&format!("link add {BRIDGE} type bridge"));
    assert_eq!(status().unwrap_err()["code"], 50);
    assert!(attach()["msg"].as_str().unwrap().contains("not copepod's"), "{}", attach());
    assert_eq!((node.links(), node.leases().contains("pod-1")), (0, false));
}

#[test]
fn a_damaged_file_of_leases_is_made_anew_from_what_is_there() {
    let node = Node::new();
    let mappings = [mapping("", "tcp", 80), mapping("192.0.2.1", "udp", 53)];
    let (first, second) = (node.add(1, &mappings).unwrap(), node.add(2, &[]).unwrap());
    for damage in ["", "{", "[1]"] {
        std::fs::write(node.data.path().join("copepod.json"), damage).unwrap();
        // Neither an address nor a port is given twice.
        assert_eq!(node.add(3, &[mapping("", "tcp", 80)]).err().unwrap()["code"], 102);
        let third = node.add(3, &[]).unwrap();
        assert!(![first.address, second.address].contains(&third.address), "{}", third.address);
        node.check(&first, &mappings).unwrap();
        node.delete(&third).unwrap();
        assert_eq!(node.who(&node.net.client, at(NODE_IP, 80)), Ok(1));
    }
    node.delete(&first).unwrap();
    assert_eq!((node.elements(), node.links()), (0, 1));
}
