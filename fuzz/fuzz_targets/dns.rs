//! Questions to the cluster's DNS; resolv.conf, as its two readers have it.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    netproxy::fuzzing::dns(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let of_pods = agent::fuzzing::resolv_conf(text);
        let of_pods: Vec<IpAddr> = of_pods.iter().filter_map(|server| server.parse().ok()).collect();
        assert_eq!(netproxy::fuzzing::resolv_conf(text), of_pods);
    }
});
