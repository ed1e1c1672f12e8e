//! The metrics of what this crate runs: the service proxy's under upstream's names, those of its
//! watches, and cluster DNS's. Owns the collectors; the caller owns the registry and serves it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// `traffic_policy`: `internal` or `external`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TrafficPolicy {
    /// The label's value.
    pub traffic_policy: &'static str,
}

/// `code`: the status of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Code {
    /// The label's value.
    pub code: u16,
}

/// Handles to the collectors; clones count into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// `kubeproxy_sync_proxy_rules_duration_seconds`
    pub sync_duration: Histogram,
    /// `kubeproxy_sync_full_proxy_rules_duration_seconds`
    pub sync_full_duration: Histogram,
    /// `kubeproxy_sync_partial_proxy_rules_duration_seconds`
    pub sync_partial_duration: Histogram,
    /// `kubeproxy_conntrack_reconciler_sync_duration_seconds`
    pub conntrack_duration: Histogram,
    /// `kubeproxy_network_programming_duration_seconds`
    pub network_programming: Histogram,
    /// `kubeproxy_sync_proxy_rules_last_timestamp_seconds`
    pub last_sync: Gauge<f64, AtomicU64>,
    /// `kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds`
    pub last_queued: Gauge<f64, AtomicU64>,
    /// `kubeproxy_sync_proxy_rules_no_local_endpoints`
    pub no_local_endpoints: Family<TrafficPolicy, Gauge>,
    /// `kubeproxy_sync_proxy_rules_endpoint_changes_pending`
    pub endpoint_changes_pending: Gauge,
    /// `kubeproxy_sync_proxy_rules_service_changes_pending`
    pub service_changes_pending: Gauge,
    /// `kubeproxy_proxy_healthz_total`
    pub healthz: Family<Code, Counter>,
    /// `kubeproxy_proxy_livez_total`
    pub livez: Family<Code, Counter>,
    /// `kubeproxy_sync_proxy_rules_endpoint_changes_total`
    pub endpoint_changes: Counter,
    /// `kubeproxy_sync_proxy_rules_service_changes_total`
    pub service_changes: Counter,
    /// `kubeproxy_sync_proxy_rules_nftables_sync_failures_total`
    pub sync_failures: Counter,
    /// `kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total`
    pub cleanup_failures: Counter,
    /// `kubeproxy_conntrack_reconciler_deleted_entries_total`
    pub conntrack_deleted: Counter,
    /// `copepod_netproxy_unserved_frontends`
    pub unserved_frontends: Gauge,
    /// Of the watches.
    pub informer: crate::informer::Metrics,
    /// Of cluster DNS.
    pub dns: crate::dns::Metrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        // Upstream: 0.25 and 0.5 s, then 1 s steps to a minute, 5 s to two, 30 s to five.
        let programming = [0.25, 0.5]
            .into_iter()
            .chain((1..60).map(f64::from))
            .chain((60..120).step_by(5).map(f64::from))
            .chain((120..=300).step_by(30).map(f64::from));
        Self {
            sync_duration: seconds(),
            sync_full_duration: seconds(),
            sync_partial_duration: seconds(),
            conntrack_duration: seconds(),
            network_programming: Histogram::new(programming),
            last_sync: Gauge::default(),
            last_queued: Gauge::default(),
            no_local_endpoints: Family::default(),
            endpoint_changes_pending: Gauge::default(),
            service_changes_pending: Gauge::default(),
            healthz: Family::default(),
            livez: Family::default(),
            endpoint_changes: Counter::default(),
            service_changes: Counter::default(),
            sync_failures: Counter::default(),
            cleanup_failures: Counter::default(),
            conntrack_deleted: Counter::default(),
            unserved_frontends: Gauge::default(),
            informer: crate::informer::Metrics::default(),
            dns: crate::dns::Metrics::default(),
        }
    }
}

