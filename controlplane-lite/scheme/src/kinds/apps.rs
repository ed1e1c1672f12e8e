//! apps/v1, batch/v1 and autoscaling.

use super::{SCALE, STATUS};
use crate::kind::KindInfo;
use crate::selector::Fields;
use crate::strategy;
use crate::table::workloads as print;

pub(super) const REPLICAS: Fields = Fields { names: &["status.replicas"], get: replicas, paths: &[] };
static JOB_FIELDS: Fields =
    Fields { names: &["status.successful"], get: successful, paths: &[("status.successful", &["status.succeeded"])] };

fn replicas(object: &serde_json::Value, _: &str) -> String {
    crate::access::int_at(object, &["status", "replicas"]).unwrap_or(0).to_string()
}

/// Upstream's selector has a name of its own for `status.succeeded`.
fn successful(job: &serde_json::Value, _: &str) -> String {
    crate::access::int_at(job, &["status", "succeeded"]).unwrap_or(0).to_string()
}

pub(super) static APPS: &[KindInfo] = &[
    KindInfo {
        group: "apps",
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        singular: "controllerrevision",
        strategy: &strategy::ControllerRevision,
        printer: &print::CONTROLLER_REVISIONS,
        definition: "io.k8s.api.apps.v1.ControllerRevision",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "apps",
        kind: "DaemonSet",
        plural: "daemonsets",
        singular: "daemonset",
        short_names: &["ds"],
        categories: &["all"],
        subresources: &[STATUS],
        strategy: &strategy::DaemonSet,
        printer: &print::DAEMON_SETS,
        definition: "io.k8s.api.apps.v1.DaemonSet",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        strategy: &strategy::Deployment,
        printer: &print::DEPLOYMENTS,
        definition: "io.k8s.api.apps.v1.Deployment",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        strategy: &strategy::ReplicaSet,
        printer: &print::REPLICA_SETS,
        fields: &REPLICAS,
        definition: "io.k8s.api.apps.v1.ReplicaSet",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "apps",
        kind: "StatefulSet",
        plural: "statefulsets",
        singular: "statefulset",
        short_names: &["sts"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        strategy: &strategy::StatefulSet,
        printer: &print::STATEFUL_SETS,
        definition: "io.k8s.api.apps.v1.StatefulSet",
        ..KindInfo::NAMESPACED
    },
];

pub(super) static AUTOSCALING: &[KindInfo] = &[
    KindInfo {
        group: "autoscaling",
        version: "v2",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[STATUS],
        strategy: &strategy::HorizontalPodAutoscaler,
        printer: &print::AUTOSCALERS,
        definition: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "autoscaling",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        singular: "horizontalpodautoscaler",
        short_names: &["hpa"],
        categories: &["all"],
        subresources: &[STATUS],
        conversion: Some(crate::convert::AUTOSCALERS),
        strategy: &strategy::HorizontalPodAutoscalerV1,
        printer: &print::AUTOSCALERS_V1,
        definition: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
        ..KindInfo::NAMESPACED
    },
];

pub(super) static BATCH: &[KindInfo] = &[
    KindInfo {
        group: "batch",
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        short_names: &["cj"],
        categories: &["all"],
        subresources: &[STATUS],
        strategy: &strategy::CronJob,
        printer: &print::CRON_JOBS,
        definition: "io.k8s.api.batch.v1.CronJob",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "batch",
        kind: "Job",
        plural: "jobs",
        singular: "job",
        categories: &["all"],
        subresources: &[STATUS],
        strategy: &strategy::Job,
        printer: &print::JOBS,
        fields: &JOB_FIELDS,
        definition: "io.k8s.api.batch.v1.Job",
        ..KindInfo::NAMESPACED
    },
];
