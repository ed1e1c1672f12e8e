//! Placeholder.

pub(super) fn start(_ctx: &super::Context) {}
pub const ROOT_CA_NAME: &str = "kube-root-ca.crt";
