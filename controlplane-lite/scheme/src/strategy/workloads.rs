//! Kinds that make pods: apps, batch, autoscaling, ReplicationController (`pkg/registry/{apps,batch,autoscaling}`).

use serde_json::Value;

use super::{Context, Facts, GarbageCollection, Strategy};
use crate::defaults::workloads;
use crate::field::FieldErrors;
use crate::prepare;
use crate::validation as check;
use crate::warnings;

pub(crate) struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::workloads::controller_revision(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::workloads::controller_revision_update(new, old, errors);
    }
}

pub(crate) struct DaemonSet;

impl Strategy for DaemonSet {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        workloads::daemon_set(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::workloads::daemon_set(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::workloads::selector_immutable(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::template(object, &["spec", "template"])
    }
}

pub(crate) struct Deployment;

impl Strategy for Deployment {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        workloads::deployment(object);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value, _: &Context<'_>) {
        prepare::deployment_status(new, old);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::workloads::deployment(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::workloads::selector_immutable(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::template(object, &["spec", "template"])
    }
}

pub(crate) struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        workloads::replica_set(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::workloads::replica_set(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::workloads::selector_immutable(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::template(object, &["spec", "template"])
    }
}

pub(crate) struct StatefulSet;

impl Strategy for StatefulSet {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        workloads::stateful_set(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::workloads::stateful_set(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::workloads::stateful_set_update(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::template(object, &["spec", "template"])
    }
}

pub(crate) struct ReplicationController;

impl Strategy for ReplicationController {
    fn facts(&self) -> Facts {
        Facts { generation: true, garbage_collection: GarbageCollection::OrphanDependents, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        workloads::replication_controller(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::workloads::replication_controller(object, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::template(object, &["spec", "template"])
    }
}

pub(crate) struct CronJob;

impl Strategy for CronJob {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        workloads::cron_job(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::workloads::cron_job(object, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::template(object, &["spec", "jobTemplate", "spec", "template"])
    }
}

pub(crate) struct Job;

impl Strategy for Job {
    fn facts(&self) -> Facts {
        Facts { generation: true, garbage_collection: GarbageCollection::OrphanDependents, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        workloads::job(object);
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        prepare::job_create(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::workloads::job(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::workloads::job_update(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::template(object, &["spec", "template"])
    }
}

pub(crate) struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        workloads::horizontal_pod_autoscaler(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::workloads::autoscaler(object, errors);
    }
}

/// A missing target is 80 % CPU, as v2 defaults it.
pub(crate) struct HorizontalPodAutoscalerV1;

impl Strategy for HorizontalPodAutoscalerV1 {
    fn default(&self, object: &mut Value) {
        workloads::horizontal_pod_autoscaler_v1(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::workloads::autoscaler(object, errors);
    }
}
