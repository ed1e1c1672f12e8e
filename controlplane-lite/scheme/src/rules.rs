//! Which defaulting, preparing and validating functions each kind has.

use super::defaults::{cluster, network, pod, workloads};
use super::kind::Rules;
use super::meta::NameRule;
use super::prepare;
use super::validation as check;

/// Plain data.
pub const PLAIN: Rules = Rules::PLAIN;

// core

/// ConfigMap.
pub const CONFIG_MAP: Rules =
    Rules { validate: check::cluster::config_map, validate_update: check::cluster::config_map_update, ..PLAIN };
/// Endpoints.
pub const ENDPOINTS: Rules =
    Rules { default: network::endpoints, validate: check::network::endpoints, create_on_update: true, ..PLAIN };
/// Event.
pub const EVENT: Rules = Rules { validate: check::cluster::event, create_on_update: true, ..PLAIN };
/// Event of events.k8s.io.
pub const EVENT_V1: Rules = Rules { create_on_update: true, ..PLAIN };
/// LimitRange.
pub const LIMIT_RANGE: Rules = Rules { default: cluster::limit_range, create_on_update: true, ..PLAIN };
/// Namespace.
pub const NAMESPACE: Rules = Rules {
    default: cluster::namespace,
    prepare_create: prepare::namespace_create,
    prepare_update: prepare::namespace_update,
    name: NameRule::Dns1123Label,
    ..PLAIN
};
/// Node. The kubelet registers it with its status.
pub const NODE: Rules = Rules {
    default: cluster::node,
    validate: check::cluster::node,
    validate_update: check::cluster::node_update,
    keep_status: true,
    ..PLAIN
};
/// PersistentVolumeClaim.
pub const PERSISTENT_VOLUME_CLAIM: Rules = Rules {
    default: cluster::persistent_volume_claim,
    prepare_create: prepare::volume_create,
    validate: check::storage::claim,
    validate_update: check::storage::claim_update,
    ..PLAIN
};
/// PersistentVolume.
pub const PERSISTENT_VOLUME: Rules = Rules {
    default: cluster::persistent_volume,
    prepare_create: prepare::volume_create,
    validate: check::storage::volume,
    validate_update: check::storage::volume_update,
    ..PLAIN
};
/// Pod.
pub const POD: Rules = Rules {
    default: pod::pod,
    prepare_create: prepare::pod_create,
    prepare_status: prepare::pod_status,
    validate: check::pod::pod,
    validate_update: check::update::pod_update,
    validate_status: check::update::pod_status,
    generation: true,
    ..PLAIN
};
/// PodTemplate.
pub const POD_TEMPLATE: Rules =
    Rules { default: pod::pod_template, validate: check::workloads::pod_template, create_on_update: true, ..PLAIN };
/// ReplicationController.
pub const REPLICATION_CONTROLLER: Rules = Rules {
    default: workloads::replication_controller,
    validate: check::workloads::replication_controller,
    generation: true,
    ..PLAIN
};
/// ResourceQuota.
pub const RESOURCE_QUOTA: Rules = Rules { validate: check::cluster::resource_quota, ..PLAIN };
/// Secret.
pub const SECRET: Rules = Rules {
    default: cluster::secret,
    prepare_update: prepare::secret_update,
    validate: check::cluster::secret,
    validate_update: check::cluster::secret_update,
    ..PLAIN
};
/// ServiceAccount.
pub const SERVICE_ACCOUNT: Rules = PLAIN;
/// Service.
pub const SERVICE: Rules = Rules {
    default: network::service,
    prepare_create: prepare::service_create,
    prepare_update: prepare::service_update,
    validate: check::network::service,
    validate_update: check::network::service_update,
    name: NameRule::Dns1035Label,
    create_on_update: true,
    ..PLAIN
};

/// IPAddress.
pub const IP_ADDRESS: Rules = Rules {
    validate: check::network::ip_address,
    validate_update: check::network::ip_address_update,
    name: NameRule::IpAddress,
    ..PLAIN
};

// apps, batch, autoscaling

