//! storage.k8s.io/v1.

use super::STATUS;
use crate::kind::KindInfo;
use crate::strategy;
use crate::table::storage as print;

pub(super) static STORAGE: &[KindInfo] = &[
    KindInfo {
        group: "storage.k8s.io",
        kind: "CSIDriver",
        plural: "csidrivers",
        singular: "csidriver",
        strategy: &strategy::CsiDriver,
        printer: &print::CSI_DRIVERS,
        definition: "io.k8s.api.storage.v1.CSIDriver",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "storage.k8s.io",
        kind: "CSINode",
        plural: "csinodes",
        singular: "csinode",
        strategy: &strategy::Plain,
        printer: &print::CSI_NODES,
        definition: "io.k8s.api.storage.v1.CSINode",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "storage.k8s.io",
        kind: "CSIStorageCapacity",
        plural: "csistoragecapacities",
        singular: "csistoragecapacity",
        strategy: &strategy::Plain,
        printer: &print::CSI_CAPACITIES,
        definition: "io.k8s.api.storage.v1.CSIStorageCapacity",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "storage.k8s.io",
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short_names: &["sc"],
        strategy: &strategy::StorageClass,
        printer: &print::STORAGE_CLASSES,
        definition: "io.k8s.api.storage.v1.StorageClass",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "storage.k8s.io",
        kind: "VolumeAttachment",
        plural: "volumeattachments",
        singular: "volumeattachment",
        subresources: &[STATUS],
        strategy: &strategy::VolumeAttachment,
        printer: &print::VOLUME_ATTACHMENTS,
        definition: "io.k8s.api.storage.v1.VolumeAttachment",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "storage.k8s.io",
        kind: "VolumeAttributesClass",
        plural: "volumeattributesclasses",
        singular: "volumeattributesclass",
        short_names: &["vac"],
        strategy: &strategy::Plain,
        printer: &print::VOLUME_ATTRIBUTES_CLASSES,
        definition: "io.k8s.api.storage.v1.VolumeAttributesClass",
        ..KindInfo::CLUSTER
    },
];
