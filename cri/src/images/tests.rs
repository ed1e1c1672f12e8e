//! The built-in images, and archives of all sorts of garbage.

#![allow(clippy::unwrap_used)]

use std::io::Write;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::oci::{Bundle, Source};
use super::*;

fn bytes(bundle: &Bundle, digest: &str) -> Vec<u8> {
    let blob = bundle.blobs.iter().find(|b| b.digest == digest).unwrap();
    match &blob.source {
        Source::Memory(bytes) => bytes.clone(),
        Source::File { .. } => unreachable!("built-in images are in memory"),
    }
}

#[test]
fn built_in_images_are_whole() {
    for (name, build) in BUILTIN {
        let bundle = build().unwrap();
        assert_eq!(bundle.names, [name]);
        assert_eq!(normalize_reference(name).unwrap(), name);
        let manifest: Value = serde_json::from_slice(&bytes(&bundle, &bundle.target.digest)).unwrap();
        assert_eq!(manifest["config"]["digest"], bundle.config_digest.as_str());
        let config: Value = serde_json::from_slice(&bytes(&bundle, &bundle.config_digest)).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        // The layer is not compressed, so its two digests are one.
        assert_eq!(config["rootfs"]["diff_ids"][0], layer);
        assert_eq!(build().unwrap().target, bundle.target, "not reproducible");
        let last = bundle.blobs.last().unwrap();
        let keeps: Vec<_> = last.refers.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keeps, ["config", "l.0"]);
    }
}

#[test]
fn programs_are_small_and_static() {
    let (pause, demo) = (unpack(PAUSE_PROGRAM).unwrap(), unpack(DEMO_PROGRAM).unwrap());
    assert!(pause.len() < 16 << 10, "pause has {} bytes", pause.len());
    assert!(DEMO_PROGRAM.len() < 1 << 20, "demo has {} bytes, packed", DEMO_PROGRAM.len());
    for program in [pause, demo] {
        assert_eq!(program[..4], *b"\x7fELF");
        // Program headers of ELF64: their place, size and number.
        let number = |at: usize, n: usize| program[at..at + n].iter().rev().fold(0, |v, b| v << 8 | usize::from(*b));
        let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        let interpreter = (0..count).any(|i| number(table + i * size, 4) == 3);
        assert!(count > 0 && !interpreter, "it needs a loader");
    }
}

#[test]
fn the_demo_image_has_its_links() {
    let bundle = demo().unwrap();
    let manifest: Value = serde_json::from_slice(&bytes(&bundle, &bundle.target.digest)).unwrap();
    let layer = bytes(&bundle, manifest["layers"][0]["digest"].as_str().unwrap());
    let mut archive = tar::Archive::new(&*layer);
    let paths: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    for path in ["bin/demo", "bin/tar", "bin/cat", "bin/test", "etc/passwd", "tmp/"] {
        assert!(paths.iter().any(|p| p == path), "{path} is not in {paths:?}");
    }
}

fn archive(files: &[(&str, &[u8])]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let mut archive = tar::Builder::new(file.reopen().unwrap());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.finish().unwrap();
    file
}

fn said(path: &Path, name: Option<&str>) -> String {
    archive::read(path, name).unwrap_err().to_string()
}

