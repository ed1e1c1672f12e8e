//! Tests of the admission chain.

#![allow(clippy::unwrap_used)]
use std::collections::HashMap;

use futures::FutureExt as _;
use serde_json::json;

use super::*;
use crate::status::ApiError;
use scheme::builtin;

#[derive(Default)]
pub(super) struct Objects(HashMap<(String, String, String), Value>);

impl Objects {
    pub(super) fn with(mut self, plural: &str, object: Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or("").to_owned();
        self.0.insert((plural.into(), text("namespace"), text("name")), object);
        self
    }

    pub(super) fn cluster() -> Self {
        Self::default()
            .with("namespaces", json!({"metadata": {"name": "default"}, "status": {"phase": "Active"}}))
            .with("namespaces", json!({"metadata": {"name": "ending"}, "status": {"phase": "Terminating"}}))
            .with("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "default"}}))
            .with("priorityclasses", json!({"metadata": {"name": "high"}, "value": 1000}))
            .with("runtimeclasses", json!({"metadata": {"name": "plain"}, "handler": "runc"}))
            .with(
                "runtimeclasses",
                json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "500m"}},
                    "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}}),
            )
    }
}

impl View for Objects {
    fn get(&self, _: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.0.get(&(plural.into(), namespace.into(), name.into())).cloned()
    }

    fn each_in(&self, _: &str, plural: &str, namespace: &str, visit: &mut dyn FnMut(&Value)) {
        let within = |of: &str| namespace.is_empty() || of == namespace;
        self.0.iter().filter(|((p, of, _), _)| p == plural && within(of)).for_each(|(_, object)| visit(object));
    }

    fn may(&self, user: &UserInfo, verb: &str, _: &str, _: (&str, &str), name: &str) -> bool {
        user.username == format!("{verb} {name}")
    }

    fn is_own_audience(&self, audience: &str) -> bool {
        audience == "own-audience"
    }

    fn suffix(&self) -> String {
        "xxxxx".into()
    }

    fn fresh(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        async { Ok(()) }.boxed()
    }
}

pub(super) struct Asked {
    pub(super) operation: Operation,
    pub(super) plural: (&'static str, &'static str),
    pub(super) subresource: &'static str,
    pub(super) namespace: &'static str,
    pub(super) user: UserInfo,
    pub(super) old: Option<Value>,
}

pub(super) fn creating(plural: &'static str) -> Asked {
    Asked {
        operation: Operation::Create,
        plural: ("", plural),
        subresource: "",
        namespace: "default",
        user: UserInfo::new("jane", Vec::<String>::new()),
        old: None,
    }
}

/// Both phases of the default plugins.
pub(super) async fn ask(asked: &Asked, object: &mut Value, view: &dyn View) -> Result<(), ApiError> {
    ask_of(&Chain::new([]), asked, object, view).await
}

/// Both phases.
pub(super) async fn ask_of(chain: &Chain, asked: &Asked, object: &mut Value, view: &dyn View) -> Result<(), ApiError> {
    let name = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
    let request = Request {
        operation: asked.operation,
        kind: builtin().by_gvr(asked.plural.0, "v1", asked.plural.1).unwrap(),
        subresource: asked.subresource,
        namespace: asked.namespace,
        name: &name,
        user: &asked.user,
        body: builtin().by_gvr(asked.plural.0, "v1", asked.plural.1).unwrap(),
        old: asked.old.as_ref(),
        served: builtin().by_gvr(asked.plural.0, "v1", asked.plural.1).unwrap(),
        dry_run: false,
        again: false,
        options: Options::None,
        memory: &Memory::default(),
    };
    let mut object = (asked.operation != Operation::Delete).then_some(object);
    chain.mutate(&request, object.as_deref_mut(), view).await?;
    Ok(chain.validate(&request, object.as_deref(), view).await?)
}

/// The same of what waits for nothing.
pub(super) fn run(asked: &Asked, object: &mut Value, view: &dyn View) -> Result<(), ApiError> {
    ask(asked, object, view).now_or_never().expect("nothing waits")
}

fn pod() -> Value {
    json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "a"}]}})
}

#[test]
fn pods_get_a_token_a_priority_and_tolerations() {
    let mut pod = pod();
    run(&creating("pods"), &mut pod, &Objects::cluster()).unwrap();
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    assert_eq!(pod["spec"]["volumes"][0]["name"], "kube-api-access-xxxxx");
    assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-xxxxx");
    assert_eq!(pod["spec"]["priority"], 0);
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    // A second pass adds nothing.
    let once = pod.clone();
    run(&creating("pods"), &mut pod, &Objects::cluster()).unwrap();
    assert_eq!(pod, once);
}

