//! ConfigMaps as volumes and as sources of projected ones; upstream's pkg/volume/configmap.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapProjection};

use super::atomic_volume::{self, AtomicVolume, Source};
use super::payload::{Keys, Payload};
use super::plugins::{Plugin, Spec, Volume};
use super::spec;

const NAME: &str = "kubernetes.io/configmap";

pub(super) const PLUGIN: Plugin =
    Plugin { name: NAME, new_volume, tear_down: |pod_dir, name| super::plugins::remove_volume(pod_dir, NAME, name) };

fn new_volume(spec: &Spec<'_>) -> Option<Result<Box<dyn Volume>, String>> {
    let asked = spec.volume.config_map.as_ref()?;
    let keys = spec::items(asked.items.as_deref()).map(|items| Keys {
        name: asked.name.clone(),
        items,
        optional: asked.optional.unwrap_or(false),
    });
    // On the disk: what is in a ConfigMap is no secret.
    let on_disk = |keys| AtomicVolume::new(spec, NAME, false, asked.default_mode, vec![Source::ConfigMap(keys)]);
    Some(keys.and_then(on_disk).map(atomic_volume::boxed))
}

/// The source of a projected volume.
pub(super) fn source(asked: &ConfigMapProjection) -> Result<Source, String> {
    let items = spec::items(asked.items.as_deref())?;
    Ok(Source::ConfigMap(Keys { name: asked.name.clone(), items, optional: asked.optional.unwrap_or(false) }))
}

/// Adds files for the keys.
pub(super) fn add(payload: &mut Payload, keys: &Keys, object: Option<&ConfigMap>, mode: u32) -> Result<(), String> {
    let lookup = |key: &str| -> Option<Vec<u8>> {
        let object = object?;
        let text = object.data.as_ref().and_then(|d| d.get(key)).map(|v| v.as_bytes().to_vec());
        text.or_else(|| object.binary_data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.clone()))
    };
    let all = object.into_iter().flat_map(|o| {
        let text = o.data.iter().flat_map(BTreeMap::keys);
        text.chain(o.binary_data.iter().flat_map(BTreeMap::keys))
    });
    keys.add(payload, all.map(String::as_str), lookup, mode)
        .map_err(|key| format!("configmap references non-existent config key: {key}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::payload::tests::{keys, listed};
    use super::*;

    fn map() -> ConfigMap {
        serde_json::from_value(json!({"metadata": {}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}}))
            .unwrap()
    }

    #[test]
    fn all_keys_or_chosen_ones() {
        let mut payload = Payload::new();
        add(&mut payload, &keys(&[], false), Some(&map()), 0o644).unwrap();
        let all: Vec<(&str, &[u8], u32)> = vec![("a", b"1", 0o644), ("b", b"2", 0o644), ("c", &[0, 1], 0o644)];
        assert_eq!(listed(&payload), all);

        let mut payload = Payload::new();
        add(&mut payload, &keys(&[("b", "dir/b", Some(0o400))], false), Some(&map()), 0o644).unwrap();
        let chosen: Vec<(&str, &[u8], u32)> = vec![("dir/b", b"2", 0o400)];
        assert_eq!(listed(&payload), chosen);
    }

    #[test]
    fn missing_keys_fail_unless_optional() {
        let mut payload = Payload::new();
        let missing = [("zz", "zz", None)];
        let error = add(&mut payload, &keys(&missing, false), Some(&map()), 0o644).unwrap_err();
        assert_eq!(error, "configmap references non-existent config key: zz");
        add(&mut payload, &keys(&missing, true), Some(&map()), 0o644).unwrap();
        assert!(payload.is_empty());
    }

    #[test]
    fn paths_and_modes_are_checked() {
        for (path, mode, expect) in [
            ("../a", None, "invalid path"),
            ("/a", None, "invalid path"),
            ("x/../../a", None, "invalid path"),
            ("a", Some(4096), "mode 4096"),
        ] {
            let asked = json!({"name": "c", "items": [{"key": "a", "path": path, "mode": mode}]});
            let error = source(&serde_json::from_value(asked).unwrap()).unwrap_err();
            assert!(error.contains(expect), "{path}: {error}");
        }
    }
}
