//! Virtual kinds: posted, answered, never stored.

use crate::kind::{KindInfo, Review, Serving};

const fn review(asks: Review) -> KindInfo {
    KindInfo { serving: Serving::Review(asks), ..KindInfo::VIRTUAL }
}

pub(super) static AUTHENTICATION: &[KindInfo] = &[
    KindInfo {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        printer: &crate::table::policy::SELF_SUBJECT_REVIEWS,
        definition: "io.k8s.api.authentication.v1.SelfSubjectReview",
        ..review(Review::SelfSubject)
    },
    KindInfo {
        group: "authentication.k8s.io",
        kind: "TokenReview",
        plural: "tokenreviews",
        singular: "tokenreview",
        definition: "io.k8s.api.authentication.v1.TokenReview",
        ..review(Review::Token)
    },
];

pub(super) static AUTHORIZATION: &[KindInfo] = &[
    KindInfo {
        group: "authorization.k8s.io",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        namespaced: true,
        definition: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
        ..review(Review::LocalSubjectAccess)
    },
    KindInfo {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        definition: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        ..review(Review::SelfSubjectAccess)
    },
    KindInfo {
        group: "authorization.k8s.io",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        definition: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
        ..review(Review::SelfSubjectRules)
    },
    KindInfo {
        group: "authorization.k8s.io",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        definition: "io.k8s.api.authorization.v1.SubjectAccessReview",
        ..review(Review::SubjectAccess)
    },
];
