//! Image archives as bundles: OCI image layouts and `docker save`.
//!
//! Reads the archive's table once, then the few small documents by offset; a
//! layer is hashed where the archive does not name its digest, and never held
//! in memory. Everything an archive says is checked before containerd hears of
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::oci::{self, Blob, Bundle, Config, Descriptor, Index, Manifest, Source};
use super::{ImportError, reference};

/// Documents larger than this are no manifests.
const MAX_DOCUMENT: u64 = 8 << 20;
/// Indexes nest one or two levels deep; a circle would not end.
const MAX_DEPTH: usize = 4;
/// More manifests than any image has platforms and attestations for.
const MAX_MANIFESTS: usize = 1024;
/// A long name or link target of an entry, or its extended attributes: the reader takes these whole
/// into memory.
const MAX_HEADER: u64 = 1 << 20;
/// More files than images have blobs.
const MAX_ENTRIES: usize = 1 << 16;

type Result<T> = std::result::Result<T, ImportError>;

/// Reads every image of the archive.
pub(crate) fn read(path: &Path, name: Option<&str>) -> Result<Vec<Bundle>> {
    let archive = Archive::open(path)?;
    let bundles = if archive.files.contains_key("index.json") {
        archive.layout(name)?
    } else if archive.files.contains_key("manifest.json") {
        archive.docker(name)?
    } else {
        return Err(archive.problem("neither an OCI image layout (index.json) nor docker's format (manifest.json)"));
    };
    if bundles.is_empty() {
        return Err(archive.problem("it holds no image"));
    }
    Ok(bundles)
}

#[derive(Clone, Copy, Debug)]
struct Stretch {
    offset: u64,
    size: u64,
}

#[derive(Debug)]
struct Archive {
    path: PathBuf,
    files: BTreeMap<String, Stretch>,
}

/// Labels and digests of what a blob refers to.
type References = Vec<(String, String)>;

/// What an image in a layout is made of.
#[derive(Debug, Default)]
struct Found {
    blobs: Vec<Blob>,
    /// The manifest for this machine, and its configuration's digest.
    image: Option<(Descriptor, String)>,
    /// Whether an index names what the archive leaves out.
    missing: bool,
    /// Digests of manifests and indexes that were looked at.
    visited: BTreeSet<String>,
}

