//! Columns.

use super::Printer;

/// AUTOSCALERS
pub static AUTOSCALERS: Printer = Printer::NAME_AND_AGE;
/// CONTROLLER_REVISIONS
pub static CONTROLLER_REVISIONS: Printer = Printer::NAME_AND_AGE;
/// CRON_JOBS
pub static CRON_JOBS: Printer = Printer::NAME_AND_AGE;
/// DAEMON_SETS
pub static DAEMON_SETS: Printer = Printer::NAME_AND_AGE;
/// DEPLOYMENTS
pub static DEPLOYMENTS: Printer = Printer::NAME_AND_AGE;
/// JOBS
pub static JOBS: Printer = Printer::NAME_AND_AGE;
/// REPLICA_SETS
pub static REPLICA_SETS: Printer = Printer::NAME_AND_AGE;
/// SCALES
pub static SCALES: Printer = Printer::NAME_AND_AGE;
/// STATEFUL_SETS
pub static STATEFUL_SETS: Printer = Printer::NAME_AND_AGE;
