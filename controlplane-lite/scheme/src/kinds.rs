//! The static table of built-in kinds, one file per group of groups.
//! Order is discovery order.

use super::kind::{KindInfo, STATUS_VERBS, Subresource};

mod admission;
mod apps;
mod core;
mod extensions;
mod flowcontrol;
mod hidden;
mod policy;
mod resource;
mod reviews;
mod storage;

const STATUS: Subresource = Subresource::own("status", STATUS_VERBS);
const SCALE: Subresource = Subresource::of("scale", ("autoscaling", "v1", "Scale"), STATUS_VERBS);

/// All built-in kinds, group by group.
pub static ALL: &[&[KindInfo]] = &[
    core::KINDS,
    flowcontrol::APIREGISTRATION,
    apps::APPS,
    policy::EVENTS,
    reviews::AUTHENTICATION,
    reviews::AUTHORIZATION,
    apps::AUTOSCALING,
    apps::BATCH,
    policy::CERTIFICATES,
    policy::NETWORKING,
    policy::POLICY,
    policy::RBAC,
    storage::STORAGE,
    admission::ADMISSION,
    extensions::EXTENSIONS,
    policy::SCHEDULING,
    policy::COORDINATION,
    policy::NODE,
    policy::DISCOVERY,
    flowcontrol::FLOWCONTROL,
    resource::RESOURCE,
    hidden::BODIES,
];
