//! Documents as they are found, and documents as they should not be.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::conntrack::tuning::ConntrackSettings;

const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn base() -> ServiceProxyConfig {
    let mut config = ServiceProxyConfig::new("node", vec![NODE]);
    config.cluster_cidrs = vec!["10.42.0.0/16".parse().unwrap()];
    config
}

fn apply(mut fields: Value) -> Result<(ServiceProxyConfig, Applied), Vec<String>> {
    fields["apiVersion"] = API_VERSION.into();
    fields["kind"] = KIND.into();
    let mut config = base();
    apply_kube_proxy_configuration(&mut config, fields).map(|applied| (config, applied))
}

fn shown(config: &ServiceProxyConfig) -> Value {
    effective(config)
}

/// As installers write it: every field is there, most say nothing.
fn installers() -> Value {
    json!({
        "bindAddress": "0.0.0.0", "bindAddressHardFail": false,
        "clientConnection": {"acceptContentTypes": "", "burst": 0, "contentType": "",
                             "kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf", "qps": 0},
        "clusterCIDR": "10.244.0.0/16", "configSyncPeriod": "0s",
        "conntrack": {"maxPerCore": null, "min": null, "tcpBeLiberal": false, "tcpCloseWaitTimeout": null,
                      "tcpEstablishedTimeout": null, "udpStreamTimeout": "0s", "udpTimeout": "0s"},
        "detectLocal": {"bridgeInterface": "", "interfaceNamePrefix": ""}, "detectLocalMode": "",
        "enableProfiling": false, "healthzBindAddress": "", "hostnameOverride": "",
        "iptables": {"localhostNodePorts": null, "masqueradeAll": false, "masqueradeBit": null,
                     "minSyncPeriod": "0s", "syncPeriod": "0s"},
        "ipvs": {"excludeCIDRs": null, "minSyncPeriod": "0s", "scheduler": "", "strictARP": false,
                 "syncPeriod": "0s", "tcpFinTimeout": "0s", "tcpTimeout": "0s", "udpTimeout": "0s"},
        "logging": {"flushFrequency": 0, "options": {"json": {"infoBufferSize": "0"}}, "verbosity": 0},
        "metricsBindAddress": "", "mode": "",
        "nftables": {"masqueradeAll": false, "masqueradeBit": null, "minSyncPeriod": "0s", "syncPeriod": "0s"},
        "nodePortAddresses": null, "oomScoreAdj": null, "portRange": "", "showHiddenMetricsForVersion": "",
        "winkernel": {"enableDSR": false, "forwardHealthCheckVip": false, "networkName": "",
                      "rootHnsEndpointName": "", "sourceVip": ""},
    })
}

#[test]
fn an_installers_file_leaves_defaults() {
    let (config, applied) = apply(installers()).unwrap();
    assert_eq!(applied.ignored, ["logging"], "its buffer sizes say something");
    assert_eq!(applied.kubeconfig, Some("/var/lib/kube-proxy/kubeconfig.conf".into()));
    let mut expect = base();
    expect.cluster_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
    expect.conntrack = ConntrackSettings::upstream();
    assert_eq!(shown(&config), shown(&expect));
    assert_eq!(config.node_port_addresses, NodePortAddresses::AllLocal);
    assert_eq!(config.conntrack.tcp_established, Some(Duration::from_secs(86_400)));
}

#[test]
fn settings_are_laid_over() {
    let (config, applied) = apply(json!({
        "mode": "nftables", "clusterCIDR": "10.8.0.0/14, 10.16.0.0/16", "bindAddress": "198.51.100.7",
        "healthzBindAddress": "127.0.0.1:1", "metricsBindAddress": "0.0.0.0", "bindAddressHardFail": true,
        "hostnameOverride": " Worker ", "detectLocalMode": "BridgeInterface",
        "detectLocal": {"bridgeInterface": "cni0"},
        "nftables": {"masqueradeAll": true, "masqueradeBit": 3, "syncPeriod": "1m30s", "minSyncPeriod": "500ms"},
        "conntrack": {"maxPerCore": 0, "min": 5, "tcpBeLiberal": true, "tcpEstablishedTimeout": "2h", "udpTimeout": "10s",
                      "tcpCloseWaitTimeout": "0s"},
        "iptables": {"masqueradeBit": 14}, "oomScoreAdj": -999,
    }))
    .unwrap();
    let nets: Vec<_> = config.cluster_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.8.0.0/14", "10.16.0.0/16"]);
    assert_eq!(config.node_ips, ["198.51.100.7".parse::<IpAddr>().unwrap()]);
    let primary = NodePortAddresses::Within(vec!["198.51.100.7/32".parse().unwrap()]);
    assert_eq!(config.node_port_addresses, primary, "as upstream in this mode");
    assert_eq!(config.healthz_bind_address, "127.0.0.1:1".parse().ok());
    assert_eq!(config.metrics_bind_address, "0.0.0.0:10249".parse().ok());
    assert!(config.bind_address_hard_fail && config.masquerade_all);
    assert_eq!((config.node_name.as_str(), config.masquerade_bit), ("worker", 3));
    assert_eq!(config.detect_local, DetectLocal::BridgeInterface("cni0".to_owned()));
    assert_eq!((config.sync_period, config.min_sync_period), (Duration::from_secs(90), Duration::from_millis(500)));
    let conntrack = ConntrackSettings {
        max_per_core: Some(0),
        min: 5,
        tcp_established: Some(Duration::from_secs(7200)),
        tcp_close_wait: None,
        tcp_be_liberal: true,
        udp: Some(Duration::from_secs(10)),
        udp_stream: None,
    };
    assert_eq!(config.conntrack, conntrack);
    assert_eq!(applied.ignored, ["iptables.masqueradeBit", "oomScoreAdj"]);
}

