//! A pod out of a template. Pure; shared by all controllers that make pods.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The pod that `template` describes, controlled by `owner`, with a generated name.
pub fn from_template(template: &PodTemplateSpec, owner_namespace: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name)),
            namespace: Some(owner_namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Sizes of slow-start batches for `count` creations: 1, 2, 4, … so that a
/// quota that refuses the first pod is not asked five hundred times.
pub fn slow_start(count: usize) -> Vec<usize> {
    let (mut left, mut size, mut out) = (count, 1, Vec::new());
    while left > 0 {
        let batch = size.min(left);
        out.push(batch);
        left -= batch;
        size *= 2;
    }
    out
}
