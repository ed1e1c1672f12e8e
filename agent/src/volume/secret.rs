//! Secrets as volumes and as sources of projected ones; upstream's pkg/volume/secret.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Secret, SecretProjection};

use super::atomic_volume::{self, AtomicVolume, Source};
use super::payload::{Keys, Payload};
use super::plugins::{Plugin, Spec, Volume};
use super::spec;

const NAME: &str = "kubernetes.io/secret";

pub(super) const PLUGIN: Plugin =
    Plugin { name: NAME, new_volume, tear_down: |pod_dir, name| super::plugins::remove_volume(pod_dir, NAME, name) };

fn new_volume(spec: &Spec<'_>) -> Option<Result<Box<dyn Volume>, String>> {
    let asked = spec.volume.secret.as_ref()?;
    let keys = spec::items(asked.items.as_deref()).map(|items| Keys {
        name: asked.secret_name.clone().unwrap_or_default(),
        items,
        optional: asked.optional.unwrap_or(false),
    });
    let in_memory = |keys| AtomicVolume::new(spec, NAME, true, asked.default_mode, vec![Source::Secret(keys)]);
    Some(keys.and_then(in_memory).map(atomic_volume::boxed))
}

/// The source of a projected volume.
pub(super) fn source(asked: &SecretProjection) -> Result<Source, String> {
    let items = spec::items(asked.items.as_deref())?;
    Ok(Source::Secret(Keys { name: asked.name.clone(), items, optional: asked.optional.unwrap_or(false) }))
}

/// Adds files for the keys.
pub(super) fn add(payload: &mut Payload, keys: &Keys, object: Option<&Secret>, mode: u32) -> Result<(), String> {
    let data = object.and_then(|o| o.data.as_ref());
    let all = data.into_iter().flat_map(BTreeMap::keys).map(String::as_str);
    keys.add(payload, all, |key| data?.get(key).map(|v| v.0.clone()), mode)
        .map_err(|key| format!("references non-existent secret key: {key}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::payload::tests::keys;
    use super::*;

    #[test]
    fn missing_keys_fail_unless_optional() {
        let mut payload = Payload::new();
        let missing = [("zz", "zz", None)];
        add(&mut payload, &keys(&missing, true), None, 0o644).unwrap();
        assert!(payload.is_empty());
        let error = add(&mut payload, &keys(&missing, false), None, 0o644).unwrap_err();
        assert_eq!(error, "references non-existent secret key: zz");
    }
}
