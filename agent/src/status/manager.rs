//! manager
#[derive(Debug)]
pub struct StatusManager;
