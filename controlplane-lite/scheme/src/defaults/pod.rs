//! Pods, pod templates, containers, probes, volumes.

use quantity::Quantity;
use serde_json::{Map, Value, json};

use crate::access::{
    at, at_mut, ensure_map, int_at, is_empty, list_at, list_at_mut, set_default, set_default_str, str_at,
};

/// A Pod.
pub fn pod(object: &mut Value) {
    if !at(object, &["spec"]).is_object() {
        return;
    }
    let spec = &mut object["spec"];
    if let Some(map) = spec.as_object_mut() {
        set_default(map, "enableServiceLinks", true);
    }
    pod_spec(spec);
    for list in ["containers", "initContainers"] {
        for container in list_at_mut(spec, &[list]) {
            requests_from_limits(container);
        }
    }
    if at(spec, &["resources"]).is_object() {
        requests_from_limits(spec);
    }
    if at(spec, &["hostNetwork"]) == &Value::Bool(true) {
        host_ports(spec);
    }
}

/// The template of a workload, at `spec.template`.
pub fn template(object: &mut Value) {
    if let Some(spec) = at_mut(object, &["spec", "template", "spec"]) {
        pod_spec(spec);
    }
}

/// A PodTemplate, whose template is at the top.
pub fn pod_template(object: &mut Value) {
    if let Some(spec) = at_mut(object, &["template", "spec"]) {
        pod_spec(spec);
    }
}

