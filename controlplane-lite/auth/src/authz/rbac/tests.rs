//! Tests of `auth::authz::rbac`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Debug, Default)]
struct Fixed {
    roles: HashMap<(String, String), Arc<[PolicyRule]>>,
    bindings: HashMap<String, Vec<Binding>>,
}

impl RbacView for Fixed {
    fn cluster_role(&self, name: &str) -> Option<Arc<[PolicyRule]>> {
        self.role("", name)
    }
    fn role(&self, namespace: &str, name: &str) -> Option<Arc<[PolicyRule]>> {
        self.roles.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
    fn cluster_role_bindings(&self) -> Arc<[Binding]> {
        self.role_bindings("")
    }
    fn role_bindings(&self, namespace: &str) -> Arc<[Binding]> {
        self.bindings.get(namespace).cloned().unwrap_or_default().into()
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(|word| word.trim_matches('"').to_owned()).collect()
}

fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
    PolicyRule {
        verbs: words(verbs),
        api_groups: words(groups),
        resources: words(resources),
        resource_names: words(names),
        ..PolicyRule::default()
    }
}

fn paths(verbs: &str, urls: &str) -> PolicyRule {
    PolicyRule { verbs: words(verbs), non_resource_urls: words(urls), ..PolicyRule::default() }
}

fn binding(namespace: &str, name: &str, role: (&str, &str), subject: (&str, &str, &str)) -> Binding {
    Binding {
        namespace: namespace.into(),
        name: name.into(),
        role_ref: RoleRef { kind: role.0.into(), name: role.1.into(), ..RoleRef::default() },
        subjects: vec![Subject {
            kind: subject.0.into(),
            name: subject.1.into(),
            namespace: subject.2.into(),
            ..Subject::default()
        }],
    }
}

fn fixed() -> Fixed {
    let mut view = Fixed::default();
    let mut role = |namespace: &str, name: &str, rules: Vec<PolicyRule>| {
        view.roles.insert((namespace.into(), name.into()), rules.into());
    };
    role("", "admin", vec![rule("*", "*", "*", ""), paths("*", "*")]);
    role("", "reader", vec![rule("get,list", "\"\",apps", "pods,deployments", "")]);
    role("ns", "one-secret", vec![rule("get", "\"\"", "secrets", "mine")]);
    role("", "logs", vec![rule("get", "\"\"", "*/log,pods/exec", "")]);
    role("", "public", vec![paths("get", "/healthz,/version/*")]);
    view.bindings.insert(
        String::new(),
        vec![
            binding("", "admins", ("ClusterRole", "admin"), ("Group", "admins", "")),
            binding("", "public", ("ClusterRole", "public"), ("Group", "system:authenticated", "")),
            binding("", "broken", ("ClusterRole", "gone"), ("User", "unlucky", "")),
        ],
    );
    view.bindings.insert(
        "ns".into(),
        vec![
            binding("ns", "readers", ("ClusterRole", "reader"), ("User", "jane", "")),
            binding("ns", "sa", ("Role", "one-secret"), ("ServiceAccount", "robot", "")),
            binding("ns", "far", ("ClusterRole", "logs"), ("ServiceAccount", "robot", "other")),
        ],
    );
    view
}

#[test]
fn requests() {
    let rbac = RbacAuthorizer::new(Arc::new(fixed()));
    let robot = "system:serviceaccount:ns:robot";
    let far = "system:serviceaccount:other:robot";
    // user, group, verb, API group, resource, subresource, namespace, name, allowed
    let cases = [
        ("root", "admins", "delete", "apps", "deployments", "scale", "ns", "x", true),
        ("jane", "", "get", "", "pods", "", "ns", "x", true),
        ("jane", "", "get", "", "pods", "", "other", "x", false),
        ("jane", "", "get", "", "pods", "", "", "", false),
        ("jane", "", "delete", "", "pods", "", "ns", "x", false),
        ("jane", "", "get", "", "pods", "log", "ns", "x", false),
        ("jane", "", "list", "apps", "deployments", "", "ns", "", true),
        ("jane", "", "list", "batch", "deployments", "", "ns", "", false),
        (robot, "", "get", "", "secrets", "", "ns", "mine", true),
        (robot, "", "get", "", "secrets", "", "ns", "yours", false),
        (robot, "", "get", "", "secrets", "", "ns", "", false),
        (far, "", "get", "", "secrets", "", "ns", "mine", false),
        (far, "", "get", "", "pods", "log", "ns", "x", true),
        (far, "", "get", "", "pods", "exec", "ns", "x", true),
        (far, "", "get", "", "pods", "", "ns", "x", false),
        ("nobody", "", "get", "", "pods", "", "ns", "x", false),
    ];
    for (user, group, verb, api, resource, sub, namespace, name, allowed) in cases {
        let mut attributes = Attributes::resource(UserInfo::new(user, [group]), verb, api, resource, namespace);
        attributes.subresource = sub.into();
        attributes.name = name.into();
        let decision = rbac.authorize(&attributes);
        assert_eq!(decision.allowed(), allowed, "{attributes:?}: {decision:?}");
    }
}

#[test]
fn paths_match_by_prefix() {
    let rbac = RbacAuthorizer::new(Arc::new(fixed()));
    let cases = [("/healthz", true), ("/healthz/x", false), ("/version/", true), ("/version", false), ("/", false)];
    for (path, allowed) in cases {
        let attributes = Attributes::non_resource(UserInfo::new("x", [""]), "get", path);
        assert_eq!(rbac.authorize(&attributes).allowed(), allowed, "{path}");
    }
    let anonymous = Attributes::non_resource(UserInfo::anonymous(), "get", "/healthz");
    assert!(!rbac.authorize(&anonymous).allowed());
}

#[test]
fn reasons_are_upstreams() {
    let rbac = RbacAuthorizer::new(Arc::new(fixed()));
    let ask = |user: &str, resource: &str, name: &str| {
        let mut attributes = Attributes::resource(UserInfo::new(user, [""]), "get", "", resource, "ns");
        attributes.name = name.into();
        rbac.authorize(&attributes).reason
    };
    assert_eq!(
        ask("jane", "pods", "x"),
        r#"RBAC: allowed by RoleBinding "readers/ns" of ClusterRole "reader" to User "jane""#
    );
    assert_eq!(
        ask("system:serviceaccount:ns:robot", "secrets", "mine"),
        r#"RBAC: allowed by RoleBinding "sa/ns" of Role "one-secret" to ServiceAccount "robot/ns""#
    );
    assert_eq!(ask("unlucky", "pods", "x"), r#"RBAC: clusterroles.rbac.authorization.k8s.io "gone" not found"#);
    assert_eq!(ask("nobody", "pods", "x"), "");
}

#[test]
fn covering() {
    let check = |owned: &[PolicyRule], wanted: PolicyRule, covered: bool| {
        assert_eq!(covers(owned, std::slice::from_ref(&wanted)), covered, "{owned:?} ⊇ {wanted:?}");
    };
    let pods = [rule("get,list", "\"\"", "pods", ""), rule("get", "\"\"", "secrets", "a,b")];
    check(&pods, rule("get", "\"\"", "pods", ""), true);
    check(&pods, rule("get", "\"\"", "pods", "x"), true);
    check(&pods, rule("get,delete", "\"\"", "pods", ""), false);
    check(&pods, rule("*", "\"\"", "pods", ""), false);
    check(&pods, rule("get", "\"\"", "pods,secrets", ""), false);
    check(&pods, rule("get", "\"\"", "secrets", "a"), true);
    check(&pods, rule("get", "\"\"", "secrets", "c"), false);
    check(&pods, rule("get", "\"\"", "pods/log", ""), false);
    check(&[rule("*", "*", "*", "")], rule("x", "y", "z/w", ""), true);
    check(&[rule("*", "*", "*", "")], paths("get", "/x"), false);
    check(&[rule("get", "*", "*/scale", "")], rule("get", "apps", "deployments/scale", ""), true);
    check(&[paths("*", "*")], paths("get", "/metrics"), true);
    check(&[paths("get", "/a/*")], paths("get", "/a/*"), true);
    check(&[paths("get", "/a/*")], paths("get", "/*"), false);
    // Split over two rules of the owner is fine.
    check(
        &[rule("get", "\"\"", "pods", ""), rule("list", "\"\"", "pods", "")],
        rule("get,list", "\"\"", "pods", ""),
        true,
    );
    check(&[], PolicyRule::default(), true);
}

#[test]
fn escalation_names_what_is_lacking() {
    let view = fixed();
    let jane = UserInfo::new("jane", [""]);
    assert!(escalation(&view, &jane, "ns", &[rule("get", "\"\"", "pods", "")]).is_empty());
    let lacking = escalation(&view, &jane, "ns", &[rule("get,delete", "\"\"", "pods,nodes", "")]);
    let lacking: Vec<_> = lacking.iter().map(|r| (r.resources.join(","), r.verbs.len())).collect();
    assert_eq!(lacking, [("nodes".to_owned(), 2), ("pods".to_owned(), 1)]);
    assert!(!escalation(&view, &jane, "other", &[rule("get", "\"\"", "pods", "")]).is_empty());
}

/// A refusal costs no copy of what the user may do, however many bindings there are, and names few of what is missing.
#[test]
fn refusals_are_small() {
    let mut view = Fixed::default();
    let rules: Arc<[PolicyRule]> = (0..1000).map(|n| rule("get", "\"\"", "secrets", &format!("s{n}"))).collect();
    view.roles.insert(("ns".into(), "many".into()), rules.clone());
    let own = |n: usize| binding("ns", &format!("b{n}"), ("Role", "many"), ("User", "jane", ""));
    let gone = |n: usize| binding("ns", &format!("g{n}"), ("Role", &format!("gone{n}")), ("User", "jane", ""));
    view.bindings.insert("ns".into(), (0..1000).map(own).chain((0..5000).map(gone)).collect());
    let jane = UserInfo::new("jane", [""]);
    let resolved = rules_for(&view, &jane, "ns");
    assert_eq!(resolved.rules().count(), 1000, "each role once");
    assert!(resolved.rules().zip(rules.iter()).all(|(a, b)| std::ptr::eq(a, b)), "and not copied");
    let asked = Attributes::resource(jane, "get", "", "pods", "ns");
    let reason = RbacAuthorizer::new(Arc::new(view)).authorize(&asked).reason;
    assert!(reason.starts_with(r#"RBAC: roles.rbac.authorization.k8s.io "gone0" not found, roles"#), "{reason}");
    assert!(reason.len() < 10_000, "{}", reason.len());
}

#[test]
fn what_is_missing_is_named_within_a_size() {
    let wanted = PolicyRule {
        verbs: words("get"),
        api_groups: vec!["g".repeat(1 << 20)],
        resources: (0..256).map(|n| format!("r{n}")).collect(),
        ..PolicyRule::default()
    };
    let missing = uncovered(&[], std::slice::from_ref(&wanted));
    let bytes: usize = missing.iter().map(|rule| rule.api_groups.iter().map(String::len).sum::<usize>()).sum();
    assert!(!missing.is_empty() && bytes <= 2 << 20, "{bytes}");
}

/// Names of an owner, each in a rule of its own: sets of them would be a table of hundreds of megabytes.
#[test]
fn many_small_rules_take_little() {
    let owned: Vec<PolicyRule> = (0..30_000).map(|n| rule("get", "\"\"", "pods", &format!("p{n}"))).collect();
    let wanted = |count: usize| PolicyRule {
        resource_names: (0..count).map(|n| format!("p{n}")).collect(),
        ..rule("get", "\"\"", "pods", "")
    };
    assert!(covers(&owned, &[wanted(100)]));
    assert!(!covers(&owned, &[wanted(30_000)]), "more than is decided");
}

/// A role of 400 verbs, groups and resources has 9 KB and grants 64 million things.
#[test]
fn products_are_never_written_out() {
    let many = |prefix: &str| (0..400).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    let wanted = PolicyRule { verbs: many("v"), api_groups: many("g"), resources: many("r"), ..PolicyRule::default() };
    let missing = uncovered(&[rule("get", "*", "*", "")], std::slice::from_ref(&wanted));
    assert!(!missing.is_empty() && missing.len() <= 256, "{}", missing.len());
    assert!(covers(&[rule("*", "*", "*", "")], std::slice::from_ref(&wanted)));
    assert!(covers(std::slice::from_ref(&wanted), std::slice::from_ref(&wanted)));
    // An owner of as many single rules: undecided within the bound, so not covered.
    let single = |n: usize| PolicyRule {
        verbs: vec![format!("v{n}")],
        api_groups: vec![format!("g{n}")],
        resources: vec![format!("r{n}")],
        ..PolicyRule::default()
    };
    let owned: Vec<PolicyRule> = (0..400).map(single).collect();
    assert!(!covers(&owned, std::slice::from_ref(&wanted)));
    assert!(covers(&owned, &owned));
}

/// The definition, by the product: what [`uncovered`] must agree with.
fn covered_by_definition(owned: &[PolicyRule], wanted: &PolicyRule) -> bool {
    let has = |list: &[String], value: &str| list.iter().any(|v| v == "*" || v == value);
    let named = |list: &[String], name: Option<&String>| list.is_empty() || name.is_some_and(|n| list.contains(n));
    let resource = |list: &[String], value: &str| {
        has(list, value) || value.split_once('/').is_some_and(|(_, sub)| list.contains(&format!("*/{sub}")))
    };
    let names: Vec<Option<&String>> =
        if wanted.resource_names.is_empty() { vec![None] } else { wanted.resource_names.iter().map(Some).collect() };
    wanted.verbs.iter().all(|verb| {
        wanted.api_groups.iter().all(|group| {
            wanted.resources.iter().all(|r| {
                names.iter().all(|name| {
                    owned.iter().any(|o| {
                        has(&o.verbs, verb)
                            && has(&o.api_groups, group)
                            && resource(&o.resources, r)
                            && named(&o.resource_names, *name)
                    })
                })
            })
        })
    })
}

#[test]
fn garbage_roles_are_errors() {
    for bad in ["", "null", "[]", r#"{"metadata":{}, "rules": 5}"#, r#"{"rules":[]}"#, r#"{"metadata":{"name":3}}"#] {
        assert!(Role::from_json(bad.as_bytes()).is_err(), "{bad}");
        assert!(Binding::from_json(bad.as_bytes()).is_err(), "{bad}");
    }
    let null = r#"{"metadata":{"name":"a","labels":null},"rules":null,"aggregationRule":null}"#;
    assert!(Role::from_json(null.as_bytes()).unwrap().rules.is_empty());
    let rule = r#"{"metadata":{"name":"a"},"rules":[{"verbs":["get"],"nonResourceURLs":["/x"],"apiGroups":null}]}"#;
    assert_eq!(Role::from_json(rule.as_bytes()).unwrap().rules, [paths("get", "/x")]);
}

fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let some = |words: &'static [&'static str]| {
        proptest::collection::vec(proptest::sample::select(words), 1..3)
            .prop_map(|words| words.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>())
    };
    (
        some(&["get", "list", "*"]),
        some(&["", "apps", "*"]),
        some(&["pods", "pods/log", "*/log", "*"]),
        prop_oneof![Just(Vec::new()), some(&["a", "b"])],
    )
        .prop_map(|(verbs, api_groups, resources, resource_names)| PolicyRule {
            verbs,
            api_groups,
            resources,
            resource_names,
            ..PolicyRule::default()
        })
}

proptest! {
    #[test]
    fn what_is_covered_is_allowed(owned in proptest::collection::vec(any_rule(), 0..4), wanted in any_rule()) {
        prop_assert!(covers(&owned, &owned), "rules cover themselves");
        prop_assert_eq!(covers(&owned, std::slice::from_ref(&wanted)), covered_by_definition(&owned, &wanted));
        if covers(&owned, std::slice::from_ref(&wanted)) {
            for (verb, group, resource, sub, name) in [
                ("get", "", "pods", "", "a"), ("list", "apps", "pods", "log", "b"), ("get", "x", "jobs", "log", ""),
            ] {
                let mut ask = Attributes::resource(UserInfo::anonymous(), verb, group, resource, "");
                ask.subresource = sub.into();
                ask.name = name.into();
                if rule_allows(&ask, &wanted) {
                    prop_assert!(owned.iter().any(|rule| rule_allows(&ask, rule)), "{ask:?}");
                }
            }
        }
    }
}