#[test]
fn node_ports_by_word_and_network() {
    let of = |list: &[&str]| apply(json!({"nodePortAddresses": list})).map(|(config, _)| config.node_port_addresses);
    let within = |nets: &[&str]| Ok(NodePortAddresses::Within(nets.iter().map(|n| n.parse().unwrap()).collect()));
    assert_eq!(of(&["primary"]), within(&["192.0.2.1/32"]));
    assert_eq!(of(&["primary", "10.0.0.0/8"]), within(&["192.0.2.1/32", "10.0.0.0/8"]));
    for all in [&["all"][..], &["0.0.0.0/0"], &["primary", "all"], &[]] {
        assert_eq!(of(all), Ok(NodePortAddresses::AllLocal), "{all:?}");
    }
    for bad in ["localhost", "127.0.0.0/8", "127.0.0.1/32", "fd00::/8", "nonsense", "10.0.0.1", ""] {
        assert!(of(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn all_problems_come_at_once_and_nothing_changes() {
    let mut config = base();
    let document = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v2", "mode": "ipvs", "clusterCIDR": "10.0.0.0/8,fd00::/48",
        "noSuchField": 1, "nftables": {"masqueradeBit": 32, "syncPeriod": "soon", "other": 1}, "ipvs": {"odd": true},
        "conntrack": {"maxPerCore": -1, "udpTimeout": "-5s"}, "detectLocalMode": "BridgeInterface",
        "detectLocal": {"interfaceNamePrefix": "ve*"}, "healthzBindAddress": "here:10256", "bindAddress": "::1",
        "nodePortAddresses": ["localhost"], "clientConnection": "none", "metricsBindAddress": "127.0.0.1:0",
    });
    let all = apply_kube_proxy_configuration(&mut config, document).unwrap_err().join("\n");
    for line in [
        "apiVersion: must be kubeproxy.config.k8s.io/v1alpha1",
        "kind: must be KubeProxyConfiguration",
        "mode: ipvs is not offered",
        "clusterCIDR: \"fd00::/48\" is not an IPv4 prefix",
        "noSuchField: unknown field",
        "nftables.masqueradeBit: must be within 0 to 31",
        "nftables.syncPeriod: \"soon\" is not a duration",
        "nftables.other: unknown field",
        "ipvs.odd: unknown field",
        "conntrack.maxPerCore: ",
        "conntrack.udpTimeout: \"-5s\" is not a duration",
        "detectLocalMode: needs detectLocal.bridgeInterface",
        "detectLocal.interfaceNamePrefix: \"ve*\" is not the name of an interface",
        "healthzBindAddress: \"here:10256\" is not IP:port",
        "metricsBindAddress: \"127.0.0.1:0\" is not IP:port",
        "bindAddress: ::1: only IPv4",
        "nodePortAddresses: NodePorts are not served on loopback",
        "clientConnection: must be an object",
    ] {
        assert!(all.contains(line), "{line} is not in\n{all}");
    }
    assert_eq!(shown(&config), shown(&base()));
    for mode in ["iptables", "userspace", "NFTables"] {
        assert!(apply(json!({"mode": mode})).is_err(), "{mode}");
    }
    for document in [Value::Null, json!([]), json!("x"), json!({})] {
        assert!(apply_kube_proxy_configuration(&mut config, document.clone()).is_err(), "{document}");
    }
    let late = apply(json!({"nftables": {"syncPeriod": "1s", "minSyncPeriod": "2s"}})).unwrap_err();
    assert_eq!(late, ["nftables.syncPeriod: must not be shorter than nftables.minSyncPeriod"]);
}

#[test]
fn durations_are_gos() {
    let read = |text: &str| duration(json!(text));
    assert_eq!(read("1h2m3.5s"), Ok(Duration::from_millis(3_723_500)));
    assert_eq!(read("100ms"), Ok(Duration::from_millis(100)));
    assert_eq!(read("0s"), Ok(Duration::ZERO));
    assert_eq!(read("1.5h0.5m"), Ok(Duration::from_secs(5430)));
    assert_eq!(read(".5s"), Ok(Duration::from_millis(500)));
    assert_eq!(read("2562047h"), Ok(Duration::from_secs(2_562_047 * 3600)));
    for text in [
        "",
        "5",
        "s",
        "1x",
        "-1s",
        "1..2s",
        "1 s",
        "PT1H",
        "1 hour ago",
        "1hour",
        "5mins",
        "1H",
        "1h,30m",
        "1,5s",
        "2562048h",
        "9999999999999999999h",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{1,4}", inner, 0..3).prop_map(|m| json!(m)),
        ]
    })
}

proptest! {
    /// Whatever stands in a known field: it is taken or named, and what is taken can be shown.
    #[test]
    fn garbage_in_a_field_is_named(at in 0..FIELDS.len() + IGNORED.len(), value in anything()) {
        let name = FIELDS.get(at).map_or_else(|| IGNORED[at - FIELDS.len()], |(name, _)| name);
        let fields = match name.split_once('.') {
            None => json!({name: value}),
            Some((section, field)) => json!({section: {field: value}}),
        };
        match apply(fields) {
            Ok((config, _)) => prop_assert!(shown(&config).is_object()),
            Err(problems) => {
                let section = name.split('.').next().unwrap_or_default();
                prop_assert!(problems.iter().all(|p| p.starts_with(section)), "{problems:?}");
            }
        }
    }
}