/// A PodSpec, in a pod or in a template.
pub fn pod_spec(spec: &mut Value) {
    let Some(map) = spec.as_object_mut() else { return };
    set_default_str(map, "dnsPolicy", "ClusterFirst");
    set_default_str(map, "restartPolicy", "Always");
    set_default_str(map, "schedulerName", "default-scheduler");
    set_default(map, "terminationGracePeriodSeconds", 30);
    // Negative ones are in Deployments of old, which must go on working.
    if map.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        map.insert("terminationGracePeriodSeconds".to_owned(), 1.into());
    }
    set_default(map, "securityContext", json!({}));
    service_account_alias(map);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for item in list_at_mut(spec, &[list]) {
            container(item);
        }
    }
    for item in list_at_mut(spec, &["volumes"]) {
        volume(item);
    }
    round_resources(spec, &["overhead"]);
    for list in ["limits", "requests"] {
        round_resources(spec, &["resources", list]);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always the same.
fn service_account_alias(map: &mut Map<String, Value>) {
    let name = |map: &Map<String, Value>, key| map.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut account = name(map, "serviceAccountName");
    if account.is_empty() {
        account = name(map, "serviceAccount");
    }
    if !account.is_empty() {
        map.insert("serviceAccountName".to_owned(), account.clone().into());
        map.insert("serviceAccount".to_owned(), account.into());
    }
}

fn container(item: &mut Value) {
    let policy = pull_policy(str_at(item, &["image"]));
    let Some(map) = item.as_object_mut() else { return };
    set_default_str(map, "imagePullPolicy", policy);
    set_default_str(map, "terminationMessagePath", "/dev/termination-log");
    set_default_str(map, "terminationMessagePolicy", "File");
    set_default(map, "resources", json!({}));
    for port in list_at_mut(item, &["ports"]) {
        if let Some(map) = port.as_object_mut() {
            set_default_str(map, "protocol", "TCP");
        }
    }
    for env in list_at_mut(item, &["env"]) {
        field_ref(env, &["valueFrom", "fieldRef"]);
        resource_ref(env, &["valueFrom", "resourceFieldRef"]);
        if let Some(file) = env.pointer_mut("/valueFrom/fileKeyRef").and_then(Value::as_object_mut) {
            set_default(file, "optional", false);
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = item.get_mut(key).filter(|v| v.is_object()) {
            probe(value);
        }
    }
    for hook in ["postStart", "preStop"] {
        http_get(item, &["lifecycle", hook, "httpGet"]);
    }
    for list in ["limits", "requests"] {
        round_resources(item, &["resources", list]);
    }
}

/// `Always` for images without tag or with `:latest`, else `IfNotPresent`; a digest counts as a tag.
#[must_use]
pub fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn probe(value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    for (key, default) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if map.get(key).and_then(Value::as_i64).unwrap_or(0) == 0 {
            map.insert(key.to_owned(), default.into());
        }
    }
    http_get(value, &["httpGet"]);
    if let Some(grpc) = value.get_mut("grpc").and_then(Value::as_object_mut) {
        set_default(grpc, "service", "");
    }
}

fn http_get(value: &mut Value, path: &[&str]) {
    if let Some(map) = at_mut(value, path).and_then(Value::as_object_mut) {
        set_default_str(map, "path", "/");
        set_default_str(map, "scheme", "HTTP");
    }
}

/// Go writes the divisor always: a pod that comes back from a Go client must look unchanged.
fn resource_ref(value: &mut Value, path: &[&str]) {
    if let Some(map) = at_mut(value, path).and_then(Value::as_object_mut) {
        set_default(map, "divisor", "0");
    }
}

fn field_ref(value: &mut Value, path: &[&str]) {
    if let Some(map) = at_mut(value, path).and_then(Value::as_object_mut) {
        set_default_str(map, "apiVersion", "v1");
    }
}

fn volume(value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    if map.iter().all(|(key, v)| key == "name" || v.is_null()) {
        map.insert("emptyDir".to_owned(), json!({}));
    }
    for (key, defaults) in [
        ("secret", json!({"defaultMode": 420})),
        ("configMap", json!({"defaultMode": 420})),
        ("downwardAPI", json!({"defaultMode": 420})),
        ("projected", json!({"defaultMode": 420})),
        ("hostPath", json!({"type": ""})),
        ("iscsi", json!({"iscsiInterface": "default"})),
        ("rbd", json!({"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"})),
        ("azureDisk", json!({"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": false})),
        ("scaleIO", json!({"storageMode": "ThinProvisioned", "fsType": "xfs"})),
    ] {
        if let (Some(source), Value::Object(defaults)) = (map.get_mut(key).and_then(Value::as_object_mut), defaults) {
            for (field, default) in defaults {
                set_default(source, &field, default);
            }
        }
    }
    for item in list_at_mut(value, &["downwardAPI", "items"]) {
        field_ref(item, &["fieldRef"]);
        resource_ref(item, &["resourceFieldRef"]);
    }
    for source in list_at_mut(value, &["projected", "sources"]) {
        if let Some(token) = source.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
            set_default(token, "expirationSeconds", 3600);
        }
        for item in list_at_mut(source, &["downwardAPI", "items"]) {
            field_ref(item, &["fieldRef"]);
            resource_ref(item, &["resourceFieldRef"]);
        }
    }
    if let Some(image) = value.get_mut("image").filter(|v| v.is_object()) {
        let policy = pull_policy(str_at(image, &["reference"]));
        set_default_str(ensure_map(image, &[]), "pullPolicy", policy);
    }
    if let Some(claim) = at_mut(value, &["ephemeral", "volumeClaimTemplate"]) {
        super::cluster::claim_spec(claim);
    }
}

