//! Projected volumes: several sources in one directory; upstream's pkg/volume/projected.

use k8s_openapi::api::core::v1::ProjectedVolumeSource;

use super::atomic_volume::{self, AtomicVolume, Source};
use super::plugins::{Plugin, Spec, Volume};
use super::{config_map, downward_api, secret, service_account_token};

const NAME: &str = "kubernetes.io/projected";

pub(super) const PLUGIN: Plugin =
    Plugin { name: NAME, new_volume, tear_down: |pod_dir, name| super::plugins::remove_volume(pod_dir, NAME, name) };

fn new_volume(spec: &Spec<'_>) -> Option<Result<Box<dyn Volume>, String>> {
    let asked = spec.volume.projected.as_ref()?;
    let in_memory = |sources| AtomicVolume::new(spec, NAME, true, asked.default_mode, sources);
    Some(sources(asked).and_then(in_memory).map(atomic_volume::boxed))
}

fn sources(asked: &ProjectedVolumeSource) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for projection in asked.sources.iter().flatten() {
        if let Some(asked) = &projection.config_map {
            sources.push(config_map::source(asked)?);
        } else if let Some(asked) = &projection.secret {
            sources.push(secret::source(asked)?);
        } else if let Some(asked) = &projection.downward_api {
            sources.push(downward_api::source(asked.items.as_deref())?);
        } else if let Some(asked) = &projection.service_account_token {
            sources.push(service_account_token::source(asked)?);
        } else if projection.cluster_trust_bundle.is_some() {
            return Err("clusterTrustBundle sources are not supported by this node".into());
        } else if projection.pod_certificate.is_some() {
            return Err("podCertificate sources are not supported by this node".into());
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::service_account_token::TokenFile;
    use super::*;

    #[test]
    fn the_default_token_volume() {
        let asked = json!({"sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]});
        let sources = sources(&serde_json::from_value(asked).unwrap()).unwrap();
        assert_eq!(sources.len(), 3);
        let token = TokenFile { audience: None, expiration: 3607, path: "token".into() };
        assert_eq!(sources[0], Source::ServiceAccountToken(token));
    }

    #[test]
    fn sources_that_are_not_there_are_named() {
        for kind in ["clusterTrustBundle", "podCertificate"] {
            let source = match kind {
                "clusterTrustBundle" => json!({kind: {"path": "x"}}),
                _ => json!({kind: {"signerName": "example.com/x", "keyType": "ED25519"}}),
            };
            let asked = serde_json::from_value(json!({"sources": [source]})).unwrap();
            let error = sources(&asked).unwrap_err();
            assert!(error.starts_with(&format!("{kind} sources are not supported")), "{error}");
        }
    }
}
