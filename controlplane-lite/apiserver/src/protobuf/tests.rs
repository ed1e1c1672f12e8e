//! Tests of `apiserver::protobuf`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use super::*;
use scheme::builtin;

fn kind(group: &str, name: &str) -> &'static Kind {
    builtin().by_gvk(group, "v1", name).unwrap()
}

fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(value.len()).unwrap()];
    out.extend_from_slice(value);
    out
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
}

#[test]
fn a_config_map() {
    let meta = [bytes(1, b"name"), bytes(2, b""), bytes(8, b""), vec![7 << 3, 0]].concat();
    let entry = [bytes(1, b"k"), bytes(2, b"v")].concat();
    let binary = [bytes(1, b"b"), bytes(2, &[0, 1])].concat();
    let raw = [bytes(1, &meta), bytes(2, &entry), bytes(3, &binary)].concat();
    assert_eq!(
        decode(kind("", "ConfigMap"), &envelope("v1", "ConfigMap", &raw)).unwrap(),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "name"},
               "data": {"k": "v"}, "binaryData": {"b": "AAE="}})
    );
}

#[test]
fn zeros_are_left_out_as_go_leaves_them_out() {
    // hostNetwork false, terminationGracePeriodSeconds 0, shareProcessNamespace false, nodeName "".
    let spec = [vec![11 << 3, 0], vec![4 << 3, 0], vec![0xd8, 1, 0], bytes(10, b"")].concat();
    let pod = decode(kind("", "Pod"), &envelope("v1", "Pod", &bytes(2, &spec))).unwrap();
    assert_eq!(pod["spec"], json!({"terminationGracePeriodSeconds": 0, "shareProcessNamespace": false}));
    // What the schema demands is there: ready false, restartCount 0.
    let status = [bytes(1, b"a"), vec![4 << 3, 0], vec![5 << 3, 0], bytes(6, b""), bytes(7, b""), vec![9 << 3, 0]];
    let status = bytes(3, &bytes(8, &status.concat()));
    let pod = decode(kind("", "Pod"), &envelope("v1", "Pod", &status)).unwrap();
    assert_eq!(
        pod["status"]["containerStatuses"][0],
        json!({"name": "a", "ready": false, "restartCount": 0, "image": "", "imageID": "", "started": false})
    );
}

/// What stands for one of several things, and any JSON, in a schema.
#[test]
fn a_custom_resource_definition() {
    let text = bytes(5, b"string");
    let long = |number: u64, value: &[u8]| {
        let mut out = vec![u8::try_from(number << 3 & 0x7f | 2 | 0x80).unwrap(), u8::try_from(number >> 4).unwrap()];
        out.push(u8::try_from(value.len()).unwrap());
        out.extend_from_slice(value);
        out
    };
    let list = [bytes(5, b"array"), long(24, &bytes(1, &text))].concat();
    let map = [bytes(5, b"object"), long(30, &[vec![1 << 3, 1], bytes(2, &text)].concat())].concat();
    let open = [bytes(5, b"object"), long(30, &[1 << 3, 1])].concat();
    let plain = [text.clone(), bytes(8, &bytes(1, b"\"x\"")), vec![0xa8, 2, 0]].concat();
    let field = |name: &[u8], schema: &[u8]| long(29, &[bytes(1, name), bytes(2, schema)].concat());
    let schema = [
        bytes(5, b"object"),
        field(b"list", &list),
        field(b"map", &map),
        field(b"open", &open),
        field(b"plain", &plain),
    ];
    let version = [bytes(1, b"v1"), vec![2 << 3, 1, 3 << 3, 1]].concat();
    let schema = schema.concat();
    let mut validation = vec![1 << 3 | 2];
    validation.extend([u8::try_from(schema.len() & 0x7f | 0x80).unwrap(), u8::try_from(schema.len() >> 7).unwrap()]);
    validation.extend(&schema);
    let sized = |number: u8, value: &[u8]| {
        let length = [u8::try_from(value.len() & 0x7f | 0x80).unwrap(), u8::try_from(value.len() >> 7).unwrap()];
        [&[number << 3 | 2][..], &length, value].concat()
    };
    let version = [version, sized(4, &validation), bytes(5, &bytes(1, b""))].concat();
    let spec = [bytes(1, b"example.com"), sized(7, &version)].concat();
    let raw = sized(2, &spec);
    let meta = [bytes(1, b"apiextensions.k8s.io/v1"), bytes(2, b"CustomResourceDefinition")].concat();
    let body = [MAGIC.to_vec(), bytes(1, &meta), sized(2, &raw)].concat();
    let crd = decode(kind("apiextensions.k8s.io", "CustomResourceDefinition"), &body).unwrap();
    let version = &crd["spec"]["versions"][0];
    assert_eq!((&version["name"], &version["served"]), (&json!("v1"), &json!(true)));
    assert_eq!(version["subresources"], json!({"status": {}}));
    assert_eq!(
        version["schema"]["openAPIV3Schema"],
        json!({"type": "object", "properties": {
            "list": {"type": "array", "items": {"type": "string"}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "open": {"type": "object", "additionalProperties": true},
            "plain": {"type": "string", "default": "x"},
        }})
    );
}

#[test]
fn embedded_structs_are_inline() {
    let source = bytes(2, &bytes(1, b"Memory"));
    let volume = [bytes(1, b"tmp"), bytes(2, &source)].concat();
    let port = [vec![1 << 3, 1, 2 << 3, 0], bytes(3, b"web")].concat();
    let probe = [bytes(1, &bytes(2, &bytes(2, &port))), vec![2 << 3, 0, 3 << 3, 5]].concat();
    let container = [bytes(1, b"c"), bytes(10, &probe)].concat();
    let spec = [bytes(1, &volume), bytes(2, &container), vec![4 << 3, 0]].concat();
    let pod = decode(kind("", "Pod"), &envelope("v1", "Pod", &bytes(2, &spec))).unwrap();
    assert_eq!(pod["spec"]["volumes"][0]["name"], "tmp");
    assert!(pod["spec"]["volumes"][0]["emptyDir"].is_object() || pod["spec"]["volumes"][0]["hostPath"].is_object());
    assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], "web");
    assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["timeoutSeconds"], 5);
    assert_eq!(pod["spec"]["containers"][0]["livenessProbe"].get("initialDelaySeconds"), None);
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 0);
}

