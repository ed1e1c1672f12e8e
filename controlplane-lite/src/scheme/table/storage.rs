//! Columns.

use super::Printer;

/// CSI_CAPACITIES
pub static CSI_CAPACITIES: Printer = Printer::NAME_AND_AGE;
/// CSI_DRIVERS
pub static CSI_DRIVERS: Printer = Printer::NAME_AND_AGE;
/// CSI_NODES
pub static CSI_NODES: Printer = Printer::NAME_AND_AGE;
/// STORAGE_CLASSES
pub static STORAGE_CLASSES: Printer = Printer::NAME_AND_AGE;
/// VOLUME_ATTACHMENTS
pub static VOLUME_ATTACHMENTS: Printer = Printer::NAME_AND_AGE;
/// VOLUME_ATTRIBUTES_CLASSES
pub static VOLUME_ATTRIBUTES_CLASSES: Printer = Printer::NAME_AND_AGE;
