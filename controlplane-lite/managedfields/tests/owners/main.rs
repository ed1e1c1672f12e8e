//! Who owns what after creates, updates and applies. The right values are upstream's: of the page "Server-Side Apply"
//! of Kubernetes' documentation, of its field manager's tests, and what a cluster answers to `kubectl create
//! deployment`.

#![allow(clippy::unwrap_used)]

mod only;

use managedfields::{ApplyError, Ownable, Set};
use only::{Only, managers, owned};
use serde_json::{Value, json};

fn deployments() -> Only {
    Only::new("apps", "v1", "Deployment")
}

fn config_maps() -> Only {
    Only::new("", "v1", "ConfigMap")
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
        "spec": {
            "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{
                        "name": "nginx", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    }],
                    "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                    "securityContext": {}, "terminationGracePeriodSeconds": 30,
                },
            },
        },
        "status": {},
    })
}

/// What `kubectl create deployment web --image=nginx` owns on a cluster.
#[test]
fn a_creator_owns_what_it_wrote_and_the_defaults() {
    let made = deployments().create(&deployment(), "kubectl-create");
    assert_eq!(managers(&made), ["kubectl-create Update"]);
    assert_eq!(
        owned(&made, "kubectl-create"),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {
                            "k:{\"name\":\"nginx\"}": {
                                ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {},
                                "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {},
                            },
                        },
                        "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
                        "f:terminationGracePeriodSeconds": {},
                    },
                },
            },
        })
    );
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["fieldsType"]), (&json!("apps/v1"), &json!("FieldsV1")));
    assert_eq!(entry["time"], json!("2024-01-01T00:00:00Z"));
}

/// The first example of the documentation's page.
#[test]
fn who_applies_owns_what_is_in_the_configuration() {
    let config = json!({"metadata": {"name": "test-cm", "namespace": "default", "labels": {"test-label": "test"}},
        "data": {"key": "some value"}});
    let made = config_maps().apply(&json!({}), &config, "kubectl", false).unwrap();
    assert_eq!(
        owned(&made, "kubectl"),
        json!({"f:data": {"f:key": {}}, "f:metadata": {"f:labels": {"f:test-label": {}}}})
    );
    assert_eq!(managers(&made), ["kubectl Apply"]);
    assert_eq!(made["data"], config["data"]);
    // The second: another writes the field, and the first learns of it.
    let mut changed = made.clone();
    changed["data"]["key"] = json!("new value");
    let changed = config_maps().update(&made, &changed, "kube-controller-manager", "2024-03-03T00:00:00Z");
    assert_eq!(owned(&changed, "kube-controller-manager"), json!({"f:data": {"f:key": {}}}));
    assert_eq!(owned(&changed, "kubectl"), json!({"f:metadata": {"f:labels": {"f:test-label": {}}}}));
    let Err(ApplyError::Conflict(conflicts)) = config_maps().apply(&changed, &config, "kubectl", false) else {
        panic!()
    };
    assert_eq!(
        conflicts.to_string(),
        "Apply failed with 1 conflict: conflict with \"kube-controller-manager\" using v1: .data.key"
    );
    assert_eq!(conflicts.causes()[0].field, ".data.key");
    assert_eq!(conflicts.causes()[0].message, "conflict with \"kube-controller-manager\" using v1");
    let forced = config_maps().apply(&changed, &config, "kubectl", true).unwrap();
    assert_eq!(forced["data"]["key"], "some value");
    assert_eq!(managers(&forced), ["kubectl Apply"]);
}

#[test]
fn conflicts_are_told_by_manager() {
    let config = |value: &str| json!({"metadata": {"name": "x"}, "data": {"a": value, "b": value}});
    let one = config_maps().apply(&json!({}), &config("1"), "one", false).unwrap();
    let both =
        config_maps().apply(&one, &json!({"metadata": {"name": "x"}, "data": {"a": "1"}}), "two", false).unwrap();
    let Err(error) = config_maps().apply(&both, &config("2"), "three", false) else { panic!() };
    assert_eq!(
        error.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b\nconflicts with \"two\":\n- .data.a"
    );
}

/// What is left out of the next configuration goes, unless somebody else owns it.
#[test]
fn what_is_applied_no_longer_goes() {
    let first = json!({"metadata": {"name": "x", "labels": {"a": "1", "b": "1"}}, "data": {"x": "1", "y": "1"}});
    let made = config_maps().apply(&json!({}), &first, "one", false).unwrap();
    let shared = json!({"metadata": {"name": "x", "labels": {"b": "1"}}});
    let made = config_maps().apply(&made, &shared, "two", false).unwrap();
    let less = json!({"metadata": {"name": "x"}, "data": {"y": "1"}});
    let made = config_maps().apply(&made, &less, "one", false).unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"b": "1"}));
    assert_eq!(made["data"], json!({"y": "1"}));
    assert_eq!(owned(&made, "one"), json!({"f:data": {"f:y": {}}}));
    assert_eq!(owned(&made, "two"), json!({"f:metadata": {"f:labels": {"f:b": {}}}}));
}

