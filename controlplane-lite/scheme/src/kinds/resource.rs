//! resource.k8s.io/v1.

use super::STATUS;
use crate::kind::KindInfo;
use crate::selector::Fields;
use crate::strategy;
use crate::table::resource as print;

const GROUP: &str = "resource.k8s.io";

static SLICE_FIELDS: Fields = Fields::plain(&["spec.nodeName", "spec.driver"]);

pub(super) static RESOURCE: &[KindInfo] = &[
    KindInfo {
        group: GROUP,
        kind: "DeviceClass",
        plural: "deviceclasses",
        singular: "deviceclass",
        strategy: &strategy::DeviceClass,
        printer: &print::NAMES,
        definition: "io.k8s.api.resource.v1.DeviceClass",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: GROUP,
        kind: "ResourceClaim",
        plural: "resourceclaims",
        singular: "resourceclaim",
        subresources: &[STATUS],
        strategy: &strategy::ResourceClaim,
        printer: &print::CLAIMS,
        definition: "io.k8s.api.resource.v1.ResourceClaim",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: GROUP,
        kind: "ResourceClaimTemplate",
        plural: "resourceclaimtemplates",
        singular: "resourceclaimtemplate",
        strategy: &strategy::ResourceClaimTemplate,
        printer: &print::NAMES,
        definition: "io.k8s.api.resource.v1.ResourceClaimTemplate",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: GROUP,
        kind: "ResourceSlice",
        plural: "resourceslices",
        singular: "resourceslice",
        strategy: &strategy::ResourceSlice,
        printer: &print::SLICES,
        fields: &SLICE_FIELDS,
        definition: "io.k8s.api.resource.v1.ResourceSlice",
        ..KindInfo::CLUSTER
    },
];
