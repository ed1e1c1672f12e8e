//! Columns.

use super::Printer;

/// CERTIFICATE_SIGNING_REQUESTS
pub static CERTIFICATE_SIGNING_REQUESTS: Printer = Printer::NAME_AND_AGE;
/// CLUSTER_ROLES
pub static CLUSTER_ROLES: Printer = Printer::NAME_AND_AGE;
/// CLUSTER_ROLE_BINDINGS
pub static CLUSTER_ROLE_BINDINGS: Printer = Printer::NAME_AND_AGE;
/// DISRUPTION_BUDGETS
pub static DISRUPTION_BUDGETS: Printer = Printer::NAME_AND_AGE;
/// ENDPOINT_SLICES
pub static ENDPOINT_SLICES: Printer = Printer::NAME_AND_AGE;
/// EVENTS_V1
pub static EVENTS_V1: Printer = Printer::NAME_AND_AGE;
/// INGRESSES
pub static INGRESSES: Printer = Printer::NAME_AND_AGE;
/// INGRESS_CLASSES
pub static INGRESS_CLASSES: Printer = Printer::NAME_AND_AGE;
/// IP_ADDRESSES
pub static IP_ADDRESSES: Printer = Printer::NAME_AND_AGE;
/// LEASES
pub static LEASES: Printer = Printer::NAME_AND_AGE;
/// NETWORK_POLICIES
pub static NETWORK_POLICIES: Printer = Printer::NAME_AND_AGE;
/// PRIORITY_CLASSES
pub static PRIORITY_CLASSES: Printer = Printer::NAME_AND_AGE;
/// ROLES
pub static ROLES: Printer = Printer::NAME_AND_AGE;
/// ROLE_BINDINGS
pub static ROLE_BINDINGS: Printer = Printer::NAME_AND_AGE;
/// RUNTIME_CLASSES
pub static RUNTIME_CLASSES: Printer = Printer::NAME_AND_AGE;
/// SELF_SUBJECT_REVIEWS
pub static SELF_SUBJECT_REVIEWS: Printer = Printer::NAME_AND_AGE;
/// SERVICE_CIDRS
pub static SERVICE_CIDRS: Printer = Printer::NAME_AND_AGE;
