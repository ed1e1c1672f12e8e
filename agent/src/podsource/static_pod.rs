//! A file's text → the static pod it describes. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Pod, Toleration, Volume};
use sha2::{Digest as _, Sha256};

use super::{PodOrigin, manifest};
use crate::convert::spec::{self, CONFIG_HASH, CONFIG_SEEN, CONFIG_SOURCE};
use crate::ids::{ObjectName, is_dns_label, is_subdomain};
use crate::objectcache::ObjectKind;
use crate::objectcache::refs::references;

/// Why a text is no static pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaticPodError {
    #[error("not readable as a pod: {0}")]
    Syntax(String),
    #[error("kind is {0:?}, expected a v1 Pod")]
    Kind(String),
    #[error("invalid pod: {0}")]
    Invalid(String),
}

/// Reads YAML or JSON and makes it a pod of this node: name with the node's
/// appended, a UID from its content, upstream's annotations and toleration.
/// `seen` is the time of annotation `config.seen`.
pub fn parse(text: &str, origin: PodOrigin, node_name: &str, seen: &str) -> Result<Pod, StaticPodError> {
    let syntax = |e: &dyn std::fmt::Display| StaticPodError::Syntax(e.to_string());
    let mut value = manifest::read(text).map_err(|e| syntax(&e))?;
    let kind = value.get("kind").and_then(|k| k.as_str()).unwrap_or_default();
    let version = value.get("apiVersion").and_then(|k| k.as_str()).unwrap_or_default();
    if kind != "Pod" || version != "v1" {
        return Err(StaticPodError::Kind(format!("{version}/{kind}")));
    }
    gojson::normalize(&mut value);
    let pod: Pod = serde_json::from_value(value).map_err(|e| syntax(&e))?;
    finish(pod, text, origin, node_name, seen)
}

fn finish(mut pod: Pod, text: &str, origin: PodOrigin, node_name: &str, seen: &str) -> Result<Pod, StaticPodError> {
    let invalid = |m: String| Err(StaticPodError::Invalid(m));
    if let Some(kind) = api_reference(&pod) {
        return invalid(format!("static pods may not reference {kind}"));
    }
    let Some(spec) = pod.spec.as_mut() else { return invalid("spec: Required value".to_owned()) };
    let name = pod.metadata.name.clone().unwrap_or_default();
    if !is_subdomain(&name) {
        return invalid(format!("metadata.name: Invalid value: {name:?}"));
    }
    // It becomes part of the path of the pod's logs.
    if let Some(namespace) = pod.metadata.namespace.as_deref().filter(|name| !is_dns_label(name)) {
        return invalid(format!("metadata.namespace: Invalid value: {namespace:?}"));
    }
    if spec.containers.is_empty() {
        return invalid("spec.containers: Required value".to_owned());
    }
    let mut names = BTreeSet::new();
    for c in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if !is_dns_label(&c.name) || !names.insert(c.name.clone()) {
            return invalid(format!("container name {:?} is invalid or not unique", c.name));
        }
        if c.image.as_deref().unwrap_or_default().is_empty() {
            return invalid(format!("container {}: image: Required value", c.name));
        }
        c.image_pull_policy.get_or_insert_with(|| "IfNotPresent".to_owned());
        c.termination_message_path.get_or_insert_with(|| "/dev/termination-log".to_owned());
    }
    spec.node_name = Some(node_name.to_owned());
    spec.termination_grace_period_seconds.get_or_insert(30);
    let everything = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    spec.tolerations.get_or_insert_default().push(everything);
    let hash = content_hash(text, node_name, origin);
    let meta = &mut pod.metadata;
    meta.name = Some(format!("{name}-{}", node_name.to_lowercase()));
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    meta.uid = Some(hash.clone());
    meta.deletion_timestamp = None;
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(CONFIG_SOURCE.to_owned(), origin.as_str().to_owned());
    annotations.insert(CONFIG_HASH.to_owned(), hash);
    annotations.insert(CONFIG_SEEN.to_owned(), seen.to_owned());
    pod.status = None;
    Ok(pod)
}

