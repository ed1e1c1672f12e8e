//! What the fuzz targets call: the readers of what runtimes, images and the kernel say, each with what holds of
//! whatever it reads.

use std::path::Path;

use containerd_client::types::Envelope;
use k8s_cri::v1;
use prost::Message;

use crate::containerd::config::Release;
use crate::convert::response;
use crate::images::archive;
use crate::images::oci::{self, Source};
use crate::images::reference;
use crate::{events, mountinfo};

/// An image name in full, which is so already; `None` when it is none.
pub fn image_name(text: &str) -> Option<String> {
    let full = reference::normalize(text).ok()?;
    assert_eq!(reference::normalize(&full).as_ref(), Ok(&full));
    assert!(full.starts_with(reference::repository(&full)));
    Some(full)
}

/// An image archive at `path`, with `bytes` in it: whatever is made of it lies within the file and is called by full
/// names and digests.
fn archive_at(path: &Path, bytes: &[u8], name: Option<&str>) {
    std::fs::write(path, bytes).expect("the archive can be written");
    let Ok(bundles) = archive::read(path, name) else { return };
    assert!(!bundles.is_empty());
    for bundle in bundles {
        assert!(!bundle.names.is_empty() && bundle.names.iter().all(|name| image_name(name).as_ref() == Some(name)));
        assert!(reference::is_digest(&bundle.target.digest) && reference::is_digest(&bundle.config_digest));
        assert!(bundle.blobs.iter().any(|blob| blob.digest == bundle.target.digest), "its target is there");
        for blob in bundle.blobs {
            assert!(reference::is_digest(&blob.digest));
            let end = match &blob.source {
                Source::Memory(content) => (content.len() as u64, blob.size),
                Source::File { offset, .. } => (bytes.len() as u64, offset.saturating_add(blob.size)),
            };
            assert!(end.1 <= end.0, "{end:?}");
        }
    }
}

/// The bytes of an archive as they are.
pub fn image_archive(path: &Path, bytes: &[u8]) {
    archive_at(path, bytes, None);
    archive_at(path, bytes, Some("a"));
}

const NAMES: [&str; 5] = ["index.json", "manifest.json", "config.json", "layer.tar", "oci-layout"];

/// An archive whose headers are right: of each file a byte says how it is called, two how long it is. In its content
/// `@0` stands for the digest of the first file, `#0` for its length.
pub fn image_files(path: &Path, mut data: &[u8]) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut written: Vec<(String, usize)> = Vec::new();
    while let [which, high, low, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (content, after) = rest.split_at(length);
        data = after;
        let mut content = String::from_utf8_lossy(content).into_owned();
        for (number, (digest, length)) in written.iter().enumerate().take(10) {
            content =
                content.replace(&format!("@{number}"), digest).replace(&format!("#{number}"), &length.to_string());
        }
        let digest = oci::digest(content.as_bytes());
        let blob = format!("blobs/{}", digest.replacen(':', "/", 1));
        let name = NAMES.get(usize::from(*which)).map_or(blob, |name| (*name).to_owned());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes()).expect("memory takes it");
        written.push((digest, content.len()));
        if written.len() == 64 {
            break;
        }
    }
    let bytes = tar.into_inner().expect("memory takes it");
    archive_at(path, &bytes, Some("a"));
}

/// A mount table.
pub fn mount_table(bytes: &[u8]) {
    let points = mountinfo::mount_points(bytes);
    let length: usize = points.iter().map(|point| point.as_os_str().len()).sum();
    assert!(length <= bytes.len());
}

/// What `containerd --version` prints.
pub fn containerd_version(text: &str) {
    let _ = Release::parse(text);
}

fn decoded<M: Message + Default, T, E>(bytes: &[u8], convert: impl FnOnce(M) -> Result<T, E>) -> Option<T> {
    M::decode(bytes).ok().and_then(|message| convert(message).ok())
}

/// An answer or event of the runtime: the first byte says which. Nothing without a name comes of it.
pub fn runtime(data: &[u8]) {
    let [which, bytes @ ..] = data else { return };
    let id = match which % 12 {
        0 => decoded(bytes, response::sandbox_summary).map(|s| s.id.to_string()),
        1 => decoded(bytes, response::sandbox_status).map(|s| s.summary.id.to_string()),
        2 => decoded(bytes, response::container_summary).map(|c| c.id.to_string()),
        3 => decoded(bytes, response::container_status).map(|c| c.id.to_string()),
        4 => decoded(bytes, response::container_stats).map(|c| c.id.to_string()),
        5 => decoded(bytes, response::event).map(|event| event.id),
        6 => decoded(bytes, |envelope: Envelope| events::decode::envelope(&envelope)).flatten().map(|event| event.id),
        7 => decoded(bytes, response::version).map(|version| version.runtime_name),
        8 => decoded(bytes, response::image).map(|image| image.id.to_string()),
        9 => decoded(bytes, response::filesystem).and(None),
        10 => decoded(bytes, response::status).and(None),
        _ => decoded::<v1::RuntimeConfigResponse, _, _>(bytes, response::cgroup_driver).and(None),
    };
    assert!(id.is_none_or(|id| !id.is_empty()));
}
