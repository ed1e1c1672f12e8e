//! flowcontrol.apiserver.k8s.io/v1 and apiregistration.k8s.io/v1: what the server is told of its own requests.

use super::STATUS;
use crate::kind::KindInfo;
use crate::table::flowcontrol as print;
use crate::{apiregistration, flowcontrol, strategy};

pub(super) static APIREGISTRATION: &[KindInfo] = &[KindInfo {
    group: apiregistration::GROUP,
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    categories: &["api-extensions"],
    subresources: &[STATUS],
    strategy: &strategy::ApiService,
    printer: &print::API_SERVICES,
    definition: "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
    ..KindInfo::CLUSTER
}];

pub(super) static FLOWCONTROL: &[KindInfo] = &[
    KindInfo {
        group: flowcontrol::GROUP,
        kind: "FlowSchema",
        plural: "flowschemas",
        singular: "flowschema",
        subresources: &[STATUS],
        strategy: &strategy::FlowSchema,
        printer: &print::FLOW_SCHEMAS,
        definition: "io.k8s.api.flowcontrol.v1.FlowSchema",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: flowcontrol::GROUP,
        kind: "PriorityLevelConfiguration",
        plural: "prioritylevelconfigurations",
        singular: "prioritylevelconfiguration",
        subresources: &[STATUS],
        strategy: &strategy::PriorityLevelConfiguration,
        printer: &print::PRIORITY_LEVELS,
        definition: "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
        ..KindInfo::CLUSTER
    },
];
