//! Columns.

use super::Printer;

/// CLAIMS
pub static CLAIMS: Printer = Printer::NAME_AND_AGE;
/// COMPONENT_STATUSES
pub static COMPONENT_STATUSES: Printer = Printer::NAME_AND_AGE;
/// CONFIG_MAPS
pub static CONFIG_MAPS: Printer = Printer::NAME_AND_AGE;
/// CREATED_AT
pub static CREATED_AT: Printer = Printer::NAME_AND_AGE;
/// ENDPOINTS
pub static ENDPOINTS: Printer = Printer::NAME_AND_AGE;
/// EVENTS
pub static EVENTS: Printer = Printer::NAME_AND_AGE;
/// NAMESPACES
pub static NAMESPACES: Printer = Printer::NAME_AND_AGE;
/// NODES
pub static NODES: Printer = Printer::NAME_AND_AGE;
/// PODS
pub static PODS: Printer = Printer::NAME_AND_AGE;
/// POD_TEMPLATES
pub static POD_TEMPLATES: Printer = Printer::NAME_AND_AGE;
/// QUOTAS
pub static QUOTAS: Printer = Printer::NAME_AND_AGE;
/// REPLICATION_CONTROLLERS
pub static REPLICATION_CONTROLLERS: Printer = Printer::NAME_AND_AGE;
/// SECRETS
pub static SECRETS: Printer = Printer::NAME_AND_AGE;
/// SERVICES
pub static SERVICES: Printer = Printer::NAME_AND_AGE;
/// SERVICE_ACCOUNTS
pub static SERVICE_ACCOUNTS: Printer = Printer::NAME_AND_AGE;
/// VOLUMES
pub static VOLUMES: Printer = Printer::NAME_AND_AGE;
