//! DefaultStorageClass and DefaultIngressClass: claims and Ingresses that name no class get the default one. Follow
//! `plugin/pkg/admission/storage/storageclass/setdefault` and `plugin/pkg/admission/network/defaultingressclass`.

use serde_json::Value;

use super::{Mutated, Operation, Refusal, Request, View};
use scheme::access::{at, ensure_map, str_at};

pub(super) fn storage(request: &Request<'_>, object: Option<&mut Value>, view: &dyn View) -> Result<Mutated, Refusal> {
    let Some(claim) = object.filter(|_| is_new(request, "", "persistentvolumeclaims")) else {
        return Ok(Mutated::No);
    };
    // An empty name asks for none.
    let named = at(claim, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]).is_string();
    if named || !claim["spec"]["storageClassName"].is_null() {
        return Ok(Mutated::No);
    }
    const MARKS: [&str; 2] =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let default = default_class(view, ("storage.k8s.io", "storageclasses"), &MARKS);
    Ok(set(claim, "storageClassName", default))
}

pub(super) fn ingress(request: &Request<'_>, object: Option<&mut Value>, view: &dyn View) -> Result<Mutated, Refusal> {
    let Some(ingress) = object.filter(|_| is_new(request, "networking.k8s.io", "ingresses")) else {
        return Ok(Mutated::No);
    };
    let named = at(ingress, &["metadata", "annotations", "kubernetes.io/ingress.class"]).is_string();
    if named || !ingress["spec"]["ingressClassName"].is_null() {
        return Ok(Mutated::No);
    }
    let mark = ["ingressclass.kubernetes.io/is-default-class"];
    let default = default_class(view, ("networking.k8s.io", "ingressclasses"), &mark);
    Ok(set(ingress, "ingressClassName", default))
}

fn is_new(request: &Request<'_>, group: &str, plural: &str) -> bool {
    request.is(group, plural) && request.operation == Operation::Create && request.subresource.is_empty()
}

fn set(object: &mut Value, field: &str, class: Option<String>) -> Mutated {
    let Some(class) = class else { return Mutated::No };
    ensure_map(object, &["spec"]).insert(field.to_owned(), class.into());
    Mutated::Whole
}

/// The newest of the classes that are marked, and of those of one time the first by name.
fn default_class(view: &dyn View, (group, plural): (&str, &str), marks: &[&str]) -> Option<String> {
    let mut best: Option<(String, String)> = None;
    view.each_in(group, plural, "", &mut |class| {
        if !marks.iter().any(|mark| str_at(class, &["metadata", "annotations", mark]) == "true") {
            return;
        }
        // Times of this form have the order of their texts.
        let created = str_at(class, &["metadata", "creationTimestamp"]);
        let name = str_at(class, &["metadata", "name"]);
        let better =
            best.as_ref().is_none_or(|(of, known)| created > of.as_str() || created == of && name < known.as_str());
        if better {
            best = Some((created.to_owned(), name.to_owned()));
        }
    });
    best.map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{Asked, Objects, creating, run};
    use serde_json::{Value, json};

    fn class(name: &str, created: &str, mark: &str) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {mark: "true"}}})
    }

    #[test]
    fn claims_get_the_newest_default_class() {
        let mark = "storageclass.kubernetes.io/is-default-class";
        let given = |spec: Value, objects: &Objects| {
            let mut claim = json!({"metadata": {"name": "c", "namespace": "default"}, "spec": spec});
            run(&creating("persistentvolumeclaims"), &mut claim, objects).unwrap();
            claim["spec"]["storageClassName"].clone()
        };
        let none = Objects::cluster().with("storageclasses", class("plain", "2026-01-01T00:00:00Z", "other"));
        assert_eq!(given(json!({}), &none), Value::Null);
        let some = none
            .with("storageclasses", class("old", "2026-01-01T00:00:00Z", mark))
            .with("storageclasses", class("b", "2026-01-02T00:00:00Z", mark))
            .with("storageclasses", class("a", "2026-01-02T00:00:00Z", mark));
        assert_eq!(given(json!({}), &some), "a");
        assert_eq!(given(json!({"storageClassName": "old"}), &some), "old");
        assert_eq!(given(json!({"storageClassName": ""}), &some), "", "none is wanted");
    }

    #[test]
    fn ingresses_get_the_default_class() {
        let mark = "ingressclass.kubernetes.io/is-default-class";
        let objects = Objects::cluster().with("ingressclasses", class("main", "2026-01-01T00:00:00Z", mark));
        let asked = Asked { plural: ("networking.k8s.io", "ingresses"), ..creating("ingresses") };
        let given = |mut ingress: Value| {
            ingress["metadata"]["name"] = "i".into();
            run(&asked, &mut ingress, &objects).unwrap();
            ingress["spec"]["ingressClassName"].clone()
        };
        assert_eq!(given(json!({"spec": {}})), "main");
        assert_eq!(given(json!({"spec": {"ingressClassName": "other"}})), "other");
        let annotated = json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}, "spec": {}});
        assert_eq!(given(annotated), Value::Null);
    }
}
