//! From fetched objects to the files of a projected volume. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::plan::{ObjectPart, check_path};

/// One file: content, mode bits, owner if not root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectedFile {
    pub data: Vec<u8>,
    pub mode: u32,
    pub owner: Option<u32>,
}

/// Files by path relative to the volume; later parts override earlier ones.
pub type Payload = BTreeMap<String, ProjectedFile>;

/// Adds the keys of a ConfigMap.
pub fn add_config_map(
    payload: &mut Payload,
    part: &ObjectPart,
    object: Option<&ConfigMap>,
    mode: u32,
) -> Result<(), String> {
    let lookup = |key: &str| -> Option<Vec<u8>> {
        let object = object?;
        let text = object.data.as_ref().and_then(|d| d.get(key)).map(|v| v.as_bytes().to_vec());
        text.or_else(|| object.binary_data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.clone()))
    };
    let keys = object.into_iter().flat_map(|o| {
        let text = o.data.iter().flat_map(BTreeMap::keys);
        text.chain(o.binary_data.iter().flat_map(BTreeMap::keys))
    });
    add(payload, part, keys.map(String::as_str), lookup, mode)
        .map_err(|key| format!("configmap references non-existent config key: {key}"))
}

/// Adds the keys of a Secret.
pub fn add_secret(payload: &mut Payload, part: &ObjectPart, object: Option<&Secret>, mode: u32) -> Result<(), String> {
    let data = object.and_then(|o| o.data.as_ref());
    let keys = data.into_iter().flat_map(BTreeMap::keys).map(String::as_str);
    add(payload, part, keys, |key| data?.get(key).map(|v| v.0.clone()), mode)
        .map_err(|key| format!("references non-existent secret key: {key}"))
}

fn add<'a>(
    payload: &mut Payload,
    part: &ObjectPart,
    keys: impl Iterator<Item = &'a str>,
    lookup: impl Fn(&str) -> Option<Vec<u8>>,
    mode: u32,
) -> Result<(), String> {
    if part.items.is_empty() {
        // Keys are validated by the API server; a static pod's are not.
        for key in keys.filter(|key| check_path(key).is_ok()) {
            if let Some(data) = lookup(key) {
                payload.insert(key.to_owned(), ProjectedFile { data, mode, owner: None });
            }
        }
        return Ok(());
    }
    for item in &part.items {
        match lookup(&item.key) {
            Some(data) => {
                let file = ProjectedFile { data, mode: item.mode.unwrap_or(mode), owner: None };
                payload.insert(item.path.clone(), file);
            }
            None if part.optional => {}
            None => return Err(item.key.clone()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::volume::plan::Item;
    use serde_json::json;

    fn map() -> ConfigMap {
        serde_json::from_value(json!({"metadata": {}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}}))
            .unwrap()
    }

    fn part(items: &[(&str, &str, Option<u32>)], optional: bool) -> ObjectPart {
        let item = |(key, path, mode): &(&str, &str, Option<u32>)| Item {
            key: (*key).into(),
            path: (*path).into(),
            mode: *mode,
        };
        ObjectPart { name: "x".into(), items: items.iter().map(item).collect(), optional }
    }

    fn listed(payload: &Payload) -> Vec<(&str, &[u8], u32)> {
        payload.iter().map(|(path, file)| (path.as_str(), file.data.as_slice(), file.mode)).collect()
    }

    #[test]
    fn all_keys_or_chosen_ones() {
        let mut payload = Payload::new();
        add_config_map(&mut payload, &part(&[], false), Some(&map()), 0o644).unwrap();
        let all: Vec<(&str, &[u8], u32)> = vec![("a", b"1", 0o644), ("b", b"2", 0o644), ("c", &[0, 1], 0o644)];
        assert_eq!(listed(&payload), all);

        let mut payload = Payload::new();
        add_config_map(&mut payload, &part(&[("b", "dir/b", Some(0o400))], false), Some(&map()), 0o644).unwrap();
        let chosen: Vec<(&str, &[u8], u32)> = vec![("dir/b", b"2", 0o400)];
        assert_eq!(listed(&payload), chosen);
    }

    #[test]
    fn missing_keys_fail_unless_optional() {
        let mut payload = Payload::new();
        let missing = [("zz", "zz", None)];
        let error = add_config_map(&mut payload, &part(&missing, false), Some(&map()), 0o644).unwrap_err();
        assert_eq!(error, "configmap references non-existent config key: zz");
        add_config_map(&mut payload, &part(&missing, true), Some(&map()), 0o644).unwrap();
        add_secret(&mut payload, &part(&missing, true), None, 0o644).unwrap();
        assert!(payload.is_empty());
        let error = add_secret(&mut payload, &part(&missing, false), None, 0o644).unwrap_err();
        assert_eq!(error, "references non-existent secret key: zz");
    }
}
