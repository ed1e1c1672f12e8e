//! Objects as Go's clients write them: what the typed model reads, all of our readers do.
#![no_main]

use client::decode::{Decoded, decode};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return };
    // As the API stores it: each key once.
    let stored = value.to_string();
    let [service, slice, node] = netproxy::fuzzing::objects(&stored);
    assert!(service || serde_json::from_str::<Service>(&stored).is_err(), "Service");
    assert!(slice || serde_json::from_str::<EndpointSlice>(&stored).is_err(), "EndpointSlice");
    assert!(node || serde_json::from_str::<Node>(&stored).is_err(), "Node");
    let typed = serde_json::from_str::<Pod>(&stored).is_ok();
    assert!(!typed || matches!(decode::<Pod>(&stored), Decoded::Object(_)), "Pod");
    gojson::normalize(&mut value);
    let mut again = value.clone();
    gojson::normalize(&mut again);
    assert_eq!(again, value);
    let _ = gojson::identity(&value);
});
