//! What may be changed of a CustomResourceDefinition, and what a write there sets.

use super::*;

fn established(mut crd: Value) -> Value {
    crd["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    crd
}

fn update(old: &Value, changes: &Value) -> Vec<String> {
    let mut new = merge::apply(old, changes);
    kind().default(&mut new);
    kind().prepare_update("", &mut new, old, &crate::tests::context());
    texts(&kind().validate_update("", &new, old))
}

/// The rows of `TestValidateCustomResourceDefinitionUpdate`.
#[test]
fn what_names_an_object_stays() {
    let fresh = definition(&json!({}));
    let served = established(fresh.clone());
    let scope = spec(json!({"scope": "Namespaced", "names": {"kind": "Other", "listKind": "OtherList"}}));
    assert_eq!(update(&served, &json!({})), Vec::<String>::new());
    assert_eq!(update(&fresh, &scope), Vec::<String>::new());
    assert_eq!(
        update(&served, &scope),
        [
            "spec.scope: Invalid value: \"Namespaced\": field is immutable",
            "spec.names.kind: Invalid value: \"Other\": field is immutable",
        ]
    );
    for old in [&fresh, &served] {
        assert_eq!(
            update(old, &spec(json!({"group": "other.com", "names": {"plural": "others"}}))),
            [
                "spec.group: Invalid value: \"other.com\": field is immutable",
                "spec.names.plural: Invalid value: \"others\": field is immutable",
            ]
        );
        let names = spec(json!({"names": {"singular": "one", "shortNames": ["pl"], "categories": ["all"]}}));
        assert_eq!(update(old, &names), Vec::<String>::new());
    }
}

#[test]
fn versions_that_were_stored_stay() {
    let old = definition(&json!({}));
    let second = version(json!({"name": "v2"}));
    let first = version(json!({"storage": false}));
    let mut moved = merge::apply(&old, &versions(json!([first, second])));
    kind().prepare_update("", &mut moved, &old, &crate::tests::context());
    assert_eq!(moved["status"]["storedVersions"], json!(["v1", "v2"]));
    assert_eq!(texts(&kind().validate_update("", &moved, &old)), Vec::<String>::new());
    assert_eq!(
        update(&moved, &versions(json!([second]))),
        ["status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage \
             version, and must remain in spec.versions until a storage migration ensures no data remains persisted in \
             v1 and removes v1 from status.storedVersions",]
    );
}

#[test]
fn what_was_stored_against_a_rule_may_stay() {
    let review = |versions: Value| {
        spec(json!({"conversion": {"strategy": "Webhook", "webhook": {
            "clientConfig": {"service": {"name": "n", "namespace": "ns"}}, "conversionReviewVersions": versions}}}))
    };
    let bad = "spec.conversion.conversionReviewVersions: Invalid value: [\"other\"]: must include at least one of v1, v1beta1";
    assert_eq!(update(&definition(&review(json!(["odd"]))), &review(json!(["other"]))), Vec::<String>::new());
    assert_eq!(update(&definition(&review(json!(["v1"]))), &review(json!(["other"]))), [bad]);
    assert_eq!(update(&definition(&json!({})), &review(json!(["other"]))), [bad]);

    let schemaless = json!([{"name": "v1", "served": true, "storage": true}]);
    let missing = "spec.versions[0].schema.openAPIV3Schema: Required value";
    assert_eq!(
        update(&definition(&versions(schemaless.clone())), &spec(json!({"names": {"singular": "s"}}))),
        [format!("{missing}: because otherwise all fields are pruned")]
    );
    let preserving = definition(&spec(json!({"preserveUnknownFields": true, "versions": schemaless})));
    assert_eq!(update(&preserving, &spec(json!({"names": {"singular": "s"}}))), Vec::<String>::new());
    assert_eq!(
        update(&definition(&json!({})), &versions(json!([{"name": "v1", "served": true, "storage": true}]))),
        [missing]
    );
    let preserve = spec(json!({"preserveUnknownFields": true}));
    assert_eq!(update(&definition(&preserve), &json!({})), Vec::<String>::new());
    assert_eq!(update(&definition(&json!({})), &preserve).len(), 1);

    let tags = |count: usize, from: usize| {
        let fields: Value = (0..count).map(|n| json!({"jsonPath": format!(".spec.tags.t{}", n + from)})).collect();
        only(json!({ "selectableFields": fields }))
    };
    let many = ["spec.selectableFields: Too many: 9: must have at most 8 items"];
    assert_eq!(update(&definition(&tags(9, 0)), &spec(json!({"names": {"singular": "s"}}))), Vec::<String>::new());
    assert_eq!(update(&definition(&tags(9, 0)), &tags(9, 1)), many);
    assert_eq!(update(&definition(&tags(8, 0)), &tags(9, 0)), many);

    let approved = |annotation: Value| {
        definition(
            &json!({"metadata": {"name": "plurals.x.k8s.io", "annotations": {"api-approved.kubernetes.io": annotation}},
            "spec": {"group": "x.k8s.io"}}),
        )
    };
    assert_eq!(update(&approved(json!(null)), &json!({"metadata": {"labels": {"a": "b"}}})), Vec::<String>::new());
    let taken = json!({"metadata": {"annotations": {"api-approved.kubernetes.io": null}}});
    assert_eq!(update(&approved(json!("unapproved")), &taken).len(), 1);
}

#[test]
fn a_bundle_that_is_used_stays_one() {
    let certificate = rcgen::generate_simple_self_signed(["example.com".to_owned()]).unwrap().cert.pem();
    let bundle = |text: &str| {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        spec(json!({"conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"caBundle": encoded, "service": {"name": "n", "namespace": "ns"}}}}}))
    };
    let good = definition(&bundle(&certificate));
    let bad = "spec.conversion.webhookClientConfig.caBundle: Invalid value: \"Cg==\": unable to load root certificates: \
               unable to parse bytes as PEM block";
    assert_eq!(update(&good, &bundle("\n")), Vec::<String>::new());
    assert_eq!(update(&established(good.clone()), &bundle("\n")), [bad]);
    assert_eq!(update(&established(good), &bundle(&certificate)), Vec::<String>::new());
    assert_eq!(update(&established(definition(&bundle("\n"))), &bundle(" \n")), Vec::<String>::new());
    assert_eq!(update(&established(definition(&json!({}))), &bundle("\n")), [bad]);
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (mixed, problems) in [(format!("{broken}{certificate}"), 0), (broken.to_owned(), 1)] {
        assert_eq!(update(&established(definition(&json!({}))), &bundle(&mixed)).len(), problems, "{mixed}");
    }
    let mut folded = bundle(&certificate);
    let held = &mut folded["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"];
    *held = json!(held.as_str().unwrap().split_at(64).0.to_owned() + "\r\n" + held.as_str().unwrap().split_at(64).1);
    assert_eq!(update(&established(definition(&json!({}))), &folded), Vec::<String>::new());
}

/// A definition with so many versions, each with a schema and fields of its own, and as many that were stored.
fn of_many(count: usize) -> Value {
    let each = |n: usize| {
        version(
            json!({"name": format!("v{n}"), "storage": n == 0, "selectableFields": [{"jsonPath": if n == 0 { ".spec.on" } else { ".spec.color" }}],
            "schema": {"openAPIV3Schema": {"title": format!("{n}")}}}),
        )
    };
    let mut crd = definition(&versions((0..count).map(each).collect()));
    crd["status"]["storedVersions"] = (0..count).map(|n| json!(format!("v{n}"))).collect();
    crd
}

#[test]
fn the_work_grows_with_the_number_of_versions() {
    let nobody: Arc<SchemaCheck> = Arc::new(|_, _, _| {});
    let scheme = builtin_with(&nobody);
    let kind = scheme.by_gvk(GROUP, "v1", "CustomResourceDefinition").unwrap();
    let looks = |count: usize| {
        let crd = of_many(count);
        let before = crate::access::looks();
        assert_eq!(texts(&kind.validate_update("", &crd, &crd)), Vec::<String>::new());
        crate::access::looks() - before
    };
    let (few, many) = (looks(25), looks(100));
    assert!(many < 5 * few, "{few} {many}");
}

/// Upstream keeps the last place of a version that was stored twice.
#[test]
fn stored_versions_are_told_once() {
    let mut crd = definition(&json!({}));
    crd["status"]["storedVersions"] = json!(["v1", "v0", "v1", "v0"]);
    let told = texts(&kind().validate_update("", &crd, &crd));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("status.storedVersions[3]: Invalid value: \"v0\": missing from"), "{told:?}");
}

/// `pkg/registry/customresourcedefinition/strategy_test.go`, and what defaults make of little
/// (`pkg/apis/apiextensions/v1/defaults_test.go`).
#[test]
fn what_a_write_sets() {
    let mut crd = json!({"metadata": {"name": "plurals.group.com", "generation": 7}, "spec": {"names": {"kind": "Plural"},
        "versions": [{"name": "v1"}, {"name": "v2", "storage": true}]}, "status": {"storedVersions": ["v0"]}});
    kind().default(&mut crd);
    assert_eq!(crd["spec"]["names"], json!({"kind": "Plural", "singular": "plural", "listKind": "PluralList"}));
    assert_eq!(crd["spec"]["conversion"], json!({"strategy": "None"}));
    kind().prepare_create(&mut crd, &crate::tests::context());
    let names = json!({"plural": "", "kind": ""});
    assert_eq!(crd["status"], json!({"conditions": null, "acceptedNames": names, "storedVersions": ["v2"]}));
    assert_eq!(crd["metadata"]["generation"], 1);

    let mut new = crd.clone();
    new["status"] = json!({"storedVersions": ["v9"]});
    new["metadata"]["labels"] = json!({"a": "b"});
    kind().prepare_update("", &mut new, &crd, &crate::tests::context());
    assert_eq!((&new["status"], &new["metadata"]["generation"]), (&crd["status"], &json!(1)));
    new["spec"]["scope"] = json!("Cluster");
    kind().prepare_update("", &mut new, &crd, &crate::tests::context());
    assert_eq!(new["metadata"]["generation"], 2);

    // Whoever ends a definition takes its finalizer away together with what it says of it.
    let mut held = crd.clone();
    held["metadata"]["finalizers"] = json!(["a"]);
    let mut new = held.clone();
    new["metadata"]["finalizers"] = json!([]);
    new["metadata"]["generation"] = json!(9);
    new["spec"] = json!({});
    new["status"]["acceptedNames"]["kind"] = json!("a b");
    kind().prepare_update("status", &mut new, &held, &crate::tests::context());
    assert_eq!((&new["spec"], &new["metadata"]["finalizers"]), (&held["spec"], &json!([])));
    assert_eq!(new["metadata"]["generation"], 1);
    let refused = texts(&kind().validate_update("status", &new, &held));
    assert!(refused[0].starts_with("status.acceptedNames.kind: Invalid value: \"a b\": may have mixed"), "{refused:?}");
}

#[test]
fn references_to_webhooks_have_a_port() {
    let crd =
        definition(&spec(json!({"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"service": {}}}}})));
    assert_eq!(crd["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"], 443);
}
