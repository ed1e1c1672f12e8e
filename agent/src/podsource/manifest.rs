//! A manifest's text → what it says, as upstream reads it (pkg/kubelet/config/common.go: `tryDecodeSinglePod`). Pure.

use serde_json::Value;

/// Reads JSON where the text begins with a brace, and else the first document of YAML as the JSON that it stands for
/// (apimachinery's pkg/util/yaml: `ToJSON`).
///
/// # Errors
/// For what is neither, or has no JSON form.
pub(super) fn read(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    let document = gojson::yaml::documents(text).next().ok_or("it is empty")?;
    document.map_err(|error| error.to_string())
}
