//! What another server says of its resources, as far as it is what it should be: the rest is left out
//! (`fetchFreshDiscoveryForService` of k8s.io/kube-aggregator/pkg/apiserver/handler_discovery.go,
//! `ConvertGroupVersionIntoToDiscovery` of k8s.io/apiserver/pkg/endpoints/installer.go).

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::access::{list_at, str_at};

/// Takes a field of a text, or of a list of texts, over.
fn copy(to: &mut Map<String, Value>, from: &Value, field: &str, name: &str) {
    let value = match &from[field] {
        Value::String(text) if !text.is_empty() => text.as_str().into(),
        Value::Array(items) => items.iter().filter(|item| item.is_string()).cloned().collect::<Vec<_>>().into(),
        _ => return,
    };
    to.insert(name.to_owned(), value);
}

fn response_kind(of: &Value) -> Value {
    json!({"group": str_at(of, &["group"]), "version": str_at(of, &["version"]), "kind": str_at(of, &["kind"])})
}

/// The resources of one group version in an APIGroupDiscoveryList. A version that is not in it has none.
#[must_use]
pub fn resources_of(list: &Value, group: &str, version: &str) -> Option<Value> {
    let items = list["items"].as_array()?;
    let of_group = items.iter().filter(|item| str_at(item, &["metadata", "name"]) == group);
    let mut versions = of_group.flat_map(|item| list_at(item, &["versions"]));
    let Some(found) = versions.find(|found| str_at(found, &["version"]) == version) else { return Some(json!([])) };
    let resources = list_at(found, &["resources"]).iter().filter(|r| !str_at(r, &["resource"]).is_empty());
    Some(resources.map(resource).collect())
}

fn resource(resource: &Value) -> Value {
    let mut out = Map::new();
    for field in ["resource", "scope", "singularResource", "verbs", "shortNames", "categories"] {
        copy(&mut out, resource, field, field);
    }
    // A client of some versions ends at one without.
    out.insert("responseKind".to_owned(), response_kind(&resource["responseKind"]));
    let below = list_at(resource, &["subresources"]).iter().filter(|s| !str_at(s, &["subresource"]).is_empty());
    let below: Vec<Value> = below
        .map(|sub| {
            let mut out = Map::new();
            copy(&mut out, sub, "subresource", "subresource");
            copy(&mut out, sub, "verbs", "verbs");
            out.insert("responseKind".to_owned(), response_kind(&sub["responseKind"]));
            Value::Object(out)
        })
        .collect();
    if !below.is_empty() {
        out.insert("subresources".to_owned(), below.into());
    }
    Value::Object(out)
}

/// The same of an APIResourceList, in which subresources stand beside the resources.
#[must_use]
pub fn converted(list: &Value, group: &str, version: &str) -> Option<Value> {
    let listed = list["resources"].as_array()?;
    let kind = |of: &Value| {
        let or = |field: &str, own: &str| match str_at(of, &[field]) {
            "" => own.to_owned(),
            text => text.to_owned(),
        };
        json!({"group": or("group", group), "version": or("version", version), "kind": str_at(of, &["kind"])})
    };
    let (mut out, mut places): (Vec<Map<String, Value>>, HashMap<&str, usize>) = (Vec::new(), HashMap::new());
    for each in listed {
        match str_at(each, &["name"]).split_once('/') {
            None if !str_at(each, &["name"]).is_empty() => {
                let mut resource = Map::new();
                copy(&mut resource, each, "name", "resource");
                copy(&mut resource, each, "singularName", "singularResource");
                for field in ["verbs", "shortNames", "categories"] {
                    copy(&mut resource, each, field, field);
                }
                let scope = if each["namespaced"] == true { "Namespaced" } else { "Cluster" };
                resource.insert("scope".to_owned(), scope.into());
                resource.insert("responseKind".to_owned(), kind(each));
                places.entry(str_at(each, &["name"])).or_insert(out.len());
                out.push(resource);
            }
            Some((parent, name)) => {
                let mut sub = Map::from_iter([("subresource".to_owned(), name.into())]);
                copy(&mut sub, each, "verbs", "verbs");
                sub.insert("responseKind".to_owned(), kind(each));
                if let Some(of) = places.get(parent).and_then(|place| out.get_mut(*place))
                    && let Value::Array(below) = of.entry("subresources").or_insert_with(|| json!([]))
                {
                    below.push(sub.into());
                }
            }
            None => {}
        }
    }
    Some(out.into_iter().map(Value::Object).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::builtin;
    use crate::discovery::{AggregatedVersion, aggregated, api_resource_list};

    /// Both forms of our own documents come to the same.
    #[test]
    fn both_forms_say_the_same() {
        for (group, version) in [("apps", "v1"), ("autoscaling", "v2"), ("rbac.authorization.k8s.io", "v1")] {
            let all = aggregated(builtin(), &[], false, AggregatedVersion::V2);
            let new = resources_of(&all, group, version).unwrap();
            let old = converted(&api_resource_list(builtin(), group, version).unwrap(), group, version).unwrap();
            assert!(!new.as_array().unwrap().is_empty());
            assert_eq!(new, old);
        }
    }

    #[test]
    fn garbage_is_left_out() {
        for garbage in [json!(null), json!([]), json!({}), json!({"items": 7}), json!("x")] {
            assert_eq!(resources_of(&garbage, "g", "v"), None, "{garbage}");
            assert_eq!(converted(&garbage, "g", "v"), None, "{garbage}");
        }
        let odd = json!({"items": [7, {"metadata": {"name": "g"}, "versions": ["x", {"version": "v", "resources": [
            1, {}, {"resource": "a", "verbs": ["get", 7], "more": 1, "subresources": [{}, {"subresource": "s"}]}]}]}]});
        let nothing = json!({"group": "", "version": "", "kind": ""});
        assert_eq!(
            resources_of(&odd, "g", "v").unwrap(),
            json!([{"resource": "a", "verbs": ["get"], "responseKind": nothing,
                "subresources": [{"subresource": "s", "responseKind": nothing}]}])
        );
        assert_eq!(resources_of(&odd, "g", "v2"), Some(json!([])));
        assert_eq!(converted(&json!({"resources": [1, {}, {"name": "a/b"}]}), "g", "v"), Some(json!([])));
    }
}
