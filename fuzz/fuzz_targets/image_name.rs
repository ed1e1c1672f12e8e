//! Image names, as node and runtime read them, and the registry credentials that fit them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let (of_pod, full) = (agent::fuzzing::image_name(text), cri::fuzzing::image_name(text));
        assert_eq!(of_pod.is_some(), full.is_some(), "{of_pod:?} {full:?}");
        assert_eq!(of_pod.as_deref().and_then(cri::fuzzing::image_name), full, "it means the same with its tag");
    }
    agent::fuzzing::pull_secret(data);
});