/// What a pod refers to at the API server, which has no such pod: nothing there tells that it may have it
/// (pkg/api/pod/util.go: `HasAPIObjectReference`).
fn api_reference(pod: &Pod) -> Option<&'static str> {
    let spec = spec::spec(pod);
    let named = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    if named(&spec.service_account_name) || named(&spec.service_account) {
        return Some("serviceaccounts");
    }
    let mut kinds: BTreeSet<ObjectKind> = references(pod).into_iter().map(|object| object.kind).collect();
    // Also in volumes that this node does not know.
    if spec.volumes.iter().flatten().any(|volume| driver_secret(volume).is_some_and(|name| !name.is_empty())) {
        kinds.insert(ObjectKind::Secret);
    }
    let objects = [(ObjectKind::Secret, "secrets"), (ObjectKind::ConfigMap, "configmaps")];
    if let Some((_, name)) = objects.into_iter().find(|(kind, _)| kinds.contains(kind)) {
        return Some(name);
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("resourceclaims");
    }
    let volumes = spec.volumes.iter().flatten();
    volumes.into_iter().find_map(|volume| {
        if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
            return Some("persistentvolumeclaims");
        }
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        sources.into_iter().find_map(|source| match source {
            _ if source.service_account_token.is_some() => Some("serviceaccounts"),
            _ if source.cluster_trust_bundle.is_some() => Some("clustertrustbundles"),
            _ if source.pod_certificate.is_some() => Some("podcertificates"),
            _ => None,
        })
    })
}

/// The Secret that a volume's driver is to be given (pkg/api/pod/util.go: `VisitPodSecretNames`).
fn driver_secret(volume: &Volume) -> Option<&str> {
    if let Some(azure) = &volume.azure_file {
        return Some(&azure.secret_name);
    }
    let references = [
        volume.cephfs.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.csi.as_ref().and_then(|v| v.node_publish_secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.iscsi.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|v| v.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|v| &v.secret_ref),
        volume.storageos.as_ref().and_then(|v| v.secret_ref.as_ref()),
    ];
    references.into_iter().flatten().map(|reference| reference.name.as_str()).next()
}

/// The names that pods of one source have taken (pkg/kubelet/config/config.go: `filterInvalidPods`).
#[derive(Debug, Default)]
pub struct Names(BTreeSet<ObjectName>);

impl Names {
    /// Gives a pod its name, unless another one has it.
    pub fn take(&mut self, pod: &Pod) -> Result<(), String> {
        let name = ObjectName::of_pod(pod);
        if self.0.insert(name.clone()) {
            return Ok(());
        }
        Err(format!("Error validating pod {name} due to duplicate pod name {:?}, ignoring", &*name.name))
    }
}

/// Whether a static pod was made of an object of this name, however little of a pod that is now.
pub fn is_named(pod: &Pod, object: &serde_json::Value, node_name: &str) -> bool {
    let text = |field: &str| object["metadata"][field].as_str();
    let name = text("name").map(|name| format!("{name}-{}", node_name.to_lowercase()));
    name.is_some()
        && pod.metadata.name == name
        && pod.metadata.namespace.as_deref() == Some(text("namespace").unwrap_or("default"))
}

