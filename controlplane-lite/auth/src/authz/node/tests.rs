//! What a kubelet may do, and what it may not.

use super::*;
use crate::authn::UserInfo;
use serde_json::json;

#[derive(Debug)]
struct OnePod(Value);

impl NodeView for OnePod {
    fn pod_node(&self, namespace: &str, pod: &str) -> Option<String> {
        let metadata = &self.0["metadata"];
        let is = metadata["namespace"] == namespace && metadata["name"] == pod;
        self.0["spec"]["nodeName"].as_str().filter(|_| is).map(str::to_owned)
    }
    fn any_pod_refers(&self, node: &str, namespace: &str, what: Reference, name: &str) -> bool {
        let mut found = false;
        rights(&self.0, &mut |kind, of| found = found || kind == what && of == name);
        found && self.0["spec"]["nodeName"] == node && self.0["metadata"]["namespace"] == namespace
    }
    fn volume(&self, name: &str) -> Option<Value> {
        volumes().into_iter().find(|volume| volume["metadata"]["name"] == name)
    }
    fn any_volume(&self, word: &str, wanted: &dyn Fn(&Value) -> bool) -> bool {
        volumes().iter().filter(|volume| volume.to_string().contains(word)).any(wanted)
    }
    fn attachment_node(&self, attachment: &str) -> Option<String> {
        (attachment == "attached").then(|| "n1".into())
    }
    fn slice_node(&self, slice: &str) -> Option<String> {
        (slice == "ours").then(|| "n1".into())
    }
}

fn volumes() -> [Value; 2] {
    let stage = |name: &str| json!({"nodeStageSecretRef": {"namespace": "storage", "name": name}});
    [("pv", "data", "stage"), ("theirs", "other", "their-stage")].map(|(name, claim, secret)| {
        json!({"metadata": {"name": name},
            "spec": {"claimRef": {"namespace": "ns", "name": claim}, "csi": stage(secret)}})
    })
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "ns"},
        "spec": {
            "nodeName": "n1", "serviceAccountName": "robot", "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "tls"}},
                {"name": "b", "configMap": {"name": "conf"}},
                {"name": "c", "projected": {"sources": [
                    {"serviceAccountToken": {}}, {"configMap": {"name": "kube-root-ca.crt"}}, {"secret": {"name": "more"}},
                ]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "e", "ephemeral": {}},
                {"name": "f", "csi": {"nodePublishSecretRef": {"name": "csi"}}},
            ],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "init"}}]}],
            "containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "env"}}}, {"value": "x"}]}],
        },
    })
}

fn ask(node: &str, request: &str) -> Decision {
    // "verb group/resource/subresource namespace name selector", dashes for nothing
    let words: Vec<_> = request.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
    let [verb, what, namespace, name, selector] = words[..] else { panic!("{request}") };
    let mut parts = what.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    let mut attributes = Attributes::resource(UserInfo::node(node), verb, part(), part(), namespace);
    attributes.subresource = part().into();
    attributes.name = name.into();
    attributes.field_selector = selector.into();
    NodeAuthorizer::new(Arc::new(OnePod(pod()))).authorize(&attributes)
}

#[test]
fn a_kubelet_sees_what_its_pods_need() {
    let allowed = [
        "get /secrets ns tls -",
        "watch /secrets ns tls -",
        "list /secrets ns tls -",
        "get /secrets ns pull -",
        "get /secrets ns more -",
        "get /secrets ns init -",
        "get /secrets ns csi -",
        "get /configmaps ns conf -",
        "get /configmaps ns kube-root-ca.crt -",
        "get /configmaps ns env -",
        "get /persistentvolumeclaims ns data -",
        "get /persistentvolumeclaims ns web-e -",
        "get /persistentvolumes - pv -",
        "get /secrets storage stage -",
        "create /serviceaccounts/token ns robot -",
        "get storage.k8s.io/volumeattachments - attached -",
        "get /pods ns web -",
        "list /pods - - spec.nodeName=n1",
        "watch /pods - - a=b,spec.nodeName==n1",
        "get /nodes - n1 -",
        "watch /nodes - - metadata.name=n1",
        "patch /nodes/status - n1 -",
        "create /nodes - - -",
        "update coordination.k8s.io/leases kube-node-lease n1 -",
        "create coordination.k8s.io/leases kube-node-lease - -",
        "get storage.k8s.io/csinodes - n1 -",
        "create resource.k8s.io/resourceslices - - -",
        "get resource.k8s.io/resourceslices - ours -",
        "patch resource.k8s.io/resourceslices - ours -",
        "delete resource.k8s.io/resourceslices - ours -",
        "list resource.k8s.io/resourceslices - - spec.nodeName=n1",
        "watch resource.k8s.io/resourceslices - - spec.driver=d,spec.nodeName=n1",
        "deletecollection resource.k8s.io/resourceslices - - spec.nodeName=n1",
        "list /services - - -",
        "watch /services - - -",
        "create /events ns - -",
        "patch /pods/status ns web -",
        "create /pods ns - -",
        "delete /pods ns web -",
        "create certificates.k8s.io/certificatesigningrequests - - -",
        "create authentication.k8s.io/tokenreviews - - -",
        "create authorization.k8s.io/subjectaccessreviews - - -",
        "list node.k8s.io/runtimeclasses - - -",
    ];
    for request in allowed {
        let decision = ask("n1", request);
        assert!(decision.allowed(), "{request}: {decision:?}");
    }
}

