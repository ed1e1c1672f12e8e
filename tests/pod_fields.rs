//! Every field of a PodSpec is read by the agent or the scheduler, or stands here with the reason why not:
//! a field that nobody reads is a promise that nobody keeps.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use controlplane_lite::scheme::builtin;
use controlplane_lite::scheme::schema::{ObjectType, Type};

/// Where pods are worked on.
const READERS: &[&str] = &["agent/src", "cri/src", "controlplane-lite/scheduler/src", "controlplane-lite/client/src"];

/// What nobody reads. The fields below an unread one are not looked at.
const UNREAD: &[(&str, &[&str])] = &[
    (
        "acted on by the API server alone, before a pod is bound",
        &["PodSpec automountServiceAccountToken", "Toleration tolerationSeconds"],
    ),
    ("Windows only", &["PodSecurityContext windowsOptions", "SecurityContext windowsOptions"]),
    (
        "the scheduler has no such plugin yet; README says so",
        &[
            "Affinity podAffinity",
            "Affinity podAntiAffinity",
            "PodSpec preemptionPolicy",
            "PodSpec schedulingGroup",
            "PodSpec topologySpreadConstraints",
        ],
    ),
    (
        "a pod with such a volume does not start: its type is refused by name",
        &[
            "AzureFileVolumeSource shareName",
            "CSIVolumeSource fsType",
            "CSIVolumeSource volumeAttributes",
            "CephFSVolumeSource monitors",
            "CephFSVolumeSource secretFile",
            "CinderVolumeSource fsType",
            "CinderVolumeSource volumeID",
            "EphemeralVolumeSource volumeClaimTemplate",
            "FCVolumeSource fsType",
            "FCVolumeSource lun",
            "FCVolumeSource targetWWNs",
            "FCVolumeSource wwids",
            "FlexVolumeSource fsType",
            "ISCSIVolumeSource chapAuthDiscovery",
            "ISCSIVolumeSource chapAuthSession",
            "ISCSIVolumeSource fsType",
            "ISCSIVolumeSource initiatorName",
            "ISCSIVolumeSource iqn",
            "ISCSIVolumeSource iscsiInterface",
            "ISCSIVolumeSource lun",
            "ISCSIVolumeSource portals",
            "ISCSIVolumeSource targetPortal",
            "ImageVolumeSource pullPolicy",
            "PersistentVolumeClaimVolumeSource claimName",
            "PodCertificateProjection certificateChainPath",
            "PodCertificateProjection credentialBundlePath",
            "PodCertificateProjection keyPath",
            "PodCertificateProjection keyType",
            "PodCertificateProjection maxExpirationSeconds",
            "PodCertificateProjection userAnnotations",
            "RBDVolumeSource fsType",
            "RBDVolumeSource keyring",
            "RBDVolumeSource monitors",
            "RBDVolumeSource pool",
            "ScaleIOVolumeSource fsType",
            "ScaleIOVolumeSource gateway",
            "ScaleIOVolumeSource protectionDomain",
            "ScaleIOVolumeSource sslEnabled",
            "ScaleIOVolumeSource storageMode",
            "ScaleIOVolumeSource storagePool",
            "ScaleIOVolumeSource volumeName",
            "StorageOSVolumeSource fsType",
            "StorageOSVolumeSource volumeName",
            "StorageOSVolumeSource volumeNamespace",
            "Volume awsElasticBlockStore",
            "Volume azureDisk",
            "Volume flocker",
            "Volume gcePersistentDisk",
            "Volume gitRepo",
            "Volume glusterfs",
            "Volume photonPersistentDisk",
            "Volume portworxVolume",
            "Volume quobyte",
            "Volume vsphereVolume",
            "VolumeDevice devicePath",
        ],
    ),
    (
        "a pod with claims of dynamic resources is refused by name",
        &["PodResourceClaim resourceClaimName", "PodResourceClaim resourceClaimTemplateName"],
    ),
    ("unknown to the CRI messages in use; README says so", &["Lifecycle stopSignal"]),
    (
        "not built yet; no protection is lost by it",
        &[
            "Container resizePolicy",
            "EphemeralContainer resizePolicy",
            "EnvVarSource fileKeyRef",
            "PodSecurityContext fsGroupChangePolicy",
            "PodSecurityContext seLinuxChangePolicy",
        ],
    ),
];

/// The words of the code of the readers, without comments and tests.
fn words() -> HashSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut words = HashSet::new();
    for reader in READERS {
        collect(&root.join(reader), &mut words);
    }
    assert!(words.len() > 5_000, "only {} words were found", words.len());
    words
}

fn collect(directory: &Path, words: &mut HashSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && name != "tests" {
            collect(&path, words);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                words.extend(line.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned));
            }
        }
    }
}

/// A field's name in `k8s-openapi`: `hostIPC` is `host_ipc`, `type` is `type_`.
fn rust_names(field: &str) -> [String; 2] {
    let letters: Vec<char> = field.chars().collect();
    let mut name = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let begins = at > 0
            && letter.is_uppercase()
            && (!letters[at - 1].is_uppercase() || letters.get(at + 1).is_some_and(|next| next.is_lowercase()));
        if begins {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    let keyword = format!("{name}_");
    [name, keyword]
}

fn walk(object: &ObjectType, words: &HashSet<String>, seen: &mut HashSet<String>, unread: &mut BTreeSet<String>) {
    if !seen.insert(object.name().to_owned()) {
        return;
    }
    let short = object.name().rsplit('.').next().unwrap();
    for field in object.fields() {
        if !rust_names(&field.name).iter().any(|name| words.contains(name)) {
            unread.insert(format!("{short} {}", field.name));
            continue;
        }
        let mut ty = &field.ty;
        while let Type::List(inner) | Type::Map(inner) = ty {
            ty = inner;
        }
        if let Type::Object(object) = ty {
            walk(object, words, seen, unread);
        }
    }
}

#[test]
fn every_field_of_a_pod_spec_is_read_or_excused() {
    let pod = builtin().by_gvk("", "v1", "Pod").unwrap();
    let spec = pod.schema().fields().iter().find(|field| &*field.name == "spec").unwrap();
    let Type::Object(spec) = &spec.ty else { panic!("spec is {:?}", spec.ty) };
    let mut unread = BTreeSet::new();
    walk(spec, &words(), &mut HashSet::new(), &mut unread);
    let excused: BTreeSet<String> = UNREAD.iter().flat_map(|(_, fields)| *fields).map(|f| (*f).to_owned()).collect();
    let silent: Vec<_> = unread.difference(&excused).collect();
    assert!(silent.is_empty(), "nobody reads {silent:?}");
    let stale: Vec<_> = excused.difference(&unread).collect();
    assert!(stale.is_empty(), "these are read by now: {stale:?}");
}

#[test]
fn names_are_k8s_openapis() {
    let name = |field| rust_names(field)[0].clone();
    let names = ["hostIPC", "setHostnameAsFQDN", "runAsUser", "name"].map(name);
    assert_eq!(names, ["host_ipc", "set_hostname_as_fqdn", "run_as_user", "name"]);
}
