//! Any history of objects in two namespaces, whatever owners they name: what a ReplicaSet or Deployment sees of it, and
//! what a ReplicaSet would touch.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json};

use crate::replicaset::plan::{Scale, claim, scale};
use client::objects::controller_of;
use client::{ObjectKey, Sink, Store};

const NAMESPACES: [&str; 2] = ["a", "b"];
const UIDS: [&str; 5] = ["u", "v", "orphans/a", "a", ""];
const NAMES: [&str; 2] = ["o", "p"];
const KINDS: [&str; 2] = ["ReplicaSet", "Deployment"];
const VERSIONS: [&str; 3] = ["apps/v1", "apps/v2", "example.com/v1"];

/// An object that comes or changes, or one that goes.
#[derive(Debug, Clone)]
struct Step {
    key: ObjectKey,
    owner: Option<OwnerReference>,
    goes: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let pick = |of: &'static [&'static str]| prop::sample::select(of);
    let owner = (pick(&UIDS), pick(&NAMES), pick(&KINDS), pick(&VERSIONS), any::<bool>());
    let owner = owner.prop_map(|(uid, name, kind, api_version, controller)| OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(controller),
        block_owner_deletion: None,
    });
    let key = (pick(&NAMESPACES), 0..4).prop_map(|(namespace, n)| ObjectKey::new(namespace, format!("x{n}")));
    (key, prop::option::of(owner), prop::bool::weighted(0.2)).prop_map(|(key, owner, goes)| Step { key, owner, goes })
}

fn object<K: DeserializeOwned>(step: &Step, revision: usize) -> K {
    let meta = ObjectMeta {
        namespace: Some(step.key.namespace.clone()),
        name: Some(step.key.name.clone()),
        uid: Some(format!("uid-{}", step.key)),
        resource_version: Some(revision.to_string()),
        labels: Some([("app".to_owned(), "a".to_owned())].into()),
        owner_references: step.owner.clone().map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    from_value(json!({"metadata": meta, "status": {"phase": "Running", "replicas": 0}})).unwrap()
}

/// A store after these steps, and what is in it.
fn after<K>(steps: &[Step]) -> (Arc<Store<K>>, BTreeMap<ObjectKey, ObjectMeta>)
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
{
    let (store, mut model) = (Store::<K>::new(true), BTreeMap::new());
    for (revision, step) in (1..).zip(steps) {
        let object: K = object(step, revision);
        if step.goes {
            model.remove(&step.key);
            Sink::delete(&*store, object);
        } else {
            model.insert(step.key.clone(), object.meta().clone());
            Sink::apply(&*store, object);
        }
    }
    (store, model)
}

fn owner<O: DeserializeOwned>(namespace: &str, name: &str, uid: &str) -> O {
    let spec: Value = json!({
        "replicas": 1, "selector": {"matchLabels": {"app": "a"}}, "template": {"metadata": {"labels": {"app": "a"}}}});
    from_value(json!({"metadata": {"namespace": namespace, "name": name, "uid": uid}, "spec": spec})).unwrap()
}

/// Whether a reference says all of an owner of this kind; what upstream's controllers compare, and the group.
fn names<O: Resource<DynamicType = ()>>(reference: &OwnerReference, owner: &O) -> bool {
    let group = reference.api_version.split('/').next();
    (group, &*reference.kind) == (Some(&*O::group(&())), &*O::kind(&()))
        && Some(&reference.name) == owner.meta().name.as_ref()
        && Some(&reference.uid) == owner.meta().uid.as_ref()
}

fn keys<K: Resource>(objects: &[Arc<K>]) -> Vec<ObjectKey> {
    objects.iter().map(|object| ObjectKey::of(object.meta())).collect()
}

fn sees_its_own<O, K>(steps: &[Step]) -> Result<(), TestCaseError>
where
    O: Resource<DynamicType = ()> + DeserializeOwned + Debug,
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
{
    let (store, model) = after::<K>(steps);
    let which = |namespace: &str, keep: &dyn Fn(&ObjectMeta) -> bool| {
        let near = model.iter().filter(|(key, meta)| key.namespace == namespace && keep(meta));
        near.map(|(key, _)| key.clone()).collect::<Vec<_>>()
    };
    for namespace in NAMESPACES {
        prop_assert_eq!(keys(&store.orphans(namespace)), which(namespace, &|meta| controller_of(meta).is_none()));
        for (name, uid) in NAMES.into_iter().flat_map(|name| UIDS.map(|uid| (name, uid))) {
            let owner: O = owner(namespace, name, uid);
            let controls = |meta: &ObjectMeta| controller_of(meta).is_some_and(|reference| names(reference, &owner));
            prop_assert_eq!(keys(&store.owned(&owner)), which(namespace, &controls), "{:?}", owner.meta());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn everybody_sees_what_names_him_in_his_namespace_and_nothing_else(steps in prop::collection::vec(step(), 0..24)) {
        sees_its_own::<ReplicaSet, Pod>(&steps)?;
        sees_its_own::<Deployment, ReplicaSet>(&steps)?;
    }

    #[test]
    fn a_set_touches_nothing_of_others(steps in prop::collection::vec(step(), 0..24)) {
        let (store, _) = after::<Pod>(&steps);
        for (namespace, uid) in NAMESPACES.into_iter().flat_map(|namespace| UIDS.map(|uid| (namespace, uid))) {
            let set: ReplicaSet = owner(namespace, "o", uid);
            let claimed = claim(&set, store.owned(&set), store.orphans(namespace));
            let deleted = match scale(&set, &claimed.owned, &[], Timestamp::UNIX_EPOCH) {
                Scale::Delete(pods) => pods,
                Scale::Keep | Scale::Create(_) => Vec::new(),
            };
            for pod in deleted.iter().chain(&claimed.release).chain(&claimed.owned) {
                let reference = controller_of(&pod.metadata);
                prop_assert!(reference.is_some_and(|reference| names(reference, &set)), "{:?}", pod.metadata);
            }
            for pod in &claimed.adopt {
                prop_assert!(controller_of(&pod.metadata).is_none());
            }
            for pod in deleted.iter().chain(&claimed.release).chain(&claimed.adopt).chain(&claimed.owned) {
                prop_assert_eq!(pod.metadata.namespace.as_deref(), Some(namespace), "{}", uid);
            }
        }
    }
}
