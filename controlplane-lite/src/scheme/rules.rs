//! Which defaulting, preparing and validating functions each kind has.

use super::kind::Rules;
use super::meta::NameRule;

/// CERTIFICATE_SIGNING_REQUEST
pub const CERTIFICATE_SIGNING_REQUEST: Rules = Rules::PLAIN;
/// CLUSTER_ROLE
pub const CLUSTER_ROLE: Rules = Rules { name: NameRule::PathSegment, create_on_update: true, ..Rules::PLAIN };
/// CONFIG_MAP
pub const CONFIG_MAP: Rules = Rules::PLAIN;
/// CONTROLLER_REVISION
pub const CONTROLLER_REVISION: Rules = Rules::PLAIN;
/// CRON_JOB
pub const CRON_JOB: Rules = Rules::PLAIN;
/// CSI_DRIVER
pub const CSI_DRIVER: Rules = Rules::PLAIN;
/// DAEMON_SET
pub const DAEMON_SET: Rules = Rules::PLAIN;
/// DEPLOYMENT
pub const DEPLOYMENT: Rules = Rules::PLAIN;
/// ENDPOINTS
pub const ENDPOINTS: Rules = Rules::PLAIN;
/// ENDPOINT_SLICE
pub const ENDPOINT_SLICE: Rules = Rules::PLAIN;
/// EVENT
pub const EVENT: Rules = Rules::PLAIN;
/// EVENT_V1
pub const EVENT_V1: Rules = Rules::PLAIN;
/// HORIZONTAL_POD_AUTOSCALER
pub const HORIZONTAL_POD_AUTOSCALER: Rules = Rules::PLAIN;
/// INGRESS
pub const INGRESS: Rules = Rules::PLAIN;
/// INGRESS_CLASS
pub const INGRESS_CLASS: Rules = Rules::PLAIN;
/// JOB
pub const JOB: Rules = Rules::PLAIN;
/// LEASE
pub const LEASE: Rules = Rules::PLAIN;
/// LIMIT_RANGE
pub const LIMIT_RANGE: Rules = Rules::PLAIN;
/// NAMESPACE
pub const NAMESPACE: Rules = Rules { name: NameRule::Dns1123Label, ..Rules::PLAIN };
/// NETWORK_POLICY
pub const NETWORK_POLICY: Rules = Rules::PLAIN;
/// NODE
pub const NODE: Rules = Rules::PLAIN;
/// PERSISTENT_VOLUME
pub const PERSISTENT_VOLUME: Rules = Rules::PLAIN;
/// PERSISTENT_VOLUME_CLAIM
pub const PERSISTENT_VOLUME_CLAIM: Rules = Rules::PLAIN;
/// PLAIN
pub const PLAIN: Rules = Rules::PLAIN;
/// POD
pub const POD: Rules = Rules::PLAIN;
/// POD_DISRUPTION_BUDGET
pub const POD_DISRUPTION_BUDGET: Rules = Rules::PLAIN;
/// POD_TEMPLATE
pub const POD_TEMPLATE: Rules = Rules::PLAIN;
/// PRIORITY_CLASS
pub const PRIORITY_CLASS: Rules = Rules::PLAIN;
/// REPLICATION_CONTROLLER
pub const REPLICATION_CONTROLLER: Rules = Rules::PLAIN;
/// REPLICA_SET
pub const REPLICA_SET: Rules = Rules::PLAIN;
/// RESOURCE_QUOTA
pub const RESOURCE_QUOTA: Rules = Rules::PLAIN;
/// ROLE
pub const ROLE: Rules = Rules { name: NameRule::PathSegment, create_on_update: true, ..Rules::PLAIN };
/// ROLE_BINDING
pub const ROLE_BINDING: Rules = Rules { name: NameRule::PathSegment, create_on_update: true, ..Rules::PLAIN };
/// RUNTIME_CLASS
pub const RUNTIME_CLASS: Rules = Rules::PLAIN;
/// SECRET
pub const SECRET: Rules = Rules::PLAIN;
/// SERVICE
pub const SERVICE: Rules = Rules { name: NameRule::Dns1035Label, create_on_update: true, ..Rules::PLAIN };
/// SERVICE_ACCOUNT
pub const SERVICE_ACCOUNT: Rules = Rules::PLAIN;
/// STATEFUL_SET
pub const STATEFUL_SET: Rules = Rules::PLAIN;
/// STORAGE_CLASS
pub const STORAGE_CLASS: Rules = Rules::PLAIN;
/// VOLUME_ATTACHMENT
pub const VOLUME_ATTACHMENT: Rules = Rules::PLAIN;
