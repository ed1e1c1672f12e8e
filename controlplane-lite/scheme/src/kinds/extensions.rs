//! apiextensions.k8s.io/v1.

use super::STATUS;
use crate::crd::GROUP;
use crate::kind::KindInfo;
use crate::strategy;

pub(super) static EXTENSIONS: &[KindInfo] = &[KindInfo {
    group: GROUP,
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    subresources: &[STATUS],
    strategy: &strategy::CustomResourceDefinition::UNCHECKED,
    definition: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    ..KindInfo::CLUSTER
}];
