//! What is missing in a namespace. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::ROOT_CA_NAME;
use client::objects::{annotation, deleting};

/// Key of the certificate in the ConfigMap.
pub(super) const CA_KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                                endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                                guaranteed across distributions of Kubernetes clusters.";

/// Whether things are put into the namespace.
pub(super) fn in_use(namespace: &Namespace) -> bool {
    !deleting(&namespace.metadata) && namespace.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Terminating")
}

/// The account `default`, if it is missing.
pub(super) fn missing_account(namespace: &str, have: Option<&ServiceAccount>) -> Option<ServiceAccount> {
    have.is_none().then(|| ServiceAccount { metadata: meta(namespace, "default"), ..ServiceAccount::default() })
}

/// What to do about the CA.
#[derive(Debug, PartialEq)]
pub(super) enum CaChange {
    Keep,
    Create(Box<ConfigMap>),
    Update(Box<ConfigMap>),
}

/// Compares the published CA with the cluster's.
pub(super) fn ca_change(namespace: &str, pem: &str, have: Option<&ConfigMap>) -> CaChange {
    let data = BTreeMap::from([(CA_KEY.to_owned(), pem.to_owned())]);
    match have {
        _ if pem.is_empty() => CaChange::Keep,
        None => {
            let mut metadata = meta(namespace, ROOT_CA_NAME);
            metadata.annotations = Some([(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned())].into());
            CaChange::Create(Box::new(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }))
        }
        Some(map) if map.data.as_ref() == Some(&data) && annotation(&map.metadata, DESCRIPTION).is_some() => {
            CaChange::Keep
        }
        Some(map) => {
            let mut update = map.clone();
            update.data = Some(data);
            let annotations = update.metadata.annotations.get_or_insert_default();
            annotations.insert(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned());
            CaChange::Update(Box::new(update))
        }
    }
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::NamespaceStatus;

    #[test]
    fn an_account_is_made_once() {
        let made = missing_account("ns", None).expect("missing");
        assert_eq!((made.metadata.name.as_deref(), made.metadata.namespace.as_deref()), (Some("default"), Some("ns")));
        assert_eq!(missing_account("ns", Some(&made)), None);
    }

    #[test]
    fn a_changed_ca_is_put_right() {
        let CaChange::Create(made) = ca_change("ns", "PEM", None) else { panic!("created") };
        assert_eq!(ca_change("ns", "PEM", Some(&made)), CaChange::Keep);
        let mut spoiled = (*made).clone();
        spoiled.data = Some([("ca.crt".to_owned(), "evil".to_owned()), ("x".to_owned(), "y".to_owned())].into());
        let CaChange::Update(fixed) = ca_change("ns", "PEM", Some(&spoiled)) else { panic!("updated") };
        assert_eq!(fixed.data, made.data);
        assert_eq!(ca_change("ns", "", None), CaChange::Keep);
    }

    #[test]
    fn a_dying_namespace_gets_nothing() {
        let status = |phase: &str| Some(NamespaceStatus { phase: Some(phase.to_owned()), ..Default::default() });
        assert!(in_use(&Namespace { status: status("Active"), ..Default::default() }));
        assert!(!in_use(&Namespace { status: status("Terminating"), ..Default::default() }));
    }
}
