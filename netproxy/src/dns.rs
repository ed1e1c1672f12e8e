//! Cluster DNS: answers the cluster domain from Services and EndpointSlices, forwards the rest.
//! Not Service load balancing: that is in [`crate::services`].
