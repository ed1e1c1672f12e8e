//! storage.k8s.io/v1.

use k8s_openapi::api::storage::v1 as storage;

use super::STATUS;
use crate::scheme::kind::{KindInfo, schema_of};
use crate::scheme::rules;
use crate::scheme::table::storage as print;

pub(super) static STORAGE: &[KindInfo] = &[
    KindInfo {
        group: "storage.k8s.io",
        kind: "CSIDriver",
        plural: "csidrivers",
        singular: "csidriver",
        rules: rules::CSI_DRIVER,
        printer: &print::CSI_DRIVERS,
        schema: schema_of::<storage::CSIDriver>,
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "storage.k8s.io",
        kind: "CSINode",
        plural: "csinodes",
        singular: "csinode",
        rules: rules::PLAIN,
        printer: &print::CSI_NODES,
        schema: schema_of::<storage::CSINode>,
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "storage.k8s.io",
        kind: "CSIStorageCapacity",
        plural: "csistoragecapacities",
        singular: "csistoragecapacity",
        rules: rules::PLAIN,
        printer: &print::CSI_CAPACITIES,
        schema: schema_of::<storage::CSIStorageCapacity>,
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "storage.k8s.io",
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short_names: &["sc"],
        rules: rules::STORAGE_CLASS,
        printer: &print::STORAGE_CLASSES,
        schema: schema_of::<storage::StorageClass>,
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "storage.k8s.io",
        kind: "VolumeAttachment",
        plural: "volumeattachments",
        singular: "volumeattachment",
        subresources: &[STATUS],
        rules: rules::VOLUME_ATTACHMENT,
        printer: &print::VOLUME_ATTACHMENTS,
        schema: schema_of::<storage::VolumeAttachment>,
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "storage.k8s.io",
        kind: "VolumeAttributesClass",
        plural: "volumeattributesclasses",
        singular: "volumeattributesclass",
        short_names: &["vac"],
        rules: rules::PLAIN,
        printer: &print::VOLUME_ATTRIBUTES_CLASSES,
        schema: schema_of::<storage::VolumeAttributesClass>,
        ..KindInfo::CLUSTER
    },
];