#[test]
fn and_nothing_else() {
    let refused = [
        "get /secrets ns other -",
        "get /secrets elsewhere tls -",
        "list /secrets ns - -",
        "list /secrets - - -",
        "delete /secrets ns tls -",
        "update /configmaps ns conf -",
        "get /persistentvolumes - other -",
        "get /persistentvolumes - theirs -",
        "get /secrets storage their-stage -",
        "get /secrets ns stage -",
        "list /secrets storage - -",
        "get /persistentvolumeclaims/status ns data -",
        "update /persistentvolumeclaims/status ns other -",
        "get /secrets/status ns tls -",
        "list /persistentvolumeclaims ns - -",
        "create /serviceaccounts/token ns default -",
        "get /pods ns other -",
        "list /pods - - -",
        "list /pods - - spec.nodeName=n2",
        "list /pods - - spec.nodeName!=n1",
        // The comma is of a value: everything else is selected.
        "list /pods - - spec.nodeName!=a\\,spec.nodeName=n1",
        "watch /nodes - - metadata.name!=a\\,metadata.name=n1",
        "deletecollection resource.k8s.io/resourceslices - - spec.driver!=a\\,spec.nodeName=n1",
        "get /nodes - n2 -",
        "list /nodes - - -",
        "update coordination.k8s.io/leases kube-node-lease n2 -",
        "update coordination.k8s.io/leases default n1 -",
        "list coordination.k8s.io/leases kube-node-lease - -",
        "update storage.k8s.io/csinodes - n2 -",
        "get storage.k8s.io/volumeattachments - other -",
        "get resource.k8s.io/resourceslices - theirs -",
        "update resource.k8s.io/resourceslices - theirs -",
        "list resource.k8s.io/resourceslices - - -",
        "watch resource.k8s.io/resourceslices - - spec.nodeName=n2",
        "deletecollection resource.k8s.io/resourceslices - - spec.driver=d",
        "get resource.k8s.io/resourceslices/status - ours -",
        "create apps/deployments ns - -",
        "create rbac.authorization.k8s.io/clusterroles - - -",
    ];
    for request in refused {
        let decision = ask("n1", request);
        assert!(!decision.allowed(), "{request}: {decision:?}");
        assert_ne!(decision.verdict, super::super::Verdict::Deny, "RBAC may still allow it");
    }
    assert!(!ask("n2", "get /secrets ns tls -").allowed(), "another node's pod");
}

#[test]
fn others_are_not_its_business() {
    let authorizer = NodeAuthorizer::new(Arc::new(OnePod(pod())));
    let impostor = UserInfo::new("system:node:n1", ["some-group"]);
    let request = Attributes { name: "n1".into(), ..Attributes::resource(impostor, "get", "", "nodes", "") };
    assert!(!authorizer.authorize(&request).allowed(), "a name without the group is nothing");
}

#[test]
fn a_mirror_pod_gives_no_rights() {
    let mut mirror = pod();
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": ""});
    let authorizer = NodeAuthorizer::new(Arc::new(OnePod(mirror)));
    let ask = |verb: &str, resource: &str, subresource: &str, name: &str| {
        let user = UserInfo::node("n1");
        let asked =
            Attributes::resource(user, verb, "", resource, if resource.ends_with("volumes") { "" } else { "ns" });
        authorizer.authorize(&Attributes { name: name.into(), subresource: subresource.into(), ..asked }).allowed()
    };
    for secret in ["tls", "pull", "more", "init", "csi"] {
        assert!(!ask("get", "secrets", "", secret), "{secret}");
    }
    assert!(!ask("get", "configmaps", "", "conf"));
    assert!(!ask("get", "persistentvolumeclaims", "", "data"));
    assert!(!ask("get", "persistentvolumes", "", "pv"));
    assert!(!ask("create", "serviceaccounts", "token", "robot"));
    assert!(ask("get", "pods", "", "web"), "the pod itself is the node's");
}
