//! Label and field selectors: what is parsed prints as something that parses to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scheme::selector::{FieldSelector, LabelSelector};

fuzz_target!(|text: &str| {
    if let Ok(selector) = LabelSelector::parse(text) {
        let printed = selector.to_string();
        let again = LabelSelector::parse(&printed).expect("what was printed parses");
        assert_eq!(again.to_string(), printed);
    }
    let kind = scheme::builtin().by_gvk("", "v1", "Pod").expect("a kind");
    let _ = FieldSelector::parse(kind, text);
});
