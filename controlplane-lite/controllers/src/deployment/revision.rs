//! Which ReplicaSet is the new one, what it is called, and which revision it
//! has. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use client::objects::{annotation, controller_ref, created, name};

/// Revision of a Deployment or ReplicaSet.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions of a ReplicaSet that came back by a rollback.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// `spec.replicas` of the Deployment when the set was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// `spec.replicas` plus surge at that time.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Tells apart the pods of the ReplicaSets of one Deployment.
pub const HASH_LABEL: &str = "pod-template-hash";
/// Longest revision history, in bytes.
const MAX_HISTORY: usize = 2000;
/// Annotations of the Deployment that its ReplicaSets do not inherit.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// A ReplicaSet of the Deployment.
pub type Set = Arc<ReplicaSet>;

/// The set whose template is the Deployment's: the oldest, if several are.
pub fn find_new<'a>(d: &Deployment, sets: &'a [Set]) -> Option<&'a Set> {
    let want = &d.spec.as_ref()?.template;
    let same = |rs: &&Set| rs.spec.as_ref().and_then(|s| s.template.as_ref()).is_some_and(|t| equal(t, want));
    sets.iter().filter(same).min_by_key(|rs| (created(&rs.metadata), name(&rs.metadata).to_owned()))
}

/// Whether two templates are equal but for the hash label. Clients differ in
/// whether they write an empty struct or leave it out: that is no difference.
/// Zeros that mean absence are none: the API server drops them when it decodes.
pub fn equal(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    fn essence(t: &PodTemplateSpec) -> Value {
        let mut value = serde_json::to_value(t).unwrap_or_default();
        if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.remove(HASH_LABEL);
        }
        prune(&mut value);
        value
    }
    a == b || essence(a) == essence(b)
}

/// Drops nulls, and empty structs, lists and maps. An empty selector stays: it
/// matches everything, and an absent one nothing.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, inner| {
                prune(inner);
                match inner {
                    Value::Null => false,
                    Value::Object(o) => !o.is_empty() || key.ends_with("Selector"),
                    Value::Array(list) => !list.is_empty(),
                    Value::String(_) | Value::Bool(_) | Value::Number(_) => true,
                }
            });
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

/// A short stable name for a template: FNV-1a of its canonical JSON and of the
/// number of collisions so far, in letters that form no words.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let json = serde_json::to_vec(template).expect("a pod template is plain data");
    let salt = collisions.map(i32::to_le_bytes).unwrap_or_default();
    let salt: &[u8] = if collisions.is_some() { &salt } else { &[] };
    let mut hash: u32 = 0x811c_9dc5;
    for byte in json.iter().chain(salt) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    hash.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

/// Revision of a set; 0 when it has none.
pub fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// The largest revision of several sets.
pub fn max_revision<'a>(sets: impl IntoIterator<Item = &'a Set>) -> i64 {
    sets.into_iter().map(|rs| revision(&rs.metadata)).max().unwrap_or(0)
}

/// The annotations the new set must have: the Deployment's, and its revision.
pub fn new_annotations(d: &Deployment, have: &BTreeMap<String, String>, next: i64) -> BTreeMap<String, String> {
    let mut out = have.clone();
    for (key, value) in d.metadata.annotations.iter().flatten() {
        if !OWN_ANNOTATIONS.contains(&key.as_str()) {
            out.insert(key.clone(), value.clone());
        }
    }
    let old = have.get(REVISION);
    if old.and_then(|r| r.parse::<i64>().ok()).unwrap_or(0) >= next {
        return out;
    }
    if let Some(old) = old {
        let mut history = have.get(REVISION_HISTORY).cloned().unwrap_or_default();
        history = if history.is_empty() { old.clone() } else { format!("{history},{old}") };
        while history.len() > MAX_HISTORY {
            history = history.split_once(',').map_or_else(String::new, |(_, rest)| rest.to_owned());
        }
        out.insert(REVISION_HISTORY.to_owned(), history);
    }
    out.insert(REVISION.to_owned(), next.to_string());
    out
}

/// The scaling annotations of a set.
pub fn replicas_annotations(out: &mut BTreeMap<String, String>, desired: i32, max: i32) {
    out.insert(DESIRED_REPLICAS.to_owned(), desired.to_string());
    out.insert(MAX_REPLICAS.to_owned(), max.to_string());
}

/// The new ReplicaSet for the Deployment's template.
pub fn new_replica_set(d: &Deployment, replicas: i32, max: i32, next: i64) -> ReplicaSet {
    let spec = d.spec.clone().unwrap_or_default();
    let collisions = d.status.as_ref().and_then(|s| s.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut annotations = new_annotations(d, &BTreeMap::new(), next);
    replicas_annotations(&mut annotations, spec.replicas.unwrap_or(1), max);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name(&d.metadata))),
            namespace: d.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(d)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds.filter(|s| *s != 0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