/// Items of lists with keys are owned one by one, and keep their places.
#[test]
fn items_are_told_apart_by_their_keys() {
    let container = |name: &str, image: &str| json!({"name": name, "image": image});
    let of = |containers: Vec<Value>| json!({"metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": containers}}}});
    let one =
        deployments().apply(&json!({}), &of(vec![container("a", "1"), container("b", "1")]), "one", false).unwrap();
    let two = deployments().apply(&one, &of(vec![container("c", "1")]), "two", false).unwrap();
    let names = |object: &Value| -> Vec<String> {
        let containers = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        containers.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&two), ["a", "b", "c"]);
    let three = deployments().apply(&two, &of(vec![container("b", "2")]), "one", false).unwrap();
    assert_eq!(names(&three), ["b", "c"]);
    assert_eq!(
        owned(&three, "one"),
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"b\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}})
    );
    // A Service's port without a protocol is one of TCP.
    let services = Only::new("", "v1", "Service");
    let service =
        json!({"metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}]}});
    let made = services.apply(&json!({}), &service, "one", false).unwrap();
    assert_eq!(
        owned(&made, "one"),
        json!({"f:spec": {"f:ports": {
            "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}},
            "k:{\"port\":80,\"protocol\":\"UDP\"}": {".": {}, "f:port": {}, "f:protocol": {}}}}})
    );
}

/// `structured-merge-diff` sorts a merged list as the configuration has it, and leaves the others' items where they
/// are.
#[test]
fn merged_lists_have_upstreams_order() {
    let of = |names: &str| {
        let finalizers: Vec<String> = names.chars().map(|name| format!("x/{name}")).collect();
        json!({"metadata": {"name": "x", "finalizers": finalizers}})
    };
    for (live, config, expect) in [
        ("abc", "", "abc"),
        ("abc", "b", "abc"),
        ("abc", "d", "abcd"),
        ("abc", "cba", "cba"),
        ("abc", "ca", "bca"),
        ("abcd", "dx", "abcdx"),
        ("abcde", "bdxa", "bcdexa"),
        ("", "ab", "ab"),
    ] {
        let made = config_maps().update(&json!({}), &of(live), "other", "2024-01-01T00:00:00Z");
        let merged = config_maps().apply(&made, &of(config), "one", true).unwrap();
        let names = merged["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let names: String = names.iter().map(|name| name.as_str().unwrap().chars().last().unwrap()).collect();
        assert_eq!(names, expect, "{live} {config}");
    }
}

#[test]
fn what_is_atomic_has_one_owner() {
    let of = |labels: Value| json!({"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": labels}}});
    let one = deployments().apply(&json!({}), &of(json!({"a": "1"})), "one", false).unwrap();
    assert_eq!(owned(&one, "one"), json!({"f:spec": {"f:selector": {}}}));
    let error = deployments().apply(&one, &of(json!({"b": "1"})), "two", false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.selector");
    let two = deployments().apply(&one, &of(json!({"b": "1"})), "two", true).unwrap();
    assert_eq!(two["spec"]["selector"]["matchLabels"], json!({"b": "1"}));
    assert_eq!(managers(&two), ["two Apply"]);
}

/// `kubectl apply --server-side` takes over what it applied on the client's side, and nothing else.
#[test]
fn client_side_apply_is_taken_over() {
    let of =
        |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": value}});
    let mut stored = of("1");
    stored["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": of("1").to_string()});
    let live = config_maps().create(&stored, "kubectl-client-side-apply");
    let taken = config_maps().apply(&live, &of("2"), "kubectl", false).unwrap();
    assert_eq!(taken["data"]["a"], "2");
    let last = taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap()["data"]["a"], "2");
    assert!(last.ends_with('\n'));
    // Another manager takes nothing over, nor kubectl what was changed since.
    assert!(matches!(config_maps().apply(&live, &of("2"), "helm", false), Err(ApplyError::Conflict(_))));
    let mut edited = live.clone();
    edited["data"]["a"] = json!("3");
    let edited = config_maps().update(&live, &edited, "kubectl-edit", "2024-01-02T00:00:00Z");
    let error = config_maps().apply(&edited, &of("2"), "kubectl", false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .data.a");
}

#[test]
fn objects_from_before_have_an_owner_at_the_first_apply() {
    let live =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "uid": "1"}, "data": {"a": "1"}});
    let updated = config_maps().update(&live, &live, "one", "2024-01-01T00:00:00Z");
    assert_eq!(managers(&updated), [""; 0]);
    let applied =
        config_maps().apply(&live, &json!({"metadata": {"name": "x"}, "data": {"b": "1"}}), "one", false).unwrap();
    assert_eq!(managers(&applied), ["one Apply", "before-first-apply Update"]);
    assert_eq!(owned(&applied, "before-first-apply"), json!({"f:data": {".": {}, "f:a": {}}}));
}

