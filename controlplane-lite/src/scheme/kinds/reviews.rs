//! Virtual kinds: posted, answered, never stored.

use k8s_openapi::api::{authentication::v1 as authn, authorization::v1 as authz};

use crate::scheme::kind::{KindInfo, Rules, schema_of};
use crate::scheme::meta::NameRule;

const REVIEW: KindInfo = KindInfo { rules: Rules { name: NameRule::Any, ..Rules::PLAIN }, ..KindInfo::VIRTUAL };

pub(super) static AUTHENTICATION: &[KindInfo] = &[
    KindInfo {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        printer: &crate::scheme::table::policy::SELF_SUBJECT_REVIEWS,
        schema: schema_of::<authn::SelfSubjectReview>,
        ..REVIEW
    },
    KindInfo {
        group: "authentication.k8s.io",
        kind: "TokenReview",
        plural: "tokenreviews",
        singular: "tokenreview",
        schema: schema_of::<authn::TokenReview>,
        ..REVIEW
    },
];

pub(super) static AUTHORIZATION: &[KindInfo] = &[
    KindInfo {
        group: "authorization.k8s.io",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        namespaced: true,
        schema: schema_of::<authz::LocalSubjectAccessReview>,
        ..REVIEW
    },
    KindInfo {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        schema: schema_of::<authz::SelfSubjectAccessReview>,
        ..REVIEW
    },
    KindInfo {
        group: "authorization.k8s.io",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        schema: schema_of::<authz::SelfSubjectRulesReview>,
        ..REVIEW
    },
    KindInfo {
        group: "authorization.k8s.io",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        schema: schema_of::<authz::SubjectAccessReview>,
        ..REVIEW
    },
];
