//! Kinds that exist only as request or response bodies. They have no plural,
//! so discovery and routing do not see them; decoding does.

use crate::kind::KindInfo;

const BODY: KindInfo = KindInfo { namespaced: true, ..KindInfo::VIRTUAL };

pub(super) static BODIES: &[KindInfo] = &[
    KindInfo {
        group: "autoscaling",
        kind: "Scale",
        definition: "io.k8s.api.autoscaling.v1.Scale",
        printer: &crate::table::workloads::SCALES,
        ..BODY
    },
    KindInfo { group: "policy", kind: "Eviction", definition: "io.k8s.api.policy.v1.Eviction", ..BODY },
    KindInfo {
        group: "authentication.k8s.io",
        kind: "TokenRequest",
        definition: "io.k8s.api.authentication.v1.TokenRequest",
        ..BODY
    },
    KindInfo { kind: "DeleteOptions", definition: "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", ..BODY },
    KindInfo {
        group: "meta.k8s.io",
        kind: "DeleteOptions",
        definition: "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
        ..BODY
    },
    KindInfo { kind: "Status", definition: "io.k8s.apimachinery.pkg.apis.meta.v1.Status", ..BODY },
    KindInfo { kind: "ObjectReference", definition: "io.k8s.api.core.v1.ObjectReference", ..BODY },
];
