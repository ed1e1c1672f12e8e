//! storage.k8s.io.

use serde_json::Value;

use super::format::quantity;
use super::{Column, Printer, age, name};
use crate::access::{at, bool_at, list_at, str_at};

const fn flag(name: &'static str) -> Column<'static> {
    Column { ty: "boolean", ..Column::text(name) }
}

/// CSIDrivers.
pub static CSI_DRIVERS: Printer = Printer::new(
    &[
        Column::NAME,
        flag("AttachRequired"),
        flag("PodInfoOnMount"),
        flag("StorageCapacity"),
        Column::text("TokenRequests"),
        flag("RequiresRepublish"),
        Column::text("Modes"),
        Column::AGE,
    ],
    |object, now| {
        let spec = at(object, &["spec"]);
        let tokens: Vec<&str> = list_at(spec, &["tokenRequests"]).iter().map(|t| str_at(t, &["audience"])).collect();
        let modes: Vec<&str> = list_at(spec, &["volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect();
        vec![
            name(object),
            bool_at(spec, &["attachRequired"]).into(),
            bool_at(spec, &["podInfoOnMount"]).into(),
            bool_at(spec, &["storageCapacity"]).into(),
            if tokens.is_empty() { "<unset>".into() } else { tokens.join(",").into() },
            bool_at(spec, &["requiresRepublish"]).into(),
            if modes.is_empty() { "<none>".into() } else { modes.join(",").into() },
            age(object, now),
        ]
    },
);

/// CSINodes.
pub static CSI_NODES: Printer = Printer::new(&[Column::NAME, Column::int("Drivers"), Column::AGE], |object, now| {
    vec![name(object), list_at(object, &["spec", "drivers"]).len().into(), age(object, now)]
});

/// CSIStorageCapacities.
pub static CSI_CAPACITIES: Printer =
    Printer::new(&[Column::NAME, Column::text("StorageClassName"), Column::text("Capacity")], |object, _| {
        let capacity = quantity(at(object, &["capacity"]));
        vec![
            name(object),
            str_at(object, &["storageClassName"]).into(),
            if capacity.is_empty() { "<unset>".into() } else { capacity.into() },
        ]
    });

/// The name, marked when an annotation makes the class the default.
fn class_name(object: &Value, annotation: &str) -> Value {
    let name = str_at(object, &["metadata", "name"]);
    let default = at(object, &["metadata", "annotations"]).get(annotation).and_then(Value::as_str) == Some("true");
    if default { format!("{name} (default)").into() } else { name.into() }
}

/// StorageClasses.
pub static STORAGE_CLASSES: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Provisioner"),
        Column::text("ReclaimPolicy"),
        Column::text("VolumeBindingMode"),
        flag("AllowVolumeExpansion"),
        Column::AGE,
    ],
    |object, now| {
        vec![
            class_name(object, "storageclass.kubernetes.io/is-default-class"),
            str_at(object, &["provisioner"]).into(),
            str_at(object, &["reclaimPolicy"]).into(),
            str_at(object, &["volumeBindingMode"]).into(),
            bool_at(object, &["allowVolumeExpansion"]).into(),
            age(object, now),
        ]
    },
);

/// VolumeAttachments.
pub static VOLUME_ATTACHMENTS: Printer = Printer::new(
    &[Column::NAME, Column::text("Attacher"), Column::text("PV"), Column::text("Node"), flag("Attached"), Column::AGE],
    |object, now| {
        vec![
            name(object),
            str_at(object, &["spec", "attacher"]).into(),
            str_at(object, &["spec", "source", "persistentVolumeName"]).into(),
            str_at(object, &["spec", "nodeName"]).into(),
            bool_at(object, &["status", "attached"]).into(),
            age(object, now),
        ]
    },
);

/// VolumeAttributesClasses.
pub static VOLUME_ATTRIBUTES_CLASSES: Printer =
    Printer::new(&[Column::NAME, Column::text("DriverName"), Column::AGE], |object, now| {
        vec![
            class_name(object, "storageclass.kubernetes.io/is-default-class"),
            str_at(object, &["driverName"]).into(),
            age(object, now),
        ]
    });
