//! Routes between nodes, and the node's own way to Services.
//!
//! Every other node's pod network is routed to that node's address where both
//! share a link, and into a VXLAN tunnel to it where not. A node with tunnels
//! says so in annotations of its Node object, and gives its pods less room in a
//! packet. The service network is routed to the pods' bridge: a
//! `connect` to a cluster IP needs some route before the output hook can
//! translate it, and what is not translated must not wander to a default route.
//!
//! Routes carry a protocol number of our own; nobody else's are touched, replaced or covered.
//! `peers` says whom to believe, `plan` decides, `kernel` and `tunnel` look and act;
//! [`crate::network`] is the loop around them.

pub(crate) mod kernel;
pub(crate) mod peers;
pub(crate) mod plan;
pub(crate) mod tunnel;

pub use plan::NodeNetwork;
pub use tunnel::{DEVICE, PORT as TUNNEL_PORT};
