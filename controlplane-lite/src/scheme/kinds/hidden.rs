//! Kinds that exist only as request or response bodies. They have no plural,
//! so discovery and routing do not see them; decoding does.

use k8s_openapi::api::{authentication, autoscaling, core, policy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use crate::scheme::kind::{KindInfo, Rules, schema_of};
use crate::scheme::meta::NameRule;

const BODY: KindInfo =
    KindInfo { rules: Rules { name: NameRule::Any, ..Rules::PLAIN }, namespaced: true, ..KindInfo::VIRTUAL };

pub(super) static BODIES: &[KindInfo] = &[
    KindInfo {
        group: "autoscaling",
        kind: "Scale",
        schema: schema_of::<autoscaling::v1::Scale>,
        printer: &crate::scheme::table::workloads::SCALES,
        ..BODY
    },
    KindInfo { group: "policy", kind: "Eviction", schema: schema_of::<policy::v1::Eviction>, ..BODY },
    KindInfo {
        group: "authentication.k8s.io",
        kind: "TokenRequest",
        schema: schema_of::<authentication::v1::TokenRequest>,
        ..BODY
    },
    KindInfo { kind: "DeleteOptions", schema: schema_of::<meta::DeleteOptions>, ..BODY },
    KindInfo { group: "meta.k8s.io", kind: "DeleteOptions", schema: schema_of::<meta::DeleteOptions>, ..BODY },
    KindInfo { kind: "Status", schema: schema_of::<meta::Status>, ..BODY },
    KindInfo { kind: "ObjectReference", schema: schema_of::<core::v1::ObjectReference>, ..BODY },
];
