//! What a server of an aggregated API says of its resources and in its OpenAPI document.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scheme::discovery;
use scheme::openapi::Part;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Ok(answer) = serde_json::from_slice::<Value>(data) else { return };
    let lists = [discovery::resources_of(&answer, "g", "v1"), discovery::converted(&answer, "g", "v1")];
    for resource in lists.iter().flatten().flat_map(|list| list.as_array().expect("a list")) {
        assert!(resource["resource"].as_str().is_some_and(|name| !name.is_empty()), "{resource}");
        assert!(resource["responseKind"].is_object(), "{resource}");
    }
    if let Some(part) = Part::of(answer, "/apis/g/v1") {
        let own = json!({"paths": {"/apis/": {}}, "definitions": {"A": {"type": "string"}}});
        let mut document = own.clone();
        part.add_to(&mut document);
        assert_eq!(document["paths"]["/apis/"], own["paths"]["/apis/"]);
        assert_eq!(document["definitions"]["A"], own["definitions"]["A"]);
    }
});