impl Found {
    /// What `digest` leads to, alone.
    fn closure(&self, digest: &str) -> Vec<Blob> {
        let mut wanted = BTreeSet::from([digest]);
        // Blobs come after those they refer to.
        for blob in self.blobs.iter().rev().filter(|blob| blob.digest == digest) {
            wanted.extend(blob.refers.iter().map(|(_, digest)| digest.as_str()));
        }
        self.blobs.iter().filter(|blob| wanted.contains(blob.digest.as_str())).cloned().collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    fn open(path: &Path) -> Result<Self> {
        let failed = |source| ImportError::Read { path: path.display().to_string(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut archive = Self { path: path.to_owned(), files: BTreeMap::new() };
        let mut magic = [0; 2];
        if file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b] {
            return Err(archive.problem("it is compressed; unpack it with gunzip first"));
        }
        file.rewind().map_err(failed)?;
        // The reader's own words would repeat what is in the file.
        let broken =
            |_: io::Error| archive_problem(path, "it is not an image archive: no whole tar archive".to_owned());
        archive.check_headers(File::open(path).map_err(failed)?, broken)?;
        let mut links = Vec::new();
        let mut entries = tar::Archive::new(file);
        for entry in entries.entries_with_seek().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let name = entry.path().map_err(broken)?.to_string_lossy().trim_start_matches("./").to_owned();
            match entry.header().entry_type() {
                kind if kind.is_file() => {
                    let stretch = Stretch { offset: entry.raw_file_position(), size: entry.size() };
                    archive.files.insert(name, stretch);
                }
                // Old docker archives link layers that images share.
                kind if kind.is_symlink() || kind.is_hard_link() => {
                    let target = entry.link_name().map_err(broken)?.unwrap_or_default();
                    links.push((name, target.to_string_lossy().into_owned(), kind.is_symlink()));
                }
                _ => {}
            }
        }
        for (name, target, relative) in links {
            let target = if relative { beside(&name, &target) } else { target };
            if let Some(stretch) = archive.files.get(&target).copied() {
                archive.files.insert(name, stretch);
            }
        }
        let length = std::fs::metadata(path).map_err(failed)?.len();
        match archive.files.iter().find(|(_, s)| s.offset.saturating_add(s.size) > length) {
            Some((name, _)) => Err(archive.problem(&format!("it is cut short within {name}"))),
            None => Ok(archive),
        }
    }

    /// Looks at all headers before anything reads what they announce.
    fn check_headers(&self, file: File, broken: impl Fn(io::Error) -> ImportError) -> Result<()> {
        let mut entries = tar::Archive::new(file);
        for (number, entry) in entries.entries_with_seek().map_err(&broken)?.raw(true).enumerate() {
            let entry = entry.map_err(&broken)?;
            let kind = entry.header().entry_type();
            let is_extension = kind.is_pax_global_extensions()
                || kind.is_pax_local_extensions()
                || kind.is_gnu_longname()
                || kind.is_gnu_longlink();
            if number >= MAX_ENTRIES || is_extension && entry.size() > MAX_HEADER {
                return Err(self.problem("its headers are too large for an image"));
            }
        }
        Ok(())
    }

    fn problem(&self, problem: &str) -> ImportError {
        archive_problem(&self.path, problem.to_owned())
    }

    fn file(&self, name: &str) -> Result<Stretch> {
        self.files.get(name).copied().ok_or_else(|| self.problem(&format!("{name} is missing")))
    }

    /// The bytes of a small file.
    fn small(&self, name: &str) -> Result<Vec<u8>> {
        let stretch = self.file(name)?;
        if stretch.size > MAX_DOCUMENT {
            return Err(self.problem(&format!("{name} is too large")));
        }
        let failed = |source| ImportError::Read { path: self.path.display().to_string(), source };
        let mut bytes = Vec::new();
        self.stretch(stretch).and_then(|mut r| r.read_to_end(&mut bytes)).map_err(failed)?;
        Ok(bytes)
    }

    fn stretch(&self, stretch: Stretch) -> io::Result<io::Take<File>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(stretch.offset))?;
        Ok(file.take(stretch.size))
    }

    fn document<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let bytes = self.small(name)?;
        serde_json::from_slice(&bytes).map_err(|e| self.problem(&format!("{name}: {e}")))
    }

    /// A blob of the layout, checked against its digest when it is small.
    fn blob(&self, descriptor: &Descriptor) -> Result<Blob> {
        let name = self.blob_name(&descriptor.digest)?;
        let stretch = self.file(&name)?;
        if stretch.size != descriptor.size {
            return Err(self.problem(&format!("{name} has {} bytes, not {}", stretch.size, descriptor.size)));
        }
        let source = Source::File { path: self.path.clone(), offset: stretch.offset };
        Ok(Blob { digest: descriptor.digest.clone(), size: descriptor.size, source, refers: Vec::new() })
    }

    fn blob_name(&self, digest: &str) -> Result<String> {
        if !reference::is_sha256(digest) {
            return Err(self.problem(&format!("{digest:?} is no sha256 digest")));
        }
        Ok(format!("blobs/{}", digest.replacen(':', "/", 1)))
    }

    /// A document among the blobs, whose digest is checked.
    fn blob_document<T: DeserializeOwned>(&self, digest: &str) -> Result<T> {
        let name = self.blob_name(digest)?;
        if oci::digest(&self.small(&name)?) != digest {
            return Err(self.problem(&format!("{name} does not have its digest")));
        }
        self.document(&name)
    }

    fn layout(&self, name: Option<&str>) -> Result<Vec<Bundle>> {
        let index: Index = self.document("index.json")?;
        let (mut bundles, mut foreign) = (Vec::new(), None);
        for descriptor in index.manifests {
            // Attestations and signatures lie beside the images.
            if descriptor.platform.as_ref().is_some_and(|p| p.os == "unknown") {
                continue;
            }
            let image_name = self.layout_name(&descriptor, name)?;
            let mut found = Found::default();
            // Of another platform's image nothing needs to be there.
            if !is_foreign(&descriptor) {
                self.collect(&descriptor, &mut found, 0)?;
            }
            match found.image.clone() {
                Some(image) => bundles.push(bundle(image_name, descriptor, image, found)),
                None => foreign = Some(image_name),
            }
        }
        match foreign.filter(|_| bundles.is_empty()) {
            Some(name) => Err(self.problem(&format!("{name} is not for linux/{}", oci::architecture()))),
            None => Ok(bundles),
        }
    }

    fn layout_name(&self, descriptor: &Descriptor, name: Option<&str>) -> Result<String> {
        let annotation = |key: &str| descriptor.annotations.get(key).map(String::as_str);
        let full = annotation("io.containerd.image.name");
        // Often only a tag, which names nothing.
        let short = annotation("org.opencontainers.image.ref.name").filter(|n| n.contains(['/', ':']));
        let found = name.or(full).or(short);
        let found = found.ok_or_else(|| self.unnamed("index.json has no image name"))?;
        reference::normalize(found).map_err(|problem| self.unnamed(&problem))
    }

    fn unnamed(&self, problem: &str) -> ImportError {
        ImportError::Name { path: self.path.display().to_string(), problem: problem.to_owned() }
    }

    /// Adds what the descriptor leads to, deepest first.
    fn collect(&self, descriptor: &Descriptor, found: &mut Found, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.problem("its indexes are nested too deeply"));
        }
        if !found.visited.insert(descriptor.digest.clone()) {
            return Ok(());
        }
        if found.visited.len() > MAX_MANIFESTS {
            return Err(self.problem("it has too many manifests"));
        }
        let mut blob = self.blob(descriptor)?;
        blob.refers = match descriptor.media_type.as_str() {
            oci::INDEX | oci::DOCKER_INDEX => self.collect_index(descriptor, found, depth)?,
            oci::MANIFEST | oci::DOCKER_MANIFEST => self.collect_manifest(descriptor, found)?,
            other => return Err(self.problem(&format!("media type {other:?} is no image"))),
        };
        found.blobs.push(blob);
        Ok(())
    }

    fn collect_index(&self, descriptor: &Descriptor, found: &mut Found, depth: usize) -> Result<References> {
        let index: Index = self.blob_document(&descriptor.digest)?;
        let mut refers = References::new();
        for (i, child) in index.manifests.iter().enumerate() {
            if !self.files.contains_key(&self.blob_name(&child.digest)?) {
                found.missing = true;
            } else if is_foreign(child) {
                // Whole or not at all: what is half there goes by our own manifest alone.
                let blobs = found.blobs.len();
                if self.collect(child, found, depth + 1).is_err() {
                    found.blobs.truncate(blobs);
                    found.missing = true;
                }
            } else {
                self.collect(child, found, depth + 1)?;
            }
            refers.push((format!("m.{i}"), child.digest.clone()));
        }
        Ok(refers)
    }

    fn collect_manifest(&self, descriptor: &Descriptor, found: &mut Found) -> Result<References> {
        let manifest: Manifest = self.blob_document(&descriptor.digest)?;
        for child in manifest.layers.iter().chain([&manifest.config]) {
            found.blobs.push(self.blob(child)?);
        }
        // Artifacts other than images have no file system.
        if let Ok(config) = self.blob_document::<Config>(&manifest.config.digest) {
            self.check_layers(&config, manifest.layers.len())?;
            let runs_here = !is_foreign(descriptor) && is_ours(&config.os, &config.architecture);
            if found.image.is_none() && runs_here {
                found.image = Some((descriptor.clone(), manifest.config.digest.clone()));
            }
        }
        Ok(oci::references(&manifest.config, &manifest.layers))
    }

    fn check_layers(&self, config: &Config, layers: usize) -> Result<()> {
        if config.rootfs.diff_ids.len() == layers {
            return Ok(());
        }
        let expected = config.rootfs.diff_ids.len();
        Err(self.problem(&format!("the image has {layers} layers, its configuration {expected}")))
    }

    fn docker(&self, name: Option<&str>) -> Result<Vec<Bundle>> {
        let images: Vec<DockerImage> = self.document("manifest.json")?;
        images.iter().map(|image| self.docker_image(image, name)).collect()
    }

    fn docker_image(&self, image: &DockerImage, name: Option<&str>) -> Result<Bundle> {
        let given = name.map(|n| vec![n.to_owned()]);
        let names = given.or_else(|| image.repo_tags.clone()).unwrap_or_default();
        if names.is_empty() {
            return Err(self.unnamed("manifest.json has no image name"));
        }
        let names: std::result::Result<Vec<_>, _> = names.iter().map(|n| reference::normalize(n)).collect();
        let names = names.map_err(|problem| self.unnamed(&problem))?;
        let parsed: Config = self.document(&image.config)?;
        self.check_layers(&parsed, image.layers.len())?;
        let config = Blob::memory(self.small(&image.config)?);
        let mut blobs = Vec::new();
        let mut layers = Vec::new();
        for (layer, diff_id) in image.layers.iter().zip(&parsed.rootfs.diff_ids) {
            let (blob, media_type) = self.layer(layer)?;
            if media_type == oci::LAYER_TAR && blob.digest != *diff_id {
                return Err(self.problem(&format!("{layer} does not have its digest")));
            }
            layers.push(blob.descriptor(media_type));
            blobs.push(blob);
        }
        let failed = |source| ImportError::Read { path: self.path.display().to_string(), source };
        let manifest = oci::manifest(config.descriptor(oci::CONFIG), layers).map_err(failed)?;
        let (target, config_digest) = (manifest.descriptor(oci::MANIFEST), config.digest.clone());
        blobs.extend([config, manifest]);
        Ok(Bundle { names, target, config_digest, blobs, labels: Vec::new() })
    }

    /// A layer, hashed, with what it is.
    fn layer(&self, name: &str) -> Result<(Blob, &'static str)> {
        let stretch = self.file(name)?;
        let failed = |source| ImportError::Read { path: self.path.display().to_string(), source };
        let mut reader = self.stretch(stretch).map_err(failed)?;
        let (mut hash, mut buffer, mut begin) = (Sha256::new(), vec![0; 256 << 10], None);
        loop {
            let n = reader.read(&mut buffer).map_err(failed)?;
            if n == 0 {
                break;
            }
            begin.get_or_insert(buffer[..n.min(2)] == [0x1f, 0x8b]);
            hash.update(&buffer[..n]);
        }
        let media_type = if begin == Some(true) { oci::LAYER_GZIP } else { oci::LAYER_TAR };
        let source = Source::File { path: self.path.clone(), offset: stretch.offset };
        let digest = oci::hex(&hash.finalize());
        Ok((Blob { digest, size: stretch.size, source, refers: Vec::new() }, media_type))
    }
}

/// Whether a descriptor says that it is for other machines.
fn is_foreign(descriptor: &Descriptor) -> bool {
    descriptor.platform.as_ref().is_some_and(|platform| !is_ours(&platform.os, &platform.architecture))
}

/// Old configurations name neither.
fn is_ours(os: &str, architecture: &str) -> bool {
    ["", "linux"].contains(&os) && ["", oci::architecture()].contains(&architecture)
}

fn bundle(name: String, descriptor: Descriptor, image: (Descriptor, String), found: Found) -> Bundle {
    let (manifest, config_digest) = image;
    // containerd wants all of an index or nothing, so that an image whose
    // other platforms were left out goes by its manifest.
    let (target, blobs) = if found.missing {
        let blobs = found.closure(&manifest.digest);
        (manifest, blobs)
    } else {
        (descriptor, found.blobs)
    };
    Bundle { names: vec![name], target, config_digest, blobs, labels: Vec::new() }
}

fn archive_problem(path: &Path, problem: String) -> ImportError {
    ImportError::Archive { path: path.display().to_string(), problem }
}

/// Where a relative link in `name`'s directory leads.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<_> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}