/// A limit without a request is also the request. `holder` has `resources`.
fn requests_from_limits(holder: &mut Value) {
    let Some(limits) = at(holder, &["resources", "limits"]).as_object().cloned() else { return };
    if limits.is_empty() {
        return;
    }
    let requests = ensure_map(holder, &["resources", "requests"]);
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

fn host_ports(spec: &mut Value) {
    for list in ["containers", "initContainers"] {
        for container in list_at_mut(spec, &[list]) {
            for port in list_at_mut(container, &["ports"]) {
                let number = int_at(port, &["containerPort"]).unwrap_or(0);
                if int_at(port, &["hostPort"]).unwrap_or(0) == 0
                    && let Some(map) = port.as_object_mut()
                {
                    map.insert("hostPort".to_owned(), number.into());
                }
            }
        }
    }
}

/// Quantities finer than one thousandth are rounded up to it.
fn round_resources(holder: &mut Value, path: &[&str]) {
    let Some(map) = at_mut(holder, path).and_then(Value::as_object_mut) else { return };
    for value in map.values_mut() {
        if let Some(Ok(quantity)) = value.as_str().map(str::parse::<Quantity>)
            && !quantity.is_whole_milli()
        {
            *value = Quantity::from_milli(quantity.milli_value()).to_string().into();
        }
    }
}

/// The QoS class of a pod, from cpu and memory of its containers (or of the pod, where set there).
#[must_use]
pub fn qos_class(spec: &Value) -> &'static str {
    if !is_empty(at(spec, &["resources", "requests"])) || !is_empty(at(spec, &["resources", "limits"])) {
        let resources = at(spec, &["resources"]);
        return classify(std::iter::once(resources));
    }
    let containers = list_at(spec, &["initContainers"]).iter().chain(list_at(spec, &["containers"]));
    classify(containers.map(|c| at(c, &["resources"])))
}

fn classify<'a>(resources: impl Iterator<Item = &'a Value>) -> &'static str {
    let quantity = |v: &Value| v.as_str().and_then(|s| s.parse::<Quantity>().ok()).filter(|q| !q.is_zero());
    let (mut any, mut guaranteed) = (false, true);
    for resource in resources {
        for name in ["cpu", "memory"] {
            let request = quantity(at(resource, &["requests", name]));
            let limit = quantity(at(resource, &["limits", name]));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn defaulted(mut object: Value) -> Value {
        pod(&mut object);
        let once = object.clone();
        pod(&mut object);
        assert_eq!(once, object, "defaulting twice changes nothing");
        object
    }

    #[test]
    fn a_small_pod() {
        let got = defaulted(json!({"spec": {
            "serviceAccount": "old",
            "containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}},
                "resources": {"limits": {"cpu": "1"}},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
            "volumes": [{"name": "a"}, {"name": "s", "secret": {"secretName": "z"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
        }}));
        let spec = &got["spec"];
        assert_eq!(spec["serviceAccountName"], "old");
        assert_eq!(spec["dnsPolicy"], "ClusterFirst");
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
        assert_eq!(spec["enableServiceLinks"], true);
        let c = &spec["containers"][0];
        assert_eq!(c["imagePullPolicy"], "Always");
        assert_eq!(c["ports"][0]["protocol"], "TCP");
        assert_eq!(
            c["readinessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(c["resources"]["requests"]["cpu"], "1");
        assert_eq!(c["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(spec["volumes"][1]["secret"]["defaultMode"], 420);
        assert_eq!(spec["volumes"][2]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3600);
    }

    #[test]
    fn host_network_ports() {
        let got = defaulted(json!({"spec": {"hostNetwork": true,
            "containers": [{"name": "c", "image": "x:1", "ports": [{"containerPort": 80}]}]}}));
        assert_eq!(got["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
    }

    #[test]
    fn pull_policies() {
        for (image, expect) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:2", "IfNotPresent"),
            ("nginx@sha256:ab", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), expect, "{image}");
        }
    }

    #[test]
    fn qos() {
        let r = |requests: Value, limits: Value| json!({"resources": {"requests": requests, "limits": limits}});
        for (containers, expect) in [
            (json!([{}]), "BestEffort"),
            (json!([r(json!({"cpu": "1"}), json!({}))]), "Burstable"),
            (
                json!([r(json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "1000m", "memory": "1024Mi"}))]),
                "Guaranteed",
            ),
            (json!([r(json!({}), json!({"cpu": "1", "memory": "1Gi"})), {}]), "Burstable"),
            (json!([r(json!({"example.com/x": "1"}), json!({}))]), "BestEffort"),
        ] {
            assert_eq!(qos_class(&json!({"containers": containers})), expect);
        }
    }
}