#[test]
fn tokens_can_be_declined() {
    let mut declined = pod();
    declined["spec"]["automountServiceAccountToken"] = json!(false);
    run(&creating("pods"), &mut declined, &Objects::cluster()).unwrap();
    assert_eq!(declined["spec"].get("volumes"), None);
}

/// What an account looks like that is not to be decoded again.
struct Mentioning(Objects, bool);

impl View for Mentioning {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.0.get(group, plural, namespace, name)
    }

    fn each_in(&self, group: &str, plural: &str, namespace: &str, visit: &mut dyn FnMut(&Value)) {
        self.0.each_in(group, plural, namespace, visit);
    }

    fn may(&self, user: &UserInfo, verb: &str, group: &str, resource: (&str, &str), name: &str) -> bool {
        self.0.may(user, verb, group, resource, name)
    }

    fn is_own_audience(&self, audience: &str) -> bool {
        self.0.is_own_audience(audience)
    }

    fn suffix(&self) -> String {
        self.0.suffix()
    }

    fn mentions(&self, _: &str, _: &str, _: &str, _: &str, _: &str) -> Option<bool> {
        Some(self.1)
    }

    fn fresh(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        self.0.fresh()
    }
}

#[test]
fn an_account_that_keeps_nothing_from_its_pods_is_not_read_to_validate_them() {
    let strict = json!({"metadata": {"name": "default", "namespace": "default",
        "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}});
    let mut pod = pod();
    pod["spec"]["serviceAccountName"] = json!("default");
    pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "other"}}]);
    let validate = |mentions: bool| {
        let view = Mentioning(Objects::cluster().with("serviceaccounts", strict.clone()), mentions);
        let asked = creating("pods");
        let kind = builtin().by_gvr("", "v1", "pods").unwrap();
        let request = Request {
            operation: asked.operation,
            kind,
            subresource: "",
            namespace: asked.namespace,
            name: "p",
            user: &asked.user,
            body: kind,
            old: None,
            served: kind,
            dry_run: false,
            again: false,
            options: Options::None,
            memory: &Memory::default(),
        };
        let answer = match service_account::ServiceAccount.validate(&request, Some(&pod), &view) {
            Answer::Now(answer) => answer,
            Answer::Later(_) => panic!("the account is there"),
        };
        answer.is_ok()
    };
    assert!(!validate(true), "the account is asked");
    assert!(validate(false));
}

#[test]
fn a_missing_account_is_named() {
    let mut other = pod();
    other["spec"]["serviceAccountName"] = json!("robot");
    let error = run(&creating("pods"), &mut other, &Objects::cluster()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "pods \"p\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found"
    );
}

