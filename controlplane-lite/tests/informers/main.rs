//! Whatever the API takes, an informer reads: objects of every stored kind are made from its schema, with nulls, zeros
//! and absent fields as Go's clients write them, taken as the API takes them, and read as an informer reads them.
#![allow(clippy::unwrap_used)]

use client::decode::Decoded;
use controlplane_lite::client;
use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, autoscaling::v1 as autoscaling1,
    autoscaling::v2 as autoscaling2, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    flowcontrol::v1 as flowcontrol, networking::v1 as networking, node::v1 as node, policy::v1 as policy,
    rbac::v1 as rbac, resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage_api,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as registration;
use scheme::schema::{Field, ObjectType, Type};
use scheme::{FieldValidation, Kind, MediaType, decode};
use serde_json::{Map, Value, json};

const OBJECTS_OF_A_KIND: u64 = 300;
/// Levels of an object that are filled; below, fields are absent, null or zero.
const DEPTH: usize = 9;

/// A small generator, so that a seed tells the whole story.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// The value of a field; `None` when it is absent.
fn field(field: &Field, depth: usize, dice: &mut Dice) -> Option<Value> {
    match dice.roll(6) {
        0 | 1 => None,
        2 => Some(Value::Null),
        3 => Some(zero(&field.ty, depth, dice)),
        _ if depth == 0 => Some(zero(&field.ty, depth, dice)),
        _ => Some(typical(&field.ty, depth, dice)),
    }
}

/// What Go writes for a variable that nobody has set.
fn zero(ty: &Type, depth: usize, dice: &mut Dice) -> Value {
    match ty {
        Type::Any | Type::Time | Type::MicroTime | Type::Bytes | Type::List(_) | Type::Map(_) => Value::Null,
        Type::String => json!(""),
        Type::Int32 | Type::Int64 | Type::Float | Type::IntOrString => json!(0),
        Type::Bool => json!(false),
        Type::Quantity => json!("0"),
        // A struct in a struct: its own fields are not set either.
        Type::Object(_) if depth == 0 => json!({}),
        Type::Object(object) => {
            let unset = |field: &&Field| field.required || dice.roll(3) == 0;
            let fields: Vec<&Field> = object.fields().iter().filter(unset).collect();
            fields.into_iter().map(|f| (f.name.to_string(), zero(&f.ty, depth - 1, dice))).collect::<Map<_, _>>().into()
        }
    }
}

fn typical(ty: &Type, depth: usize, dice: &mut Dice) -> Value {
    match ty {
        Type::Any => json!({"any": [1, "x", null]}),
        Type::String => json!("x"),
        Type::Bytes => json!("eA=="),
        Type::Time => json!("2026-01-01T00:00:00Z"),
        Type::MicroTime => json!("2026-01-01T00:00:00.000001Z"),
        Type::Int32 => json!(i32::MAX),
        Type::Int64 => json!(-1),
        Type::Float => json!(0.5),
        Type::Bool => json!(true),
        Type::IntOrString => [json!(7), json!("50%")][usize::from(dice.roll(2) == 0)].clone(),
        Type::Quantity => [json!("10m"), json!(1)][usize::from(dice.roll(2) == 0)].clone(),
        Type::List(item) => match dice.roll(4) {
            0 => json!([]),
            1 => json!([zero(item, depth - 1, dice), typical(item, depth.saturating_sub(1).max(1), dice)]),
            _ => json!([typical(item, depth.saturating_sub(1).max(1), dice)]),
        },
        Type::Map(item) => match dice.roll(4) {
            0 => json!({}),
            1 => json!({"k": zero(item, depth - 1, dice)}),
            _ => json!({"k": typical(item, depth.saturating_sub(1).max(1), dice)}),
        },
        Type::Object(object) => fields(object, depth.saturating_sub(1), dice),
    }
}

fn fields(object: &ObjectType, depth: usize, dice: &mut Dice) -> Value {
    let all = object.fields().iter().filter_map(|f| Some((f.name.to_string(), field(f, depth, dice)?)));
    all.collect::<Map<_, _>>().into()
}

/// An object of a kind, as a client may send it.
fn object(kind: &Kind, dice: &mut Dice) -> Value {
    let mut object = fields(kind.schema(), DEPTH, dice);
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = (&*kind.kind).into();
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]["name"] = "x".into();
    object["metadata"]["resourceVersion"] = "7".into();
    object
}

