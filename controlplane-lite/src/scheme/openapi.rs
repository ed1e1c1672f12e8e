//! OpenAPI documents, built when asked for: v3 per group and version (kubectl
//! explain, client-side checks) and one v2 document for old clients.

use serde_json::Value;

use super::Scheme;

/// `/openapi/v3`: where the documents are, with hashes that change with their content.
#[must_use]
pub fn v3_root(scheme: &Scheme) -> Value {
    let _ = scheme;
    Value::Null
}

/// `/openapi/v3/api/v1` or `/openapi/v3/apis/GROUP/VERSION`; `None` when there is no such version.
#[must_use]
pub fn v3_document(scheme: &Scheme, group: &str, version: &str) -> Option<Value> {
    let _ = (scheme, group, version);
    None
}

/// `/openapi/v2` as JSON.
#[must_use]
pub fn v2_document(scheme: &Scheme) -> Value {
    let _ = scheme;
    Value::Null
}