#[test]
fn namespaces_must_be_there_and_alive() {
    let mut map = json!({"metadata": {"name": "m"}});
    let at = |namespace| Asked { namespace, ..creating("configmaps") };
    let missing = run(&at("nowhere"), &mut map, &Objects::cluster()).unwrap_err();
    assert_eq!((missing.code(), missing.to_string().as_str()), (404, "namespaces \"nowhere\" not found"));
    let ending = run(&at("ending"), &mut map, &Objects::cluster()).unwrap_err();
    assert_eq!(ending.code(), 403);
    assert_eq!(ending.to_value()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let immortal = Asked { operation: Operation::Delete, namespace: "", ..creating("namespaces") };
    let mut default = json!({"metadata": {"name": "default"}});
    assert_eq!(run(&immortal, &mut default, &Objects::cluster()).unwrap_err().code(), 403);
}

#[test]
fn priorities_come_from_classes_only() {
    let mut high = pod();
    high["spec"]["priorityClassName"] = json!("high");
    run(&creating("pods"), &mut high, &Objects::cluster()).unwrap();
    assert_eq!(high["spec"]["priority"], 1000);
    let mut forged = pod();
    forged["spec"]["priority"] = json!(7);
    assert_eq!(run(&creating("pods"), &mut forged, &Objects::cluster()).unwrap_err().code(), 403);
    let mut unknown = pod();
    unknown["spec"]["priorityClassName"] = json!("no");
    assert!(
        run(&creating("pods"), &mut unknown, &Objects::cluster())
            .unwrap_err()
            .to_string()
            .ends_with("no PriorityClass with name no was found")
    );
}

#[test]
fn runtime_classes_bring_overhead_and_scheduling() {
    let mut vm = pod();
    vm["spec"]["runtimeClassName"] = json!("vm");
    vm["spec"]["nodeSelector"] = json!({"disk": "fast"});
    let fresh = vm.clone();
    run(&creating("pods"), &mut vm, &Objects::cluster()).unwrap();
    assert_eq!(vm["spec"]["overhead"], json!({"cpu": "500m"}));
    assert_eq!(vm["spec"]["nodeSelector"], json!({"disk": "fast", "vm": "yes"}));
    assert_eq!(vm["spec"]["tolerations"].as_array().unwrap().len(), 3);
    let once = vm.clone();
    run(&creating("pods"), &mut vm, &Objects::cluster()).unwrap();
    assert_eq!(vm, once, "a second pass adds nothing");

    let mut written = fresh.clone();
    written["spec"]["overhead"] = json!({"cpu": "0.5"});
    run(&creating("pods"), &mut written, &Objects::cluster()).unwrap();
    let refused = |change: &dyn Fn(&mut Value), text: &str| {
        let mut pod = fresh.clone();
        change(&mut pod["spec"]);
        let error = run(&creating("pods"), &mut pod, &Objects::cluster()).unwrap_err();
        assert_eq!((error.code(), error.to_string()), (403, format!("pods \"p\" is forbidden: {text}")));
    };
    refused(&|s| s["runtimeClassName"] = json!("no"), "pod rejected: RuntimeClass \"no\" not found");
    refused(
        &|s| s["overhead"] = json!({"cpu": "1"}),
        "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
    );
    for class in [json!("plain"), json!(null)] {
        let unasked = |s: &mut Value| {
            s["runtimeClassName"] = class.clone();
            s["overhead"] = json!({"cpu": "1"});
        };
        refused(&unasked, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead");
    }
    refused(
        &|s| s["nodeSelector"]["vm"] = json!("no"),
        "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
    );
}

#[test]
fn new_nodes_take_no_pods_yet() {
    let mut node = json!({"metadata": {"name": "n"}});
    let asked = Asked { namespace: "", ..creating("nodes") };
    run(&asked, &mut node, &Objects::cluster()).unwrap();
    assert_eq!(node["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
}

#[test]
fn certificates_are_approved_and_signed_by_those_who_may() {
    let request = |status: Value| json!({"metadata": {"name": "r"}, "spec": {"signerName": "example.com/a", "request": ""}, "status": status});
    let asked = |subresource: &'static str, user: &str| Asked {
        operation: Operation::Update,
        plural: ("certificates.k8s.io", "certificatesigningrequests"),
        subresource,
        namespace: "",
        user: UserInfo::new(user, Vec::<String>::new()),
        old: Some(request(json!({}))),
    };
    for (subresource, verb) in [("approval", "approve"), ("status", "sign")] {
        let mut changed = request(json!({"conditions": [{"type": "Failed"}]}));
        let mut ask = |user: &str| run(&asked(subresource, user), &mut changed, &Objects::cluster());
        let told = ask("jane").unwrap_err().to_string();
        let why = format!("user not permitted to {verb} requests with signerName \"example.com/a\"");
        assert_eq!(told, format!("certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: {why}"));
        ask(&format!("{verb} example.com/a")).unwrap();
        ask(&format!("{verb} example.com/*")).unwrap();
        assert!(ask(&format!("{verb} example.com/b")).is_err());
    }
    // Labels may be changed through /status by who may not sign.
    run(&asked("status", "jane"), &mut request(json!({})), &Objects::cluster()).unwrap();
}

#[test]
fn nobody_asks_to_become_a_master() {
    use base64::Engine as _;
    let make_as = |group: &str, signer: &str, wide: bool| {
        let mut params = rcgen::CertificateParams::default();
        let value = if wide { rcgen::DnValue::BmpString(group.try_into().unwrap()) } else { group.into() };
        params.distinguished_name.push(rcgen::DnType::OrganizationName, value);
        let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
        json!({"metadata": {"name": "r"}, "spec": {"signerName": signer, "request": encoded}})
    };
    let make = |group: &str, signer: &str| make_as(group, signer, false);
    let plural = ("certificates.k8s.io", "certificatesigningrequests");
    let asked = Asked { plural, namespace: "", ..creating("pods") };
    let client = "kubernetes.io/kube-apiserver-client";
    let refused = run(&asked, &mut make("system:masters", client), &Objects::cluster()).unwrap_err().to_string();
    assert!(
        refused.ends_with(&format!("use of {client} signer with system:masters group is not allowed")),
        "{refused}"
    );
    run(&asked, &mut make("people", client), &Objects::cluster()).unwrap();
    run(&asked, &mut make("system:masters", "example.com/a"), &Objects::cluster()).unwrap();
    // A string type that other readers skip hides nothing.
    assert_eq!(run(&asked, &mut make_as("system:masters", client, true), &Objects::cluster()).unwrap_err().code(), 403);
    for unreadable in [json!(3), json!("%%"), json!("Z2FyYmFnZQ==")] {
        let mut object = json!({"spec": {"signerName": client, "request": unreadable}});
        assert_eq!(run(&asked, &mut object, &Objects::cluster()).unwrap_err().code(), 403);
    }
}

#[test]
fn garbage_passes_or_fails_without_panic() {
    for object in [json!(null), json!({"spec": 1}), json!({"spec": {"containers": 3}}), json!({"metadata": []})] {
        for plural in ["pods", "nodes", "services", "serviceaccounts"] {
            let _ = run(&creating(plural), &mut object.clone(), &Objects::cluster());
        }
    }
}

/// `AllOrderedPlugins` of upstream's `pkg/kubeapiserver/options/plugins.go`, those that there are, and which of
/// `MutationInterface` and `ValidationInterface` each implements.
#[test]
fn the_chain_is_in_upstreams_order() {
    let ours = Plugin::validating("Webhook", unbuilt::validate);
    let chain = Chain::new([ours]);
    let plugins: Vec<(&str, bool, bool)> = chain.plugins().collect();
    assert_eq!(
        plugins,
        [
            ("NamespaceLifecycle", true, false),
            ("LimitRanger", true, true),
            ("ServiceAccount", true, true),
            ("NodeRestriction", true, false),
            ("TaintNodesByCondition", true, false),
            ("PodSecurity", false, true),
            ("Priority", true, true),
            ("DefaultTolerationSeconds", true, false),
            ("DefaultStorageClass", true, false),
            ("StorageObjectInUseProtection", true, false),
            ("PersistentVolumeClaimResize", false, true),
            ("RuntimeClass", true, true),
            ("CertificateApproval", false, true),
            ("CertificateSigning", false, true),
            ("CertificateSubjectRestriction", false, true),
            ("DefaultIngressClass", true, false),
            ("PodTopologyLabels", true, false),
            ("PodResizeValidator", false, true),
            ("AdminAccess", false, true),
            ("Unbuilt", false, true),
            ("Webhook", false, true),
            ("ResourceQuota", false, true),
        ]
    );
}

#[test]
fn plugins_are_chosen_by_upstreams_names() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let selection = |enable: &[&str], disable: &[&str]| Selection { enable: words(enable), disable: words(disable) };
    let has = |selection: &Selection, name: &str| {
        let chain = Chain::selected([Plugin::validating("ValidatingAdmissionWebhook", unbuilt::validate)], selection);
        chain.plugins().any(|(known, ..)| known == name)
    };
    let chosen = selection(&["AlwaysPullImages"], &["PodSecurity", "ValidatingAdmissionWebhook", "EventRateLimit"]);
    assert_eq!(chosen.problems(), [""; 0]);
    assert!(has(&chosen, "AlwaysPullImages") && has(&chosen, "ResourceQuota") && !has(&chosen, "AlwaysDeny"));
    assert!(!has(&chosen, "PodSecurity") && !has(&chosen, "ValidatingAdmissionWebhook"));
    assert_eq!(
        selection(&["Foo", "PodSecurity", "EventRateLimit"], &["Bar", "PodSecurity", "Unbuilt"]).problems(),
        [
            "enable-admission-plugins plugin \"Foo\" is unknown",
            "enable-admission-plugins plugin \"EventRateLimit\" is not built into copepod",
            "disable-admission-plugins plugin \"Bar\" is unknown",
            "disable-admission-plugins plugin \"Unbuilt\" is unknown",
            "[PodSecurity] in enable-admission-plugins and disable-admission-plugins overlapped",
        ]
    );
}

mod references;
mod waiting;
