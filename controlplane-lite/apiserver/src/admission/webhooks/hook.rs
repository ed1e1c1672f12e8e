//! A webhook as its configuration says it, read once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::outbound::{Peer, Unusable};
use scheme::access::{at, int_at, list_at, str_at};
use scheme::selector::LabelSelector;

/// Upstream calls one that says nothing of its time for as long as a request lasts.
const LONGEST: Duration = Duration::from_secs(30);

/// Which requests a webhook is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::admission) struct Rule {
    pub operations: Vec<String>,
    pub groups: Vec<String>,
    pub versions: Vec<String>,
    /// With subresources: `pods`, `pods/status`, `*/scale`.
    pub resources: Vec<String>,
    pub scope: Scope,
}

/// Where objects live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admission) enum Scope {
    All,
    Cluster,
    Namespaced,
    /// Of a word nobody knows.
    Nowhere,
}

/// Whom nobody minds, and what is a failure of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admission) enum FailurePolicy {
    Ignore,
    Fail,
}

/// A webhook.
#[derive(Debug)]
pub(in crate::admission) struct Hook {
    /// One of all: configuration, name, and which of that name.
    pub id: String,
    pub configuration: String,
    pub name: String,
    pub rules: Vec<Rule>,
    /// Whether a rule that names another version of the same resource counts.
    pub equivalent: bool,
    pub namespaces: Result<LabelSelector, String>,
    pub objects: Result<LabelSelector, String>,
    pub failure: FailurePolicy,
    /// Whether it may be called when nothing is to be stored.
    pub dry_run: bool,
    pub timeout: Duration,
    /// The version of AdmissionReview it is asked in: the first that both know.
    pub review: Option<&'static str>,
    /// Whether it is asked again when others changed the object after it.
    pub reinvoke: bool,
    pub conditions: Vec<Value>,
    /// How it is reached, kept with its connections as long as that stays the same.
    pub config: Value,
    pub peer: Result<Arc<Peer>, Unusable>,
}

impl Hook {
    /// Reads a webhook of a configuration; `nth` counts those of its name before it.
    pub(in crate::admission) fn read(
        configuration: &str,
        webhook: &Value,
        nth: usize,
        peer: impl FnOnce(&Value) -> Result<Arc<Peer>, Unusable>,
    ) -> Self {
        let text = |field: &str| str_at(webhook, &[field]);
        let selector = |field: &str| LabelSelector::from_object(at(webhook, &[field])).map_err(|why| why.to_string());
        let name = text("name").to_owned();
        let config = at(webhook, &["clientConfig"]).clone();
        let seconds = int_at(webhook, &["timeoutSeconds"]).and_then(|seconds| u64::try_from(seconds).ok());
        let versions = list_at(webhook, &["admissionReviewVersions"]).iter();
        Self {
            id: format!("{configuration}/{name}/{nth}"),
            configuration: configuration.to_owned(),
            rules: list_at(webhook, &["rules"]).iter().map(rule).collect(),
            equivalent: text("matchPolicy") == "Equivalent",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            failure: if text("failurePolicy") == "Ignore" { FailurePolicy::Ignore } else { FailurePolicy::Fail },
            dry_run: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            timeout: seconds.map_or(LONGEST, Duration::from_secs),
            review: versions.filter_map(Value::as_str).find_map(|version| match version {
                "v1" => Some("v1"),
                "v1beta1" => Some("v1beta1"),
                _ => None,
            }),
            reinvoke: text("reinvocationPolicy") == "IfNeeded",
            conditions: list_at(webhook, &["matchConditions"]).to_vec(),
            peer: peer(&config),
            config,
            name,
        }
    }
}

fn rule(rule: &Value) -> Rule {
    let texts = |field: &str| list_at(rule, &[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Rule {
        operations: texts("operations"),
        groups: texts("apiGroups"),
        versions: texts("apiVersions"),
        resources: texts("resources"),
        scope: match at(rule, &["scope"]).as_str() {
            None | Some("*") => Scope::All,
            Some("Cluster") => Scope::Cluster,
            Some("Namespaced") => Scope::Namespaced,
            Some(_) => Scope::Nowhere,
        },
    }
}
