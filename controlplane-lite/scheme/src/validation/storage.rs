//! Persistent volumes, claims and storage classes.

use quantity::Quantity;
use serde_json::Value;

use super::{immutable, one_of};
use crate::access::{at, copy_field, is_empty, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::selector;

const SPEC: Path<'static> = Path::new("spec");
const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(spec: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("accessModes");
    let modes = list_at(spec, &["accessModes"]);
    if modes.is_empty() {
        errors.required(&path, "at least 1 access mode is required");
    }
    for mode in modes {
        if !mode.as_str().is_some_and(|m| MODES.contains(&m)) {
            errors.not_supported(&path, mode, MODES);
        }
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn positive_storage(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match value.as_str().and_then(|s| s.parse::<Quantity>().ok()) {
        None => errors.required(path, ""),
        Some(quantity) if quantity <= Quantity::ZERO => {
            errors.invalid(path, quantity.to_string(), "must be greater than zero");
        }
        Some(_) => {}
    }
}

/// PersistentVolumeClaim.
pub fn claim(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    access_modes(spec, errors);
    selector::validate_object(at(spec, &["selector"]), &SPEC.child("selector"), errors);
    let resources = SPEC.child("resources");
    positive_storage(at(spec, &["resources", "requests", "storage"]), &resources.key("storage"), errors);
    one_of(spec, "volumeMode", &["Block", "Filesystem"], false, &SPEC, errors);
}

/// A claim changes only its size, and the volume it is bound to once.
pub fn claim_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let mut munged = at(new, &["spec"]).clone();
    let before = at(old, &["spec"]);
    if str_at(before, &["volumeName"]).is_empty() {
        copy_field(&mut munged, before, "volumeName");
    }
    copy_field(&mut munged, before, "resources");
    copy_field(&mut munged, before, "volumeAttributesClassName");
    if &munged != before {
        errors.forbidden(
            &SPEC,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let size = |o: &Value| {
        at(o, &["spec", "resources", "requests", "storage"]).as_str().and_then(|s| s.parse::<Quantity>().ok())
    };
    if let (Some(after), Some(before)) = (size(new), size(old))
        && after < before
    {
        let resources = SPEC.child("resources");
        errors.forbidden(&resources.child("requests").child("storage"), "field can not be less than status.capacity");
    }
}

/// PersistentVolume.
pub fn volume(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    access_modes(spec, errors);
    let capacity = SPEC.child("capacity");
    if is_empty(at(spec, &["capacity"])) {
        errors.required(&capacity, "");
    } else {
        positive_storage(at(spec, &["capacity", "storage"]), &capacity.key("storage"), errors);
    }
    one_of(spec, "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"], false, &SPEC, errors);
    one_of(spec, "volumeMode", &["Block", "Filesystem"], false, &SPEC, errors);
    if !sources(spec) {
        errors.required(&SPEC, "must specify a volume type");
    }
    let path = str_at(spec, &["hostPath", "path"]);
    if !at(spec, &["hostPath"]).is_null() {
        let host = SPEC.child("hostPath");
        if path.is_empty() {
            errors.required(&host.child("path"), "");
        } else if path.split('/').any(|p| p == "..") {
            errors.invalid(&host.child("path"), path, "must not contain '..'");
        }
    }
    if !at(spec, &["local"]).is_null() && at(spec, &["nodeAffinity", "required"]).is_null() {
        errors.required(&SPEC.child("nodeAffinity"), "Local volume requires node affinity");
    }
}

fn sources(spec: &Value) -> bool {
    const KINDS: [&str; 21] = [
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "csi",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "glusterfs",
        "hostPath",
        "iscsi",
        "local",
        "nfs",
        "photonPersistentDisk",
        "portworxVolume",
        "quobyte",
        "rbd",
        "scaleIO",
        "storageos",
    ];
    KINDS.iter().any(|k| !at(spec, &[k]).is_null())
}

/// The source of a volume never changes.
pub fn volume_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let source = |object: &Value| {
        let mut spec = at(object, &["spec"]).clone();
        if let Some(map) = spec.as_object_mut() {
            map.retain(|key, _| {
                !matches!(
                    key.as_str(),
                    "capacity"
                        | "accessModes"
                        | "claimRef"
                        | "persistentVolumeReclaimPolicy"
                        | "storageClassName"
                        | "mountOptions"
                        | "volumeMode"
                        | "nodeAffinity"
                        | "volumeAttributesClassName"
                )
            });
        }
        spec
    };
    if source(new) != source(old) {
        errors.forbidden(
            &SPEC.child("persistentvolumesource"),
            "spec.persistentvolumesource is immutable after creation",
        );
    }
    immutable(at(new, &["spec", "volumeMode"]), at(old, &["spec", "volumeMode"]), &SPEC.child("volumeMode"), errors);
}

/// StorageClass.
pub fn class(object: &Value, errors: &mut FieldErrors) {
    if str_at(object, &["provisioner"]).is_empty() {
        errors.required(&Path::new("provisioner"), "");
    }
    one_of(object, "reclaimPolicy", &["Delete", "Retain"], false, &Path::ROOT, errors);
    one_of(object, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], true, &Path::ROOT, errors);
}

/// A class never changes what it provisions.
pub fn class_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        if at(new, &[key]) != at(old, &[key]) {
            errors.forbidden(&Path::new(key), "updates to ".to_owned() + key + " are forbidden.");
        }
    }
}
