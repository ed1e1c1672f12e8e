//! Which objects a pod refers to. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{ObjectKind, ObjectRef};
use crate::convert::env;
use crate::convert::spec;
use crate::ids::ObjectName;

/// Every ConfigMap and Secret of the pod: environment, volumes, pull secrets.
pub fn references(pod: &Pod) -> BTreeSet<ObjectRef> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut out = BTreeSet::new();
    let mut add = |kind, name: &str| {
        if !name.is_empty() {
            out.insert(ObjectRef { kind, name: ObjectName::new(namespace, name) });
        }
    };
    let debuggers: Vec<Container> = spec::ephemeral_containers(pod).iter().map(spec::as_container).collect();
    for container in spec::containers(pod).iter().chain(spec::init_containers(pod)).chain(&debuggers) {
        let refs = env::references(container);
        refs.config_maps.iter().for_each(|n| add(ObjectKind::ConfigMap, n));
        refs.secrets.iter().for_each(|n| add(ObjectKind::Secret, n));
    }
    for secret in spec::spec(pod).image_pull_secrets.iter().flatten() {
        add(ObjectKind::Secret, &secret.name);
    }
    for volume in spec::spec(pod).volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            add(ObjectKind::ConfigMap, &source.name);
        }
        if let Some(name) = volume.secret.as_ref().and_then(|s| s.secret_name.as_ref()) {
            add(ObjectKind::Secret, name);
        }
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            source.config_map.iter().for_each(|s| add(ObjectKind::ConfigMap, &s.name));
            source.secret.iter().for_each(|s| add(ObjectKind::Secret, &s.name));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testutil::pod;

    #[test]
    fn all_places() {
        let p = pod("  imagePullSecrets: [{name: pull}]
  containers: [{name: a, envFrom: [{configMapRef: {name: env}}]}]
  volumes:
  - {name: v1, configMap: {name: vol}}
  - {name: v2, secret: {secretName: sec}}
  - {name: v3, projected: {sources: [{configMap: {name: proj}}, {secret: {name: psec}}]}}");
        let names: Vec<String> = references(&p).into_iter().map(|r| format!("{:?}/{}", r.kind, r.name.name)).collect();
        assert_eq!(
            names,
            ["ConfigMap/env", "ConfigMap/proj", "ConfigMap/vol", "Secret/psec", "Secret/pull", "Secret/sec"]
        );
    }
}
