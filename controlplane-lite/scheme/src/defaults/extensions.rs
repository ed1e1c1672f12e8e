//! CustomResourceDefinitions (k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1/defaults.go).

use serde_json::{Value, json};

use crate::access::{at, ensure_map, is_empty, map_at_mut, set_default, set_default_str, str_at};
use crate::crd;

/// Names that follow from the kind, no conversion, the port of a webhook, and the version that objects were stored in.
pub fn custom_resource_definition(object: &mut Value) {
    let kind = str_at(object, &["spec", "names", "kind"]).to_owned();
    let names = ensure_map(object, &["spec", "names"]);
    if !kind.is_empty() {
        set_default_str(names, "singular", &kind.to_lowercase());
        set_default_str(names, "listKind", &format!("{kind}List"));
    }
    set_default(ensure_map(object, &["spec"]), "conversion", json!({"strategy": "None"}));
    if let Some(service) = map_at_mut(object, &["spec", "conversion", "webhook", "clientConfig", "service"]) {
        set_default(service, "port", 443);
    }
    if is_empty(at(object, &["status", "storedVersions"]))
        && let Some(version) = crd::storage_version(object).map(str::to_owned)
    {
        ensure_map(object, &["status"]).insert("storedVersions".to_owned(), json!([version]));
    }
}
