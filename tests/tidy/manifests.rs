//! What the crates' manifests may say of each other.

use std::fs;

use super::root;

/// Each crate of the workspace, and which others it may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("quantity", &[]),
    ("gojson", &[]),
    ("harness", &[]),
    ("cri", &[]),
    ("netproxy", &["gojson"]),
    ("agent", &["cri", "gojson", "netproxy", "quantity"]),
    ("controlplane-lite/storage", &[]),
    ("controlplane-lite/pki", &[]),
    ("controlplane-lite/cel", &["gojson", "quantity"]),
    ("controlplane-lite/scheme", &["gojson", "pki", "quantity", "quota"]),
    ("controlplane-lite/structural", &["cel", "scheme"]),
    ("controlplane-lite/auth", &["pki", "scheme", "storage"]),
    ("controlplane-lite/managedfields", &["scheme"]),
    ("controlplane-lite/quota", &["quantity"]),
    (
        "controlplane-lite/apiserver",
        &["auth", "cel", "gojson", "managedfields", "pki", "quantity", "quota", "scheme", "storage", "structural"],
    ),
    ("controlplane-lite/client", &["gojson"]),
    ("controlplane-lite/scheduler", &["client", "quantity"]),
    ("controlplane-lite/controllers", &["client", "pki", "quota"]),
    ("controlplane-lite", &["apiserver", "auth", "client", "controllers", "pki", "scheduler", "scheme", "storage"]),
];

#[test]
fn manifests_point_one_way() {
    let names: Vec<&str> = CRATES.iter().map(|(path, _)| path.rsplit('/').next().unwrap()).collect();
    for (path, may) in CRATES {
        let manifest = fs::read_to_string(root().join(path).join("Cargo.toml")).unwrap();
        let own = path.rsplit('/').next().unwrap();
        for other in &names {
            let depends = manifest
                .lines()
                .any(|line| line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} =")));
            if *other == "harness" {
                let shipped = manifest.split("[dev-dependencies]").next().unwrap();
                assert!(!shipped.contains("\nharness"), "{path} depends on {other} beyond its tests");
                continue;
            }
            // A crate's tests may turn on features of the crate itself.
            assert!(!depends || *other == own || may.contains(other), "{path} depends on {other}");
        }
    }
}

#[test]
fn every_crate_has_a_row() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = workspace.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let mut members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    let mut rows: Vec<&str> = CRATES.iter().map(|(path, _)| *path).collect();
    members.sort_unstable();
    rows.sort_unstable();
    assert_eq!(members, rows);
}