/// `maxSurge: 0` and `maxUnavailable: 0` are not the defaults.
#[test]
fn zero_pods_are_a_number() {
    let zero = bytes(1, &[vec![1 << 3, 0, 2 << 3, 0], bytes(3, b"")].concat());
    let zero_second = bytes(2, &[vec![1 << 3, 0, 2 << 3, 0], bytes(3, b"")].concat());
    let rolling = bytes(2, &[zero, zero_second].concat());
    let strategy = bytes(4, &[bytes(1, b"RollingUpdate"), rolling].concat());
    let spec = bytes(2, &[vec![1 << 3, 0], strategy, vec![5 << 3, 0]].concat());
    let deployment = decode(kind("apps", "Deployment"), &envelope("apps/v1", "Deployment", &spec)).unwrap();
    assert_eq!(
        deployment["spec"],
        json!({"replicas": 0, "strategy": {
            "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}})
    );
    let none = bytes(2, &bytes(3, &[vec![1 << 3, 0, 2 << 3, 0], bytes(3, b"")].concat()));
    let budget = kind("policy", "PodDisruptionBudget");
    let budget = decode(budget, &envelope("policy/v1", "PodDisruptionBudget", &none)).unwrap();
    assert_eq!(budget["spec"]["maxUnavailable"], 0);
}

#[test]
fn messages_cannot_explode() {
    // A container of two bytes, some hundred times as large in memory.
    let mut raw = vec![2 << 3 | 2];
    let containers = [2 << 3 | 2, 2, 10 << 3 | 2, 0].repeat(400_000);
    let mut length = containers.len();
    while length >= 0x80 {
        raw.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    raw.push(u8::try_from(length).unwrap());
    raw.extend_from_slice(&containers);
    let mut out = Map::new();
    let budget = Budget::default();
    let pod = kind("", "Pod").schema();
    let level = Level { depth: 0, budget: &budget };
    assert_eq!(message(pod, pod.name(), &raw, &mut out, level), Err(ProtobufError::Large(TooLarge)));
}

/// Every field of every message is in the table, but for what is newer than the table: fields that 1.36 added
/// behind gates that are off by default.
#[test]
fn every_kind_has_field_numbers() {
    fn check(ty: &ObjectType, seen: &mut Vec<String>, missing: &mut Vec<String>) {
        if seen.contains(&ty.name().to_owned()) {
            return;
        }
        seen.push(ty.name().to_owned());
        let name = ty.name().strip_prefix("io.k8s.").unwrap_or(ty.name()).to_ascii_lowercase();
        let fields = names(&name);
        for field in ty.fields() {
            let known = fields.iter().any(|f| field.name.eq_ignore_ascii_case(f));
            if !known && !matches!(&*field.name, "apiVersion" | "kind") {
                missing.push(format!("{}.{}", ty.short_name(), field.name));
            }
        }
        ty.fields().iter().filter_map(|f| f.ty.object()).for_each(|inner| check(inner, seen, missing));
    }
    fn names(message: &str) -> Vec<&'static str> {
        let known = table().get(message).map(Vec::as_slice).unwrap_or_default();
        let embedded = known.iter().filter_map(|(_, k)| k.inline).flat_map(names);
        known.iter().map(|(_, k)| k.name).chain(embedded).collect()
    }
    let (mut seen, mut missing) = (Vec::new(), Vec::new());
    builtin().kinds().for_each(|kind| check(kind.schema(), &mut seen, &mut missing));
    missing.sort();
    const NEWER: [&str; 16] = [
        "CSIDriverSpec.preventPodSchedulingIfMissing",
        "Device.nodeAllocatableResourceMappings",
        "ImageVolumeStatus.imageRef",
        "ListMeta.shardInfo",
        "NodeAllocatableResourceClaimStatus.containers",
        "NodeAllocatableResourceClaimStatus.resourceClaimName",
        "NodeAllocatableResourceClaimStatus.resources",
        "NodeAllocatableResourceMapping.allocationMultiplier",
        "NodeAllocatableResourceMapping.capacityKey",
        "PodSchedulingGroup.podGroupName",
        "PodSpec.schedulingGroup",
        "PodStatus.nodeAllocatableResourceClaimStatuses",
        "ResourceHealth.message",
        "ShardInfo.selector",
        "VolumeMountStatus.volumeStatus",
        "VolumeStatus.image",
    ];
    assert_eq!(missing, NEWER);
}

proptest::proptest! {
    #[test]
    fn garbage_is_an_error_or_an_object(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = decode(kind("", "Pod"), &envelope("v1", "Pod", &body[..body.len().min(120)]));
        let _ = decode(kind("apps", "Deployment"), &body);
        let mut prefixed = MAGIC.to_vec();
        prefixed.extend_from_slice(&body);
        let _ = decode(kind("", "Service"), &prefixed);
    }
}