#[test]
fn garbage_archives_are_refused() {
    let digest = oci::digest(b"{}");
    let descriptor = |media_type: &str, digest: &str, size: u64| {
        json!({ "manifests": [{
            "mediaType": media_type, "digest": digest, "size": size,
            "annotations": { "io.containerd.image.name": "a/b:1" },
        }]})
    };
    let blob = format!("blobs/{}", digest.replace(':', "/"));
    let index = |value: Value| value.to_string().into_bytes();
    let (manifest, other) = (oci::MANIFEST, format!("sha256:{}", "0".repeat(64)));
    type Files<'a> = Vec<(&'a str, Vec<u8>)>;
    let table: Vec<(Files<'_>, &str)> = vec![
        (vec![], "neither"),
        (vec![("readme", b"hello".to_vec())], "neither"),
        (vec![("index.json", b"not json".to_vec())], "index.json"),
        (vec![("index.json", index(json!({ "manifests": [] })))], "no image"),
        (vec![("index.json", index(json!({ "manifests": 3 })))], "index.json"),
        (vec![("index.json", index(descriptor(manifest, "sha256:xyz", 2)))], "sha256"),
        (vec![("index.json", index(descriptor(manifest, "../../etc/passwd", 2)))], "sha256"),
        (vec![("index.json", index(descriptor(manifest, &other, 2)))], "missing"),
        (vec![("index.json", index(descriptor(manifest, &digest, 3))), (&blob, b"{}".to_vec())], "2 bytes, not 3"),
        (vec![("index.json", index(descriptor(manifest, &digest, 2))), (&blob, b"[]".to_vec())], "digest"),
        (vec![("index.json", index(descriptor(manifest, &digest, 2))), (&blob, b"{}".to_vec())], "schemaVersion"),
        (vec![("index.json", index(descriptor("text/plain", &digest, 2))), (&blob, b"{}".to_vec())], "text/plain"),
        (vec![("manifest.json", b"{}".to_vec())], "manifest.json"),
        (vec![("manifest.json", b"[]".to_vec())], "no image"),
        (vec![("manifest.json", br#"[{"Config":"c","RepoTags":["a:1"],"Layers":[]}]"#.to_vec())], "c is missing"),
        (vec![("manifest.json", br#"[{"Config":"c","RepoTags":null,"Layers":[]}]"#.to_vec())], "give the image a name"),
        (
            vec![("manifest.json", br#"[{"Config":"c","RepoTags":["A B"],"Layers":[]}]"#.to_vec())],
            "give the image a name",
        ),
    ];
    for (files, part) in table {
        let files: Vec<_> = files.iter().map(|(n, c)| (*n, c.as_slice())).collect();
        let file = archive(&files);
        let said = said(file.path(), None);
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }
}

#[test]
fn layers_have_to_match_their_configuration() {
    let config = |diff: &str| json!({ "rootfs": { "type": "layers", "diff_ids": [diff] } }).to_string().into_bytes();
    let manifest = br#"[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]"#;
    let (right, wrong) = (config(&oci::digest(b"layer")), config(&oci::digest(b"other")));
    let good = archive(&[("manifest.json", manifest), ("c", &right), ("l", b"layer")]);
    let bundles = archive::read(good.path(), None).unwrap();
    assert_eq!(bundles[0].names, ["docker.io/library/a:1"]);
    let renamed = archive::read(good.path(), Some("x.y/z")).unwrap();
    assert_eq!(renamed[0].names, ["x.y/z:latest"]);
    let bad = archive(&[("manifest.json", manifest), ("c", &wrong), ("l", b"layer")]);
    assert!(said(bad.path(), None).contains("does not have its digest"));
    let short = br#"[{"Config":"c","RepoTags":["a:1"],"Layers":[]}]"#;
    let bad = archive(&[("manifest.json", short), ("c", &right)]);
    assert!(said(bad.path(), None).contains("0 layers"));
}

#[test]
fn what_is_no_archive_is_refused() {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&[0x55; 4096]).unwrap();
    assert!(said(file.path(), None).contains("not an image archive"));
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&[0x1f, 0x8b, 8, 0]).unwrap();
    assert!(said(file.path(), None).contains("gunzip"));
    assert!(matches!(archive::read(Path::new("/does/not/exist"), None), Err(ImportError::Read { .. })));
    let whole = archive(&[("index.json", &[b' '; 5000])]);
    whole.as_file().set_len(1024).unwrap();
    let said = said(whole.path(), None);
    assert!(said.contains("cut short") || said.contains("not an image archive"), "{said}");
}

/// An image layout in the making; a layer may be described and not be there.
struct Layout {
    files: Vec<(String, Vec<u8>)>,
}

impl Layout {
    fn new() -> Self {
        Self { files: vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())] }
    }

    fn blob(&mut self, bytes: Vec<u8>, there: bool) -> Value {
        let digest = super::oci::digest(&bytes);
        let described = json!({"digest": digest, "size": bytes.len()});
        if there {
            self.files.push((format!("blobs/{}", digest.replacen(':', "/", 1)), bytes));
        }
        described
    }

    fn document(&mut self, media_type: &str, document: &Value) -> Value {
        let mut descriptor = self.blob(document.to_string().into_bytes(), true);
        descriptor["mediaType"] = json!(media_type);
        descriptor
    }

    fn image(&mut self, (os, architecture): (&str, &str), there: bool) -> Value {
        let layer_bytes = format!("layer of {architecture}").into_bytes();
        let diff_id = super::oci::digest(&layer_bytes);
        let mut layer = self.blob(layer_bytes, there);
        layer["mediaType"] = json!(super::oci::LAYER_TAR);
        let config = json!({"os": os, "architecture": architecture, "rootfs": {"diff_ids": [diff_id]}});
        let config = self.document(super::oci::CONFIG, &config);
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        let mut descriptor = self.document(super::oci::MANIFEST, &manifest);
        descriptor["platform"] = json!({"os": os, "architecture": architecture});
        descriptor
    }

    fn index(&mut self, manifests: &[Value]) -> Value {
        self.document(super::oci::INDEX, &json!({"schemaVersion": 2, "manifests": manifests}))
    }

    fn read(mut self, entries: &[Value]) -> std::result::Result<Vec<Bundle>, String> {
        let named = entries.iter().cloned().map(|mut entry| {
            entry["annotations"] = json!({"io.containerd.image.name": "docker.io/library/a:1"});
            entry
        });
        let index = json!({"schemaVersion": 2, "manifests": named.collect::<Vec<_>>()});
        self.files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        let files: Vec<_> = self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        super::archive::read(archive(&files).path(), None).map_err(|error| error.to_string())
    }
}

const FOREIGN: (&str, &str) = ("linux", "s390x");
/// This machine.
fn this_machine() -> (&'static str, &'static str) {
    ("linux", super::oci::architecture())
}

const ATTESTATION: (&str, &str) = ("unknown", "unknown");

#[test]
fn only_this_machines_part_of_an_index_has_to_be_whole() {
    for other in [FOREIGN, ATTESTATION] {
        let mut layout = Layout::new();
        let (theirs, ours) = (layout.image(other, false), layout.image(this_machine(), true));
        let index = layout.index(&[theirs, ours.clone()]);
        let bundles = layout.read(&[index]).unwrap();
        // By its own manifest, with its configuration and layer and nothing else.
        assert_eq!((bundles.len(), bundles[0].blobs.len()), (1, 3), "{other:?}");
        assert_eq!(json!(bundles[0].target.digest), ours["digest"]);
    }
    let mut layout = Layout::new();
    let (theirs, ours) = (layout.image(FOREIGN, true), layout.image(this_machine(), true));
    let index = layout.index(&[theirs, ours]);
    let bundles = layout.read(std::slice::from_ref(&index)).unwrap();
    assert_eq!(
        (bundles[0].blobs.len(), json!(bundles[0].target.digest)),
        (7, index["digest"].clone()),
        "all are whole"
    );
    let mut layout = Layout::new();
    let ours = layout.image(this_machine(), false);
    let index = layout.index(&[ours]);
    assert!(layout.read(&[index]).unwrap_err().contains("is missing"));
}

#[test]
fn a_layout_may_list_the_platforms_itself() {
    let mut layout = Layout::new();
    let entries = [layout.image(FOREIGN, false), layout.image(this_machine(), true)];
    let bundles = layout.read(&entries).unwrap();
    assert_eq!((bundles.len(), json!(bundles[0].target.digest)), (1, entries[1]["digest"].clone()));
    let mut layout = Layout::new();
    let entries = [layout.image(FOREIGN, true)];
    assert!(layout.read(&entries).unwrap_err().contains("is not for linux/"));
    // The configuration tells, too, where the descriptor does not.
    let mut layout = Layout::new();
    let mut entry = layout.image(FOREIGN, true);
    entry["platform"].take();
    assert!(layout.read(&[entry]).unwrap_err().contains("is not for linux/"));
}

#[test]
fn nested_indexes_are_looked_at_once() {
    let mut layout = Layout::new();
    let mut inner = layout.image(this_machine(), true);
    // Each level names the one below it a hundred times: a hundred million ways to the image.
    for _ in 0..4 {
        inner = layout.index(&vec![inner; 100]);
    }
    assert_eq!(layout.read(&[inner]).unwrap()[0].blobs.len(), 7);
    let mut layout = Layout::new();
    let images: Vec<_> = (0..1100).map(|n| layout.image(("linux", &format!("other{n}")), true)).collect();
    let index = layout.index(&images);
    assert!(layout.read(&[index]).unwrap_err().contains("is not for linux/"));
}

#[test]
fn headers_are_not_taken_into_memory_whatever_their_size() {
    for kind in [
        tar::EntryType::XHeader,
        tar::EntryType::XGlobalHeader,
        tar::EntryType::GNULongName,
        tar::EntryType::GNULongLink,
    ] {
        let file = NamedTempFile::new().unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(900 << 20);
        header.set_cksum();
        file.as_file().write_all(header.as_bytes()).unwrap();
        // A hole: no disk is needed for what must not be read.
        file.as_file().set_len((900 << 20) + 1024 + 512).unwrap();
        assert!(said(file.path(), None).contains("headers are too large"), "{kind:?}");
    }
}

#[test]
fn a_text_is_not_quoted() {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&b"root:x:0:0:root:/root:/bin/bash\n".repeat(40)).unwrap();
    let told = said(file.path(), None);
    assert!(told.contains("not an image archive") && !told.contains("root:x"), "{told}");
}