/// ControllerRevision.
pub const CONTROLLER_REVISION: Rules = Rules {
    validate: check::workloads::controller_revision,
    validate_update: check::workloads::controller_revision_update,
    ..PLAIN
};
/// DaemonSet.
pub const DAEMON_SET: Rules = Rules {
    default: workloads::daemon_set,
    validate: check::workloads::daemon_set,
    validate_update: check::workloads::selector_immutable,
    generation: true,
    ..PLAIN
};
/// Deployment.
pub const DEPLOYMENT: Rules = Rules {
    default: workloads::deployment,
    prepare_status: prepare::deployment_status,
    validate: check::workloads::deployment,
    validate_update: check::workloads::selector_immutable,
    generation: true,
    ..PLAIN
};
/// ReplicaSet.
pub const REPLICA_SET: Rules = Rules {
    default: workloads::replica_set,
    validate: check::workloads::replica_set,
    validate_update: check::workloads::selector_immutable,
    generation: true,
    ..PLAIN
};
/// StatefulSet.
pub const STATEFUL_SET: Rules = Rules {
    default: workloads::stateful_set,
    validate: check::workloads::stateful_set,
    validate_update: check::workloads::stateful_set_update,
    generation: true,
    ..PLAIN
};
/// CronJob.
pub const CRON_JOB: Rules =
    Rules { default: workloads::cron_job, validate: check::workloads::cron_job, generation: true, ..PLAIN };
/// Job.
pub const JOB: Rules = Rules {
    default: workloads::job,
    prepare_create: prepare::job_create,
    validate: check::workloads::job,
    validate_update: check::workloads::job_update,
    generation: true,
    ..PLAIN
};
/// HorizontalPodAutoscaler.
pub const HORIZONTAL_POD_AUTOSCALER: Rules =
    Rules { default: workloads::horizontal_pod_autoscaler, validate: check::workloads::autoscaler, ..PLAIN };
/// HorizontalPodAutoscaler of v1; a missing target is 80 % CPU, as v2 defaults it.
pub const HORIZONTAL_POD_AUTOSCALER_V1: Rules =
    Rules { default: workloads::horizontal_pod_autoscaler_v1, validate: check::workloads::autoscaler, ..PLAIN };

// networking, discovery

/// EndpointSlice.
pub const ENDPOINT_SLICE: Rules = Rules {
    default: network::endpoint_slice,
    validate: check::network::endpoint_slice,
    validate_update: check::network::endpoint_slice_update,
    generation: true,
    ..PLAIN
};
/// Ingress.
pub const INGRESS: Rules = Rules { validate: check::network::ingress, generation: true, ..PLAIN };
/// IngressClass.
pub const INGRESS_CLASS: Rules = Rules { default: network::ingress_class, generation: true, ..PLAIN };
/// NetworkPolicy.
pub const NETWORK_POLICY: Rules =
    Rules { default: network::network_policy, validate: check::network::network_policy, generation: true, ..PLAIN };

// policy, RBAC, coordination, scheduling, node, certificates

/// PodDisruptionBudget.
pub const POD_DISRUPTION_BUDGET: Rules =
    Rules { validate: check::rbac::disruption_budget, generation: true, unconditional_update: false, ..PLAIN };
/// Role.
pub const ROLE: Rules =
    Rules { validate: check::rbac::role, name: NameRule::PathSegment, create_on_update: true, ..PLAIN };
/// ClusterRole.
pub const CLUSTER_ROLE: Rules = Rules { validate: check::rbac::cluster_role, ..ROLE };
/// RoleBinding and ClusterRoleBinding.
pub const ROLE_BINDING: Rules = Rules {
    default: cluster::role_binding,
    validate: check::rbac::role_binding,
    validate_update: check::rbac::role_binding_update,
    ..ROLE
};
/// Lease.
pub const LEASE: Rules =
    Rules { validate: check::rbac::lease, create_on_update: true, unconditional_update: false, ..PLAIN };
/// PriorityClass.
pub const PRIORITY_CLASS: Rules = Rules {
    default: cluster::priority_class,
    validate: check::rbac::priority_class,
    validate_update: check::rbac::priority_class_update,
    generation: true,
    ..PLAIN
};
/// RuntimeClass.
pub const RUNTIME_CLASS: Rules = Rules {
    validate: check::rbac::runtime_class,
    validate_update: check::rbac::runtime_class_update,
    unconditional_update: false,
    ..PLAIN
};
/// CertificateSigningRequest.
pub const CERTIFICATE_SIGNING_REQUEST: Rules = Rules {
    prepare_update: prepare::request_update,
    prepare_status: prepare::request_status,
    validate: check::certificates::request,
    validate_status: check::certificates::status_update,
    // Upstream's kubelets name theirs by a hash with capitals in it.
    name: NameRule::PathSegment,
    ..PLAIN
};

// storage

/// StorageClass.
pub const STORAGE_CLASS: Rules = Rules {
    default: cluster::storage_class,
    validate: check::storage::class,
    validate_update: check::storage::class_update,
    ..PLAIN
};
/// CSIDriver.
pub const CSI_DRIVER: Rules = Rules { default: cluster::csi_driver, unconditional_update: false, ..PLAIN };
/// VolumeAttachment.
pub const VOLUME_ATTACHMENT: Rules = PLAIN;
