//! Files that a volume shows, and how keys of an object become some. Pure.

use std::collections::BTreeMap;

use super::spec::{Item, check_path};

/// One file: content, mode bits, owner if not root. Upstream's `FileProjection`
/// (pkg/volume/util/atomic_writer.go).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileProjection {
    pub data: Vec<u8>,
    pub mode: u32,
    pub owner: Option<u32>,
}

/// Files by path relative to the volume; later sources override earlier ones.
pub(super) type Payload = BTreeMap<String, FileProjection>;

/// Keys of a ConfigMap or Secret that a volume shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    /// The object's name.
    pub name: String,
    /// Empty takes every key under its own name.
    pub items: Vec<Item>,
    pub optional: bool,
}

impl Keys {
    /// Adds files for `all` keys, or for those asked for; the error is the key that is missing.
    pub fn add<'a>(
        &self,
        payload: &mut Payload,
        all: impl Iterator<Item = &'a str>,
        lookup: impl Fn(&str) -> Option<Vec<u8>>,
        mode: u32,
    ) -> Result<(), String> {
        if self.items.is_empty() {
            // Keys are validated by the API server; a static pod's are not.
            for key in all.filter(|key| check_path(key).is_ok()) {
                if let Some(data) = lookup(key) {
                    payload.insert(key.to_owned(), FileProjection { data, mode, owner: None });
                }
            }
            return Ok(());
        }
        for item in &self.items {
            match lookup(&item.key) {
                Some(data) => {
                    let file = FileProjection { data, mode: item.mode.unwrap_or(mode), owner: None };
                    payload.insert(item.path.clone(), file);
                }
                None if self.optional => {}
                None => return Err(item.key.clone()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn keys(items: &[(&str, &str, Option<u32>)], optional: bool) -> Keys {
        let item = |(key, path, mode): &(&str, &str, Option<u32>)| Item {
            key: (*key).into(),
            path: (*path).into(),
            mode: *mode,
        };
        Keys { name: "x".into(), items: items.iter().map(item).collect(), optional }
    }

    pub fn listed(payload: &Payload) -> Vec<(&str, &[u8], u32)> {
        payload.iter().map(|(path, file)| (path.as_str(), file.data.as_slice(), file.mode)).collect()
    }
}