/// 32 hexadecimal digits that change with the text, the node and the source.
fn content_hash(text: &str, node_name: &str, origin: PodOrigin) -> String {
    let mut hash = Sha256::new();
    for part in [origin.as_str(), node_name, text] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(16).fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_namespace_leads_nowhere() {
        for (namespace, good) in
            [("kube-system", true), ("../../etc", false), ("a.b", false), ("A", false), ("''", false)]
        {
            let text = WEB.replace("{name: web}", &format!("{{name: web, namespace: {namespace}}}"));
            let parsed = parse(&text, PodOrigin::File, "n", "now");
            assert_eq!(parsed.is_ok(), good, "{namespace}: {parsed:?}");
        }
    }

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: i}]}";

    fn read(text: &str) -> Result<Pod, StaticPodError> {
        parse(text, PodOrigin::File, "Node1", "2026-01-01T00:00:00Z")
    }

    #[test]
    fn a_file_becomes_a_pod_of_this_node() {
        let pod = read(WEB).unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(pod.metadata.uid.as_ref().unwrap().len(), 32);
        assert!(crate::convert::spec::is_static(&pod));
        let other = read(&WEB.replace("image: i", "image: j")).unwrap();
        assert_ne!(pod.metadata.uid, other.metadata.uid);
        assert_eq!(read(WEB).unwrap().metadata.uid, pod.metadata.uid);
        let json = serde_json::to_string(&serde_norway::from_str::<serde_json::Value>(WEB).unwrap()).unwrap();
        assert!(read(&json).is_ok());
    }

    /// As upstream: nobody ever gave the node what they name, and they would wait for it for ever.
    #[test]
    fn what_is_at_the_api_server_is_for_others() {
        for (spec, kind) in [
            ("serviceAccountName: default", "serviceaccounts"),
            ("serviceAccount: default", "serviceaccounts"),
            ("imagePullSecrets: [{name: s}]", "secrets"),
            ("volumes: [{name: v, secret: {secretName: s}}]", "secrets"),
            ("volumes: [{name: v, projected: {sources: [{configMap: {name: m}}]}}]", "configmaps"),
            ("initContainers: [{name: b, image: i, envFrom: [{configMapRef: {name: m}}]}]", "configmaps"),
            ("volumes: [{name: v, azureFile: {secretName: s, shareName: x}}]", "secrets"),
            ("volumes: [{name: v, cephfs: {monitors: [m], secretRef: {name: s}}}]", "secrets"),
            ("volumes: [{name: v, cinder: {volumeID: x, secretRef: {name: s}}}]", "secrets"),
            ("volumes: [{name: v, csi: {driver: d, nodePublishSecretRef: {name: s}}}]", "secrets"),
            ("volumes: [{name: v, flexVolume: {driver: d, secretRef: {name: s}}}]", "secrets"),
            ("volumes: [{name: v, iscsi: {targetPortal: t, iqn: i, lun: 0, secretRef: {name: s}}}]", "secrets"),
            ("volumes: [{name: v, rbd: {monitors: [m], image: i, secretRef: {name: s}}}]", "secrets"),
            ("volumes: [{name: v, scaleIO: {gateway: g, system: z, secretRef: {name: s}}}]", "secrets"),
            ("volumes: [{name: v, storageos: {secretRef: {name: s}}}]", "secrets"),
            ("resourceClaims: [{name: c}]", "resourceclaims"),
            ("volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", "persistentvolumeclaims"),
            ("volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]", "serviceaccounts"),
            ("volumes: [{name: v, projected: {sources: [{clusterTrustBundle: {path: t}}]}}]", "clustertrustbundles"),
        ] {
            let refused = read(&WEB.replace("spec: {", &format!("spec: {{{spec}, ")));
            let expected = StaticPodError::Invalid(format!("static pods may not reference {kind}"));
            assert_eq!(refused, Err(expected), "{spec}");
        }
        let fine = "volumes: [{name: v, emptyDir: {}}, {name: h, hostPath: {path: /}}, {name: d, projected: {sources: [{downwardAPI: {}}]}}]";
        assert!(read(&WEB.replace("spec: {", &format!("spec: {{serviceAccountName: '', {fine}, "))).is_ok());
        let nameless = "volumes: [{name: v, csi: {driver: d, nodePublishSecretRef: {}}}, {name: r, rbd: {monitors: [m], image: i}}]";
        assert!(read(&WEB.replace("spec: {", &format!("spec: {{{nameless}, "))).is_ok());
    }

    /// What JSON allows and YAML does not, or reads otherwise.
    #[test]
    fn json_is_read_as_json() {
        let read = |metadata: &str| {
            let spec = r#""spec": {"containers": [{"name": "a", "image": "i"}]}"#;
            read(&format!(r#"{{"apiVersion": "v1", "kind": "Pod", {metadata}, {spec}}}"#))
        };
        let annotation = |metadata: &str| {
            let pod = read(metadata).map_err(|error| error.to_string());
            pod.map(|pod| pod.metadata.annotations.unwrap()["a"].clone())
        };
        let annotated = |value: &str| format!(r#""metadata": {{"name": "web", "annotations": {{"a": {value}}}}}"#);
        let long = "k".repeat(2000);
        for (text, expect) in [
            (annotated(r#""\ud83d\ude00""#), "\u{1f600}"),
            (annotated(r#""\/""#), "/"),
            (annotated("\"\u{7f}\""), "\u{7f}"),
            (annotated(r#""first", "a": "last""#), "last"),
            (annotated("\n\t\"tabbed\"\n"), "tabbed"),
            (annotated(&format!(r#""long", "{long}": "x""#)), "long"),
            (annotated(r#""null", "b": null"#), "null"),
        ] {
            assert_eq!(annotation(&text).as_deref(), Ok(expect), "{text}");
        }
        for text in [
            annotated("yes"),
            annotated("1"),
            annotated("'quoted'"),
            annotated("\"a\",").replace(",}", ", }"),
            annotated("\"two\nlines\""),
            annotated("\"a\" # comment\n"),
            annotated("&x \"a\""),
            annotated(&format!("\"a\"}}, \"generation\": 1{}, \"labels\": {{", "0".repeat(40))),
            annotated("\"a\"}, \"generation\": 0x10, \"labels\": {"),
            annotated("\"a\"}, \"generation\": 1.0, \"labels\": {"),
        ] {
            assert!(read(&text).is_err(), "{text}");
        }
        assert!(parse(&format!("\n\t {}", JSON), PodOrigin::File, "n", "now").is_ok());
        for text in [format!("{JSON} {JSON}"), format!("{JSON}\n---\n"), format!("{JSON}]")] {
            assert!(parse(&text, PodOrigin::File, "n", "now").is_err(), "{text}");
        }
    }

    const JSON: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "a", "image": "i"}]}}"#;

    /// YAML becomes JSON as Go's package makes it.
    #[test]
    fn yaml_is_read_as_its_json() {
        let merged = "x: &x {image: i}\napiVersion: v1\nkind: Pod\n\
            metadata: {name: web, labels: {a: null, 1: x, true: 'y', 010: \"0644\"}}\n\
            spec: {terminationGracePeriodSeconds: 7.0, hostNetwork: yes, hostPID: off, enableServiceLinks: N,\n\
            \x20 containers: [{<<: *x, name: a, stdin: On, ports: [{containerPort: 8_080}]}],\n\
            \x20 volumes: [{name: d, downwardAPI: {defaultMode: 0640}}, {name: e, downwardAPI: {defaultMode: 0o17}}]}";
        let pod = read(merged).unwrap();
        let labels: Vec<(String, String)> = pod.metadata.labels.unwrap().into_iter().collect();
        let expect = [("1", "x"), ("8", "0644"), ("true", "y")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(labels, expect);
        let spec = pod.spec.unwrap();
        assert_eq!(spec.termination_grace_period_seconds, Some(7));
        assert_eq!(
            (spec.host_network, spec.host_pid, spec.enable_service_links),
            (Some(true), Some(false), Some(false))
        );
        let container = &spec.containers[0];
        assert_eq!((container.stdin, container.ports.as_ref().unwrap()[0].container_port), (Some(true), 8080));
        let modes = spec.volumes.iter().flatten().map(|v| v.downward_api.as_ref().unwrap().default_mode);
        assert_eq!(modes.collect::<Vec<_>>(), [Some(0o640), Some(15)]);
        assert!(read(&WEB.replace("{name: web}", "{name: web, labels: {a: y}}")).is_err(), "a text has to be quoted");
        let twice =
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, name: web}\nspec: {containers: [{name: a, image: i}]}";
        assert_eq!(read(twice).unwrap().metadata.name.as_deref(), Some("web-node1"));
        assert!(read(&WEB.replace("{name: web}", "{name: web, generation: .nan}")).is_err());
        let first = format!("---\n{WEB}\n---\nkind: Other\n---\n[");
        assert_eq!(read(&first).unwrap().metadata.name.as_deref(), Some("web-node1"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC{0,200}", junk in "[\\[\\]{}:,\"'&*!|>%@`<# \\-\\n\\ta-c0-9.]{0,200}") {
            for text in [&text, &junk, &format!("{{{junk}"), &format!("{WEB}\n{junk}"), &format!("{JSON}{junk}")] {
                let _ = read(text);
            }
        }
    }

    #[test]
    fn garbage_is_told_apart() {
        for text in [
            "",
            "{",
            "a: [",
            "\u{0}",
            "kind: Pod",
            "apiVersion: v1\nkind: List",
            "apiVersion: v1\nkind: Pod\nspec: 3",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: ../a}\nspec: {containers: [{name: a, image: i}]}",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: ../../x}\nspec: {containers: [{name: a, image: i}]}",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: a.b}\nspec: {containers: [{name: a, image: i}]}",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}]}",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: i}, {name: a, image: i}]}",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
