//! The kubelet's own HTTPS server on :10250: logs, exec, attach, port-forward, stats.

pub mod spdy;
