//! Pure: files and settings as the blobs of an OCI image.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

pub(super) const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What points to a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub architecture: String,
    pub os: String,
}

/// An image manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// An index of manifests.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Index {
    pub manifests: Vec<Descriptor>,
}

/// The part of an image configuration that an import checks.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    pub rootfs: RootFs,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RootFs {
    pub diff_ids: Vec<String>,
}

/// A blob's bytes: in memory, or a stretch of an archive.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Memory(Vec<u8>),
    File { path: std::path::PathBuf, offset: u64 },
}

/// A blob with the labels that keep what it refers to.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub digest: String,
    pub size: u64,
    pub source: Source,
    /// Digests of other blobs, by the end of containerd's label.
    pub refers: Vec<(String, String)>,
}

/// An image ready for import; blobs come after those they refer to.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    /// Full names.
    pub names: Vec<String>,
    pub target: Descriptor,
    /// The image's id.
    pub config_digest: String,
    pub blobs: Vec<Blob>,
    pub labels: Vec<(&'static str, &'static str)>,
}

/// A file of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct File<'a> {
    path: &'a str,
    mode: u32,
    content: Content<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Content<'a> {
    Bytes(&'a [u8]),
    Directory,
    Link(&'a str),
}

impl<'a> File<'a> {
    pub(super) fn program(path: &'a str, bytes: &'a [u8]) -> Self {
        Self { path, mode: 0o755, content: Content::Bytes(bytes) }
    }

    pub(super) fn text(path: &'a str, text: &'a str) -> Self {
        Self { path, mode: 0o644, content: Content::Bytes(text.as_bytes()) }
    }

    pub(super) fn directory(path: &'a str, mode: u32) -> Self {
        Self { path, mode, content: Content::Directory }
    }

    pub(super) fn link(path: &'a str, target: &'a str) -> Self {
        Self { path, mode: 0o777, content: Content::Link(target) }
    }
}

/// What an image is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image<'a> {
    pub entrypoint: &'a [&'a str],
    pub cmd: &'a [&'a str],
    pub env: &'a [&'a str],
    pub files: &'a [File<'a>],
}

/// `sha256:…` of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A finished hash as `sha256:…`.
pub(super) fn hex(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The architecture's name in image platforms (Go's).
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn layer(files: &[File<'_>]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(file.mode);
        header.set_uid(0);
        header.set_gid(0);
        // The same files are the same layer, always.
        header.set_mtime(0);
        match file.content {
            Content::Bytes(bytes) => {
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, file.path, bytes)?;
            }
            Content::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                archive.append_data(&mut header, format!("{}/", file.path), io::empty())?;
            }
            Content::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, file.path, target)?;
            }
        }
    }
    archive.into_inner()
}

impl Blob {
    pub(super) fn memory(bytes: Vec<u8>) -> Self {
        let (digest, size) = (digest(&bytes), bytes.len() as u64);
        Self { digest, size, source: Source::Memory(bytes), refers: Vec::new() }
    }

    pub(super) fn descriptor(&self, media_type: &str) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: self.digest.clone(),
            size: self.size,
            platform: None,
            annotations: Default::default(),
        }
    }
}

/// A manifest over existing blobs, as a blob that keeps them.
pub(super) fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> io::Result<Blob> {
    let refers = references(&config, &layers);
    let manifest = Manifest { schema_version: 2, media_type: MANIFEST.to_owned(), config, layers };
    let mut blob = Blob::memory(serde_json::to_vec(&manifest)?);
    blob.refers = refers;
    Ok(blob)
}

/// What a manifest's labels keep, as containerd's own client writes them.
pub(super) fn references(config: &Descriptor, layers: &[Descriptor]) -> Vec<(String, String)> {
    let layers = layers.iter().enumerate().map(|(i, l)| (format!("l.{i}"), l.digest.clone()));
    std::iter::once(("config".to_owned(), config.digest.clone())).chain(layers).collect()
}

/// An image of one layer.
pub(super) fn bundle(name: &str, image: &Image<'_>) -> io::Result<Bundle> {
    let layer = Blob::memory(layer(image.files)?);
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Entrypoint": image.entrypoint, "Cmd": image.cmd, "Env": image.env, "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
    });
    let config = Blob::memory(serde_json::to_vec(&config)?);
    let manifest = manifest(config.descriptor(CONFIG), vec![layer.descriptor(LAYER_TAR)])?;
    Ok(Bundle {
        names: vec![name.to_owned()],
        target: manifest.descriptor(MANIFEST),
        config_digest: config.digest.clone(),
        blobs: vec![layer, config, manifest],
        labels: Vec::new(),
    })
}