impl Metrics {
    /// Adds the collectors to a registry. Counters get their `_total` when they are encoded.
    pub fn register(&self, registry: &mut Registry) {
        self.informer.register(registry);
        self.dns.register(registry);
        let help = "Addresses with ports, and node ports, of Services that are too large to be served as a whole";
        let own = registry.sub_registry_with_prefix("copepod_netproxy");
        own.register("unserved_frontends", help, self.unserved_frontends.clone());
        let registry = registry.sub_registry_with_prefix("kubeproxy");
        registry.register("proxy_healthz", "Cumulative proxy healthz HTTP status", self.healthz.clone());
        registry.register("proxy_livez", "Cumulative proxy livez HTTP status", self.livez.clone());
        let registry = registry.sub_registry_with_label(("ip_family".into(), "IPv4".into()));
        let sync = "SyncProxyRules latency in seconds";
        registry.register("sync_proxy_rules_duration_seconds", sync, self.sync_duration.clone());
        registry.register(
            "sync_full_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for full resyncs",
            self.sync_full_duration.clone(),
        );
        registry.register(
            "sync_partial_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for partial syncs",
            self.sync_partial_duration.clone(),
        );
        registry.register(
            "conntrack_reconciler_sync_duration_seconds",
            "ReconcileConntrackFlowsLatency latency in seconds",
            self.conntrack_duration.clone(),
        );
        registry.register(
            "network_programming_duration_seconds",
            "In Cluster Network Programming Latency in seconds",
            self.network_programming.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced",
            self.last_sync.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time a sync of proxy rules was queued",
            self.last_queued.clone(),
        );
        registry.register(
            "sync_proxy_rules_no_local_endpoints",
            "Number of services with a Local traffic policy and no endpoints",
            self.no_local_endpoints.clone(),
        );
        registry.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Pending proxy rules Endpoint changes",
            self.endpoint_changes_pending.clone(),
        );
        registry.register(
            "sync_proxy_rules_service_changes_pending",
            "Pending proxy rules Service changes",
            self.service_changes_pending.clone(),
        );
        self.register_counters(registry);
    }

    /// Counts an answer of `/healthz`.
    pub fn healthz_answered(&self, code: u16) {
        self.healthz.get_or_create(&Code { code }).inc();
    }

    /// Counts an answer of `/livez`.
    pub fn livez_answered(&self, code: u16) {
        self.livez.get_or_create(&Code { code }).inc();
    }

    /// Sets how many ports lack local endpoints they should have.
    pub fn set_no_local_endpoints(&self, internal: u32, external: u32) {
        for (traffic_policy, count) in [("internal", internal), ("external", external)] {
            self.no_local_endpoints.get_or_create(&TrafficPolicy { traffic_policy }).set(i64::from(count));
        }
    }

    fn register_counters(&self, registry: &mut Registry) {
        let counters = [
            ("sync_proxy_rules_endpoint_changes", "Cumulative proxy rules Endpoint changes", &self.endpoint_changes),
            ("sync_proxy_rules_service_changes", "Cumulative proxy rules Service changes", &self.service_changes),
            ("sync_proxy_rules_nftables_sync_failures", "Cumulative proxy nftables sync failures", &self.sync_failures),
            (
                "sync_proxy_rules_nftables_cleanup_failures",
                "Cumulative proxy nftables cleanup failures",
                &self.cleanup_failures,
            ),
            (
                "conntrack_reconciler_deleted_entries",
                "Cumulative conntrack flows deleted by conntrack reconciler",
                &self.conntrack_deleted,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn encodes_under_upstream_names() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.sync_duration.observe(0.002);
        metrics.sync_failures.inc();
        metrics.set_no_local_endpoints(0, 3);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_no_local_endpoints{ip_family=\"IPv4\",traffic_policy=\"external\"} 3",
            "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 0",
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family=\"IPv4\"} 0",
            "copepod_netproxy_unserved_frontends 0",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