/// Clients may write the list: an empty one, or one with an empty entry, gives it up.
#[test]
fn managers_can_be_reset_and_are_not_lost_by_mistake() {
    let live = config_maps().create(&json!({"metadata": {"name": "x"}, "data": {"a": "1"}}), "one");
    let with = |entries: Value| {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = entries;
        config_maps().update(&live, &new, "two", "2024-05-05T00:00:00Z")
    };
    for reset in [json!([]), json!([{}])] {
        assert_eq!(managers(&with(reset)), [""; 0]);
    }
    for kept in [json!(null), json!([{"manager": "x", "operation": "Nonsense"}]), json!("text"), json!([{}, {}])] {
        assert_eq!(managers(&with(kept.clone())), ["one Update"], "{kept}");
    }
    let given = json!([{"manager": "zoe", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:a": {}}}}]);
    assert_eq!(managers(&with(given)), ["zoe Apply"]);
}

#[test]
fn an_update_that_changes_nothing_changes_no_time() {
    let live = config_maps().create(&json!({"metadata": {"name": "x"}, "data": {"a": "1"}}), "one");
    let again = config_maps().update(&live, &live, "one", "2025-01-01T00:00:00Z");
    assert_eq!(again, live);
    let applied =
        config_maps().apply(&live, &json!({"metadata": {"name": "x"}, "data": {"b": "1"}}), "two", false).unwrap();
    let twice =
        config_maps().apply(&applied, &json!({"metadata": {"name": "x"}, "data": {"b": "1"}}), "two", false).unwrap();
    assert_eq!(twice, applied);
}

/// Status belongs to who writes it through its subresource.
#[test]
fn what_a_write_resets_it_does_not_own() {
    let mut sent = deployment();
    sent["status"] = json!({"replicas": 3});
    let made = deployments().create(&sent, "one");
    assert_eq!(owned(&made, "one")["f:status"], Value::Null);
    let mut status = Only::new("apps", "v1", "Deployment");
    status.ownable = Ownable::AllBut(Set::of_fields(&[&["spec"], &["metadata", "labels"]]));
    let mut new = made.clone();
    new["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    new["spec"]["replicas"] = json!(7);
    status.manager("apps/v1", "status", "2024-04-04T00:00:00Z").update(&made, &mut new, "controller");
    assert_eq!(
        owned(&new, "controller"),
        json!({"f:status": {"f:replicas": {}, "f:conditions": {".": {},
            "k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}}}})
    );
    let entry =
        new["metadata"]["managedFields"].as_array().unwrap().iter().find(|e| e["manager"] == "controller").unwrap();
    assert_eq!(entry["subresource"], "status");
}

#[test]
fn the_oldest_updaters_become_one() {
    let mut live = config_maps().create(&json!({"metadata": {"name": "x"}, "data": {"k": "0"}}), "m00");
    for i in 1..15 {
        let mut new = live.clone();
        new["data"][format!("k{i}")] = json!("1");
        live = config_maps().update(&live, &new, &format!("m{i:02}"), &format!("2024-01-01T00:00:{i:02}Z"));
    }
    let names = managers(&live);
    assert_eq!(names.len(), 10);
    assert_eq!(names[0], "ancient-changes Update");
    assert_eq!(
        owned(&live, "ancient-changes"),
        json!({"f:data": {".": {}, "f:k": {}, "f:k1": {}, "f:k2": {}, "f:k3": {}, "f:k4": {}, "f:k5": {}}})
    );
}

#[test]
fn what_cannot_be_applied_is_refused() {
    let refused = |config: Value| config_maps().apply(&json!({}), &config, "one", false).unwrap_err();
    let named = |rest: Value| {
        let mut config = json!({"metadata": {"name": "x", "namespace": "ns"}});
        config.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        config
    };
    let error = refused(json!({"metadata": {"name": "x", "managedFields": []}}));
    assert_eq!(error, ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    assert_eq!(
        refused(named(json!({"nonsense": 1}))).to_string(),
        "failed to create typed patch object (ns/x; /v1, Kind=ConfigMap): .nonsense: field not declared in schema"
    );
    let pods = Only::new("", "v1", "Pod");
    let ports = json!([{"containerPort": 80}, {"containerPort": 80}]);
    let pod = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a", "ports": ports}]}});
    assert!(
        pods.apply(&json!({}), &pod, "one", false).unwrap_err().to_string().ends_with(
            r#".spec.containers[name="a"].ports: duplicate entries for key [containerPort=80,protocol="TCP"]"#
        )
    );
    let other = json!({"apiVersion": "v2", "kind": "Other"});
    let error = config_maps().manager("v1", "", "").apply(&json!({}), &other, "one", false).unwrap_err();
    assert_eq!(error, ApplyError::BadRequest("invalid object type: /v2, Kind=Other".to_owned()));
}
