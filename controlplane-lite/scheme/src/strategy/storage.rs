//! Volumes, claims and storage.k8s.io (`pkg/registry/{core,storage}`).

use serde_json::Value;

use super::{Context, Facts, Strategy};
use crate::defaults::cluster;
use crate::field::FieldErrors;
use crate::meta;
use crate::prepare;
use crate::validation as check;

pub(crate) struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn facts(&self) -> Facts {
        Facts { returns_deleted: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        cluster::persistent_volume_claim(object);
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        prepare::claim_create(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::storage::claim(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::storage::claim_update(new, old, errors);
    }
}

pub(crate) struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn facts(&self) -> Facts {
        Facts { returns_deleted: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        cluster::persistent_volume(object);
    }

    fn prepare_create(&self, object: &mut Value, context: &Context<'_>) {
        prepare::persistent_volume_create(object, context.now);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value, context: &Context<'_>) {
        prepare::persistent_volume_status(new, old, context.now);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::storage::volume(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::storage::volume_update(new, old, errors);
    }
}

pub(crate) struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn facts(&self) -> Facts {
        Facts { unconditional_update: false, ..Facts::PLAIN }
    }

    fn prepare_status(&self, new: &mut Value, old: &Value, _: &Context<'_>) {
        meta::keep_all_on_status_update(new, old);
    }
}

pub(crate) struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, object: &mut Value) {
        cluster::storage_class(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::storage::class(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::storage::class_update(new, old, errors);
    }
}

pub(crate) struct CsiDriver;

impl Strategy for CsiDriver {
    fn facts(&self) -> Facts {
        Facts { unconditional_update: false, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        cluster::csi_driver(object);
    }
}
