//! admissionregistration.k8s.io/v1: who is asked about a write, and which expressions judge it.

use super::STATUS;
use crate::kind::KindInfo;
use crate::strategy;
use crate::table::admission as print;

const GROUP: &str = "admissionregistration.k8s.io";

pub(super) static ADMISSION: &[KindInfo] = &[
    KindInfo {
        group: GROUP,
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        singular: "validatingwebhookconfiguration",
        categories: &["api-extensions"],
        strategy: &strategy::WebhookConfiguration::VALIDATING,
        printer: &print::WEBHOOK_CONFIGURATIONS,
        definition: "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: GROUP,
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        singular: "mutatingwebhookconfiguration",
        categories: &["api-extensions"],
        strategy: &strategy::WebhookConfiguration::MUTATING,
        printer: &print::WEBHOOK_CONFIGURATIONS,
        definition: "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: GROUP,
        kind: "ValidatingAdmissionPolicy",
        plural: "validatingadmissionpolicies",
        singular: "validatingadmissionpolicy",
        categories: &["api-extensions"],
        subresources: &[STATUS],
        strategy: &strategy::AdmissionPolicy::VALIDATING,
        printer: &print::VALIDATING_POLICIES,
        definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: GROUP,
        kind: "ValidatingAdmissionPolicyBinding",
        plural: "validatingadmissionpolicybindings",
        singular: "validatingadmissionpolicybinding",
        categories: &["api-extensions"],
        strategy: &strategy::AdmissionPolicyBinding::VALIDATING,
        printer: &print::POLICY_BINDINGS,
        definition: "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: GROUP,
        kind: "MutatingAdmissionPolicy",
        plural: "mutatingadmissionpolicies",
        singular: "mutatingadmissionpolicy",
        categories: &["api-extensions"],
        strategy: &strategy::AdmissionPolicy::MUTATING,
        printer: &print::MUTATING_POLICIES,
        definition: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: GROUP,
        kind: "MutatingAdmissionPolicyBinding",
        plural: "mutatingadmissionpolicybindings",
        singular: "mutatingadmissionpolicybinding",
        categories: &["api-extensions"],
        strategy: &strategy::AdmissionPolicyBinding::MUTATING,
        printer: &print::POLICY_BINDINGS,
        definition: "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
        ..KindInfo::CLUSTER
    },
];
