//! Writes what this crate knows of the built-in types, from k8s-openapi's schemas. Those are functions that make
//! JSON, megabytes of code: they run here, once, rather than in every server.
//!
//! Two tables in `OUT_DIR`, both of lines `NAME REST`, sorted by definition name:
//! - `types.txt`: each object type with its fields, in the words `src/schema/types.rs` reads;
//! - `definitions.deflate`: each definition as JSON, with descriptions, for `src/openapi/definitions.rs`.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    flowcontrol::v1 as flowcontrol, networking::v1 as networking, node::v1 as node, policy::v1 as policy,
    rbac::v1 as rbac, resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

type Definitions = Map<String, Value>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let definitions = definitions();
    fs::write(out.join("types.txt"), types(&definitions)?)?;
    let mut deflated = DeflateEncoder::new(fs::File::create(out.join("definitions.deflate"))?, Compression::best());
    for (name, definition) in &definitions {
        writeln!(deflated, "{name} {definition}")?;
    }
    deflated.finish()?;
    Ok(())
}

/// The definitions of all roots and of everything they refer to.
fn definitions() -> Definitions {
    let mut settings = SchemaSettings::openapi3();
    settings.definitions_path = "/components/schemas".into();
    settings.transforms.clear();
    let mut generator = settings.into_generator();
    roots(&mut generator);
    let mut definitions = generator.take_definitions(false);
    for name in ["JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray"] {
        // These are anything; upstream's documents say no more, and version 2 could not.
        let name = format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{name}");
        let known = definitions.get_mut(&name).and_then(Value::as_object_mut);
        known.into_iter().for_each(|definition| definition.retain(|key, _| key == "description"));
    }
    definitions
}

macro_rules! generate {
    ($generator:ident: $($root:ty),+ $(,)?) => { $(let _ = $generator.subschema_for::<$root>();)+ };
}

/// What `src/scheme/kinds` and the OpenAPI documents name; a test there compares.
#[rustfmt::skip]
fn roots(g: &mut SchemaGenerator) {
    generate!(g: meta::DeleteOptions, meta::ListMeta, meta::Status);
    generate!(g:
        core::Binding, core::ComponentStatus, core::ConfigMap, core::Endpoints, core::Event, core::LimitRange,
        core::Namespace, core::Node, core::ObjectReference, core::PersistentVolume, core::PersistentVolumeClaim,
        core::Pod, core::PodTemplate, core::ReplicationController, core::ResourceQuota, core::Secret, core::Service,
        core::ServiceAccount,
    );
    generate!(g: apiextensions::CustomResourceDefinition, apiregistration::APIService);
    generate!(g:
        admission::MutatingAdmissionPolicy, admission::MutatingAdmissionPolicyBinding,
        admission::MutatingWebhookConfiguration, admission::ValidatingAdmissionPolicy,
        admission::ValidatingAdmissionPolicyBinding, admission::ValidatingWebhookConfiguration,
    );
    generate!(g:
        apps::ControllerRevision, apps::DaemonSet, apps::Deployment, apps::ReplicaSet, apps::StatefulSet,
        authentication::SelfSubjectReview, authentication::TokenRequest, authentication::TokenReview,
        authorization::LocalSubjectAccessReview, authorization::SelfSubjectAccessReview,
        authorization::SelfSubjectRulesReview, authorization::SubjectAccessReview,
        autoscaling::v1::HorizontalPodAutoscaler, autoscaling::v1::Scale, autoscaling::v2::HorizontalPodAutoscaler,
        batch::CronJob, batch::Job,
        certificates::CertificateSigningRequest,
        coordination::Lease,
        discovery::EndpointSlice,
        events::Event,
        flowcontrol::FlowSchema, flowcontrol::PriorityLevelConfiguration,
        networking::IPAddress, networking::Ingress, networking::IngressClass, networking::NetworkPolicy,
        networking::ServiceCIDR,
        node::RuntimeClass,
        policy::Eviction, policy::PodDisruptionBudget,
        rbac::ClusterRole, rbac::ClusterRoleBinding, rbac::Role, rbac::RoleBinding,
        resource::DeviceClass, resource::ResourceClaim, resource::ResourceClaimTemplate, resource::ResourceSlice,
        scheduling::PriorityClass,
        storage::CSIDriver, storage::CSINode, storage::CSIStorageCapacity, storage::StorageClass,
        storage::VolumeAttachment, storage::VolumeAttributesClass,
    );
}

/// A line for each definition with properties: its name, then `FIELD:TYPE`, or `FIELD!:TYPE` when required.
fn types(definitions: &Definitions) -> Result<String, std::fmt::Error> {
    let mut table = String::new();
    for (name, definition) in definitions {
        let Some(properties) = definition.get("properties").and_then(Value::as_object) else { continue };
        let required: &[Value] = definition.get("required").and_then(Value::as_array).map_or(&[], Vec::as_slice);
        table.push_str(name);
        for (field, schema) in properties {
            let mark = if required.iter().any(|r| r == field) { "!" } else { "" };
            write!(table, " {field}{mark}:{}", type_of(schema, definitions))?;
        }
        table.push('\n');
    }
    Ok(table)
}

/// A type in one word; references to what is no object are followed.
fn type_of(schema: &Value, definitions: &Definitions) -> String {
    let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or("");
    if let Some(name) = text("$ref").strip_prefix("#/components/schemas/") {
        return named_type(name, definitions);
    }
    let word = match (text("type"), text("format")) {
        ("string", "byte") => "bytes",
        ("string", "date-time") => "time",
        ("string", _) => "string",
        ("integer", "int32") => "int32",
        ("integer", _) => "int64",
        ("number", _) => "float",
        ("boolean", _) => "bool",
        ("array", _) => match schema.get("items") {
            Some(items) => return format!("[]{}", type_of(items, definitions)),
            None => "[]any",
        },
        ("object", _) => match schema.get("additionalProperties") {
            Some(items @ Value::Object(_)) => return format!("{{}}{}", type_of(items, definitions)),
            _ => "any",
        },
        _ => "any",
    };
    word.to_owned()
}

fn named_type(name: &str, definitions: &Definitions) -> String {
    let word = match name.rsplit('.').next().unwrap_or("") {
        "Quantity" => "quantity",
        "IntOrString" => "int-or-string",
        "Time" => "time",
        "MicroTime" => "micro-time",
        _ => match definitions.get(name) {
            Some(schema) if schema.get("properties").is_some() => name,
            Some(schema) if schema.get("$ref").is_none() => return type_of(schema, definitions),
            _ => "any",
        },
    };
    word.to_owned()
}