/// What the API stores and serves of it.
fn accepted(kind: &Kind, sent: &Value) -> Option<Value> {
    let decoded = decode::decode(kind, MediaType::Json, sent.to_string().as_bytes(), FieldValidation::Ignore).ok()?;
    let mut object = decoded.object;
    kind.default(&mut object);
    Some(object)
}

/// What an informer of the typed model makes of it; `None` for a kind without one.
fn read(kind: &Kind, served: &str) -> Option<Result<(), String>> {
    fn of<K: serde::de::DeserializeOwned>(served: &str) -> Result<(), String> {
        match client::decode::decode::<K>(served) {
            Decoded::Object(_) => Ok(()),
            Decoded::Unreadable(unreadable) => Err(unreadable.error),
        }
    }
    macro_rules! kinds {
        ($($group:literal: $($ty:ty),+;)+) => {
            $($(if (&*kind.group, &*kind.version, &*kind.kind) == ($group, <$ty as k8s_openapi::Resource>::VERSION, <$ty as k8s_openapi::Resource>::KIND) {
                return Some(of::<$ty>(served));
            })+)+
        };
    }
    kinds! {
        "": core::ConfigMap, core::Endpoints, core::Event, core::LimitRange, core::Namespace, core::Node,
            core::PersistentVolume, core::PersistentVolumeClaim, core::Pod, core::PodTemplate,
            core::ReplicationController, core::ResourceQuota, core::Secret, core::Service, core::ServiceAccount;
        "admissionregistration.k8s.io": admission::MutatingAdmissionPolicy, admission::MutatingAdmissionPolicyBinding,
            admission::MutatingWebhookConfiguration, admission::ValidatingAdmissionPolicy,
            admission::ValidatingAdmissionPolicyBinding, admission::ValidatingWebhookConfiguration;
        "apiextensions.k8s.io": extensions::CustomResourceDefinition;
        "apiregistration.k8s.io": registration::APIService;
        "apps": apps::ControllerRevision, apps::DaemonSet, apps::Deployment, apps::ReplicaSet, apps::StatefulSet;
        "autoscaling": autoscaling1::HorizontalPodAutoscaler, autoscaling2::HorizontalPodAutoscaler;
        "batch": batch::CronJob, batch::Job;
        "certificates.k8s.io": certificates::CertificateSigningRequest;
        "coordination.k8s.io": coordination::Lease;
        "discovery.k8s.io": discovery::EndpointSlice;
        "events.k8s.io": events::Event;
        "flowcontrol.apiserver.k8s.io": flowcontrol::FlowSchema, flowcontrol::PriorityLevelConfiguration;
        "networking.k8s.io": networking::IPAddress, networking::Ingress, networking::IngressClass,
            networking::NetworkPolicy, networking::ServiceCIDR;
        "node.k8s.io": node::RuntimeClass;
        "policy": policy::PodDisruptionBudget;
        "rbac.authorization.k8s.io": rbac::ClusterRole, rbac::ClusterRoleBinding, rbac::Role, rbac::RoleBinding;
        "resource.k8s.io": resource::DeviceClass, resource::ResourceClaim, resource::ResourceClaimTemplate,
            resource::ResourceSlice;
        "scheduling.k8s.io": scheduling::PriorityClass;
        "storage.k8s.io": storage_api::CSIDriver, storage_api::CSINode, storage_api::CSIStorageCapacity,
            storage_api::StorageClass, storage_api::VolumeAttachment, storage_api::VolumeAttributesClass;
    }
    None
}

#[test]
fn an_informer_reads_whatever_the_api_accepts() {
    let mut problems = Vec::new();
    for (index, kind) in scheme::builtin().kinds().filter(|kind| kind.stored()).enumerate() {
        let mut taken = 0;
        for seed in 1..=OBJECTS_OF_A_KIND {
            let mut dice = Dice((seed + 1_000 * index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let sent = object(kind, &mut dice);
            let Some(served) = accepted(kind, &sent) else { continue };
            taken += 1;
            match read(kind, &served.to_string()) {
                None => problems.push(format!("{} {}: no typed model", kind.api_version(), kind.kind)),
                Some(Ok(())) => continue,
                Some(Err(error)) => problems.push(format!("{} seed {seed}: {error}\n  {served}", kind.kind)),
            }
            break;
        }
        // The property means something only for what is taken.
        assert!(taken > 0, "{}: nothing was taken", kind.kind);
    }
    assert!(problems.is_empty(), "{} kinds:\n{}", problems.len(), problems.join("\n"));
}
