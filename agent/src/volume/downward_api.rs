//! The downward API as volumes and as a source of projected ones; upstream's pkg/volume/downwardapi.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Pod, ResourceFieldSelector};

use super::atomic_volume::{self, AtomicVolume, Source};
use super::payload::{FileProjection, Payload};
use super::plugins::{Plugin, Spec, Volume};
use super::spec::{check_path, mode};
use crate::convert::fields::{self, FieldContext};

const NAME: &str = "kubernetes.io/downward-api";

pub(super) const PLUGIN: Plugin =
    Plugin { name: NAME, new_volume, tear_down: |pod_dir, name| super::plugins::remove_volume(pod_dir, NAME, name) };

/// One file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DownwardFile {
    path: String,
    mode: Option<u32>,
    content: Content,
}

/// Where a file's content comes from.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    Field(String),
    Resource(ResourceFieldSelector),
}

fn new_volume(spec: &Spec<'_>) -> Option<Result<Box<dyn Volume>, String>> {
    let asked = spec.volume.downward_api.as_ref()?;
    let source = source(asked.items.as_deref());
    let in_memory = |source| AtomicVolume::new(spec, NAME, true, asked.default_mode, vec![source]);
    Some(source.and_then(in_memory).map(atomic_volume::boxed))
}

/// The source of a projected volume.
pub(super) fn source(files: Option<&[DownwardAPIVolumeFile]>) -> Result<Source, String> {
    let file = |file: &DownwardAPIVolumeFile| {
        check_path(&file.path)?;
        let content = match (&file.field_ref, &file.resource_field_ref) {
            (Some(field), _) => Content::Field(field.field_path.clone()),
            (None, Some(resource)) => Content::Resource(resource.clone()),
            (None, None) => return Err(format!("downward API file {:?} names no field", file.path)),
        };
        Ok(DownwardFile { path: file.path.clone(), mode: mode(file.mode)?, content })
    };
    Ok(Source::DownwardApi(files.unwrap_or_default().iter().map(file).collect::<Result<_, String>>()?))
}

/// Adds the files.
pub(super) fn add(
    payload: &mut Payload,
    files: &[DownwardFile],
    pod: &Pod,
    context: &FieldContext,
    mode: u32,
) -> Result<(), String> {
    for file in files {
        let text = match &file.content {
            Content::Field(path) => fields::field(pod, path, context),
            Content::Resource(resource) => fields::resource(pod, "", resource, context),
        };
        let data = text.map_err(|error| error.to_string())?.into_bytes();
        let mode = file.mode.unwrap_or(mode);
        payload.insert(file.path.clone(), FileProjection { data, mode, owner: None });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn files_name_a_field() {
        let read = |file: serde_json::Value| source(Some(&[serde_json::from_value(file).unwrap()]));
        let field = json!({"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}, "mode": 0o400});
        let expect = DownwardFile {
            path: "labels".into(),
            mode: Some(0o400),
            content: Content::Field("metadata.labels".into()),
        };
        assert_eq!(read(field), Ok(Source::DownwardApi(vec![expect])));
        for (file, complaint) in [
            (json!({"path": "x"}), "names no field"),
            (json!({"path": "../x", "fieldRef": {"fieldPath": "metadata.name"}}), "invalid path"),
            (json!({"path": "x", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 512}), "mode 512"),
        ] {
            assert!(read(file.clone()).unwrap_err().contains(complaint), "{file}");
        }
    }
}
