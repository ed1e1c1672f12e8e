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
    assert!(said(file.path(), None).contains("no tar archive"));
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&[0x1f, 0x8b, 8, 0]).unwrap();
    assert!(said(file.path(), None).contains("gunzip"));
    assert!(matches!(archive::read(Path::new("/does/not/exist"), None), Err(ImportError::Read { .. })));
    let whole = archive(&[("index.json", &[b' '; 5000])]);
    whole.as_file().set_len(1024).unwrap();
    let said = said(whole.path(), None);
    assert!(said.contains("cut short") || said.contains("no tar archive"), "{said}");
}
