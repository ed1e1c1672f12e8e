//! Placeholder.

pub(super) fn start(_ctx: &super::Context) {}
