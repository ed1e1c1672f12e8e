//! JSON, merge and strategic merge patches, applied to a pod.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scheme::FieldValidation;
use scheme::patch::{PatchType, apply};

fuzz_target!(|data: &[u8]| {
    let [which, patch @ ..] = data else { return };
    let kind = scheme::builtin().by_gvk("", "v1", "Pod").expect("a kind");
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["a/x", "b/x"]},
        "spec": {
            "containers": [{"name": "a", "env": [{"name": "A", "value": "1"}]}, {"name": "b"}],
            "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "k"}],
        },
    });
    let ty = [PatchType::Json, PatchType::Merge, PatchType::Strategic][usize::from(*which) % 3];
    let _ = apply(kind, ty, &pod, patch, FieldValidation::Warn);
});
