//! The service proxy's only loop: wait, fold what came, compile, write, tidy up.
//!
//! A change is written at once; what arrives while a transaction runs goes into the next one, so
//! a burst needs few transactions without any fixed delay. Nothing is written before both watches
//! have synced. The first write compares with what the kernel has, so that after a restart only
//! differences are written: rules that stay keep their counters and clients their endpoints.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::backend::{NftBackend, NftError, reconcile};
use crate::cidr::Cidr4;
use crate::conntrack::UdpServices;
use crate::conntrack::ctnetlink::Conntrack;
use crate::healthz::{Health, HealthCheckNodePorts};
use crate::metrics::Metrics;
use crate::nft::diff::diff;
use crate::nft::object::Name;
use crate::nft::transaction::{Op, Transaction};
use crate::ruleset::{LocalTraffic, NodeView, PortInput, Ruleset};
use crate::snapshot::{Change, Resolved, ServiceName, State};
use crate::topology::NodeTopology;

mod addresses;
pub mod events;
mod pod_cidr;
mod unserved;

pub use addresses::ipv4_only;
use events::Event;
pub use pod_cidr::PodCidr;
use unserved::Unserved;

/// Changes folded in at once.
const BURST: usize = 4096;
/// How long emptied chains wait before they are deleted, as upstream.
const STALE_CHAIN_DELAY: Duration = Duration::from_secs(1);
/// How often to compare all of it, as upstream.
const FULL_SYNC_PERIOD: Duration = Duration::from_secs(3600);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(30);

/// How often the loop acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncPeriods {
    /// How often to see whether our table is still there: reloading a firewall often flushes everything.
    pub sync_period: Duration,
    /// How long to wait between two transactions.
    pub min_sync_period: Duration,
}

impl Default for SyncPeriods {
    fn default() -> Self {
        Self { sync_period: Duration::from_secs(30), min_sync_period: Duration::ZERO }
    }
}

/// What the loop works with.
#[derive(Debug)]
pub struct ProxyInputs<B, C> {
    /// Writes rules.
    pub backend: B,
    /// Reads and deletes tracked flows.
    pub conntrack: C,
    /// This node's name.
    pub node_name: String,
    /// This node, for the ruleset.
    pub node: NodeView,
    /// Health to report to.
    pub health: Health,
    /// Metrics to count in.
    pub metrics: Metrics,
    /// How often to act.
    pub periods: SyncPeriods,
    /// What this node's part of the pod network tells of pods' traffic.
    pub pod_cidr: PodCidr,
}

/// The loop's state.
#[derive(Debug)]
pub struct Proxy<B, C> {
    node_name: String,
    node_ips: Vec<Ipv4Addr>,
    io: Option<(B, C)>,
    state: State,
    ruleset: Ruleset,
    /// Whether the kernel has what `ruleset` says.
    applied: bool,
    /// Whether that is to be checked, while changes go on being written.
    compare: bool,
    /// Emptied chains, to be deleted at `tidy_at`.
    stale_chains: BTreeSet<Name>,
    tidy_at: Option<Instant>,
    retry_at: Option<Instant>,
    /// The next transaction comes no earlier.
    rest_until: Option<Instant>,
    check_at: Instant,
    periods: SyncPeriods,
    pod_cidr: PodCidr,
    /// Pods' traffic and networks as they were named.
    named: (LocalTraffic, Vec<Cidr4>),
    /// Services' networks as they were named.
    named_ranges: Vec<Cidr4>,
    /// Whether this node's part of the pod network is known, where that matters.
    pod_cidr_known: bool,
    full_sync_at: Instant,
    backoff: Duration,
    udp: UdpServices,
    /// Frontends of Services that are too many to be served.
    unserved: Unserved,
    /// When the changes that are not written yet began, in milliseconds since 1970.
    triggers: Vec<i64>,
    /// When this proxy came into being, alike.
    started: i64,
    health: Health,
    health_checks: HealthCheckNodePorts,
    metrics: Metrics,
}

/// What an applied transaction did.
#[derive(Debug, Default)]
struct AppliedTransaction {
    stale_chains: Vec<Name>,
    revived: Vec<Name>,
    requests: usize,
}

impl<B, C> Proxy<B, C>
where
    B: NftBackend + 'static,
    C: Conntrack + 'static,
{
    /// A proxy that has not seen anything yet.
    #[must_use]
    pub fn new(inputs: ProxyInputs<B, C>) -> Self {
        let addresses = inputs.node.node_port_addresses.clone();
        let named = (inputs.node.local.clone(), inputs.node.masquerade_outbound.clone());
        let named_ranges = inputs.node.service_cidrs.clone();
        Self {
            node_name: inputs.node_name,
            node_ips: inputs.node.node_ips.clone(),
            io: Some((inputs.backend, inputs.conntrack)),
            state: State::new(),
            ruleset: Ruleset::new(inputs.node),
            applied: false,
            compare: false,
            stale_chains: BTreeSet::new(),
            tidy_at: None,
            retry_at: None,
            rest_until: None,
            check_at: Instant::now() + inputs.periods.sync_period,
            periods: inputs.periods,
            pod_cidr: inputs.pod_cidr,
            named,
            named_ranges,
            pod_cidr_known: inputs.pod_cidr != PodCidr::IsLocal,
            full_sync_at: Instant::now() + FULL_SYNC_PERIOD,
            backoff: BACKOFF_FIRST,
            udp: UdpServices::default(),
            unserved: Unserved::default(),
            triggers: Vec::new(),
            started: Timestamp::now().as_millisecond(),
            health_checks: HealthCheckNodePorts::new(inputs.health.clone(), addresses),
            health: inputs.health,
            metrics: inputs.metrics,
        }
    }

    /// Runs until `token` is cancelled or `changes` ends. Rules stay.
    pub async fn run(mut self, mut changes: mpsc::Receiver<Event>, token: CancellationToken) {
        let mut burst = Vec::new();
        loop {
            let wake =
                [self.retry_at, self.rest_until, self.tidy_at].into_iter().flatten().fold(self.check_at, Instant::min);
            // Every arm may be dropped: receiving many takes nothing unless it completes, the
            // others only wait.
            tokio::select! {
                () = token.cancelled() => return,
                count = changes.recv_many(&mut burst, BURST) => {
                    if count == 0 {
                        return;
                    }
                }
                () = sleep_until(wake) => {}
            }
            for event in burst.drain(..) {
                self.fold(event);
            }
            if self.check_at <= Instant::now() {
                self.check().await;
            }
            // While the backend fails, changes pile up in the state and wait for the retry.
            self.rest_until = self.rest_until.filter(|at| *at > Instant::now());
            let may = self.rest_until.is_none() && self.retry_at.is_none_or(|at| at <= Instant::now());
            if may && self.pod_cidr_known && self.state.synced() {
                self.sync().await;
                if self.compare && self.applied {
                    self.compare().await;
                }
            }
            if self.tidy_at.is_some_and(|at| at <= Instant::now()) {
                self.tidy().await;
            }
        }
    }

    /// Notices that the table went, or that it is time to compare all of it: the next sync is full.
    async fn check(&mut self) {
        let now = Instant::now();
        self.check_at = now + self.periods.sync_period;
        if !self.applied {
            return;
        }
        if self.full_sync_at <= now {
            self.full_sync_at = now + FULL_SYNC_PERIOD;
            self.compare = true;
        } else if matches!(self.blocking(|backend, _| backend.exists()).await, Ok(false)) {
            tracing::warn!("somebody removed our nftables table, restoring it");
            self.applied = false;
        }
    }

    /// Compares all of the table with what the kernel has. Should others keep changing rulesets
    /// meanwhile, nothing is known to be wrong: it is tried again later.
    async fn compare(&mut self) {
        let began = std::time::Instant::now();
        match self.write(None).await {
            Ok(applied) => self.record_sync(&applied, began.elapsed(), true, 0),
            Err(NftError::Changed) => {
                tracing::debug!("rulesets changed too often to be compared, trying again later");
                self.full_sync_at = self.check_at;
            }
            Err(error) => return self.failed(&error),
        }
        self.compare = false;
        self.forget_stale_flows(true).await;
    }

    fn fold(&mut self, event: Event) {
        match event {
            Event::Node { zone, eligible, pod_cidr } => {
                self.health.set_node_eligible(eligible);
                self.state.apply(Change::Zone(zone));
                self.follow_pod_cidr(pod_cidr);
            }
            Event::ServiceRanges(told) => {
                let mut ranges = self.named_ranges.clone();
                for range in told {
                    if !ranges.iter().any(|other| other.covers(range)) {
                        ranges.push(range);
                    }
                }
                if self.ruleset.set_service_cidrs(ranges) {
                    self.applied = false;
                }
            }
            Event::Change(change, trigger) => {
                match &change {
                    Change::Service(..) | Change::ServiceGone(_) => {
                        self.metrics.service_changes.inc();
                        self.metrics.service_changes_pending.inc();
                    }
                    Change::Slice(..) | Change::SliceGone(..) => {
                        self.metrics.endpoint_changes.inc();
                        self.metrics.endpoint_changes_pending.inc();
                    }
                    Change::ServicesListed | Change::SlicesListed | Change::Zone(_) => {}
                }
                // As upstream: what began before this process is not its latency, and what changes nothing has none
                // (pkg/proxy/endpointschangetracker.go).
                if self.state.apply(change) {
                    self.triggers.extend(trigger.filter(|began| *began > self.started));
                }
            }
        }
    }

    /// Follows this node's part of the pod network. Should it move, every Service is compiled anew.
    fn follow_pod_cidr(&mut self, pod_cidr: Option<Cidr4>) {
        let Some(net) = pod_cidr else { return };
        let Some((local, outbound)) = self.pod_cidr.networks(&self.named, net) else { return };
        self.pod_cidr_known = true;
        if self.ruleset.set_pod_networks(local, outbound) {
            self.applied = false;
            let all: Vec<ServiceName> = self.state.services().cloned().collect();
            all.into_iter().for_each(|name| self.state.touch(name));
        }
    }

    fn clear_pending(&self) {
        self.metrics.service_changes_pending.set(0);
        self.metrics.endpoint_changes_pending.set(0);
    }

    /// Brings the kernel up to date with everything folded so far. While it is not known what the
    /// kernel has, there is no transaction yet: [`Self::write`] finds it by comparing.
    async fn sync(&mut self) {
        let began = std::time::Instant::now();
        let changed = self.state.take_changed();
        if changed.is_empty() && self.applied {
            self.triggers.clear();
            self.clear_pending();
            return;
        }
        self.health.queued(Instant::now());
        self.metrics.last_queued.set(now_seconds());
        let full = !self.applied;
        let services = changed.len();
        let tx = self.compile(changed);
        match self.write(tx).await {
            Ok(applied) => self.record_sync(&applied, began.elapsed(), full, services),
            Err(error) => return self.failed(&error),
        }
        self.forget_stale_flows(full).await;
    }

    /// It is not known any more what the kernel has.
    fn failed(&mut self, error: &NftError) {
        self.applied = false;
        self.metrics.sync_failures.inc();
        tracing::error!(
            error = %error,
            cause = std::error::Error::source(error).map(tracing::field::display),
            retry_in = ?self.backoff,
            "writing service rules failed"
        );
        self.health.queued(Instant::now());
        self.retry_at = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_LAST);
    }

    fn compile(&mut self, changed: BTreeSet<ServiceName>) -> Option<Transaction> {
        let (state, node_name) = (&self.state, self.node_name.as_str());
        for name in &changed {
            self.unserved.note(name, state.unserved(name), &self.metrics.unserved_frontends);
            let ports = state.resolve(name);
            self.udp.update(name, &ports);
            let health_check = ports.iter().find(|r| r.port.external_local && r.port.health_check_node_port != 0);
            let port = health_check.map_or(0, |r| r.port.health_check_node_port);
            self.health_checks.update(name, port, local_ready(&ports));
        }
        let topology = NodeTopology { node_name, zone: state.zone() };
        let lookup = |name: &ServiceName| PortInput::of(state, name, topology);
        if self.applied {
            Some(self.ruleset.update(changed, &lookup))
        } else {
            self.ruleset.absorb(changed, &lookup);
            None
        }
    }

    /// Performs `tx`, or, without one, whatever makes the kernel's table equal to the ruleset. If
    /// we die between this and [`Self::record_sync`], the next start adopts the result.
    async fn write(&mut self, tx: Option<Transaction>) -> Result<AppliedTransaction, NftError> {
        if let Some(tx) = tx {
            return self.blocking(move |backend, _| backend.run(&tx, None).map(|()| AppliedTransaction::of(tx))).await;
        }
        let desired = self.ruleset.table();
        let performed = self.blocking(move |backend, _| reconcile(backend, |applied| Ok(diff(applied, &desired))));
        performed.await.map(AppliedTransaction::of)
    }

    fn record_sync(&mut self, applied: &AppliedTransaction, took: Duration, full: bool, services: usize) {
        self.applied = true;
        self.retry_at = None;
        self.backoff = BACKOFF_FIRST;
        let rest = self.periods.min_sync_period;
        self.rest_until = (!rest.is_zero()).then(|| Instant::now() + rest);
        self.clear_pending();
        for name in &applied.revived {
            self.stale_chains.remove(name);
        }
        self.stale_chains.extend(applied.stale_chains.iter().cloned());
        self.tidy_at = (!self.stale_chains.is_empty()).then(|| Instant::now() + STALE_CHAIN_DELAY);
        let no_local = self.ruleset.no_local_endpoints();
        self.metrics.set_no_local_endpoints(no_local.internal, no_local.external);
        let now = Timestamp::now();
        self.health.updated(now);
        self.metrics.last_sync.set(now_seconds());
        self.metrics.sync_duration.observe(took.as_secs_f64());
        if full {
            self.metrics.sync_full_duration.observe(took.as_secs_f64());
            // The hourly comparison of an idle node finds nothing and says nothing.
            if applied.requests > 0 || services > 0 {
                tracing::info!(services, requests = applied.requests, ?took, "service rules are in place");
            }
        } else {
            self.metrics.sync_partial_duration.observe(took.as_secs_f64());
            tracing::debug!(services, requests = applied.requests, ?took, "service rules changed");
        }
        for trigger in self.triggers.drain(..) {
            let milliseconds = now.as_millisecond().saturating_sub(trigger).max(0);
            let latency = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
            self.metrics.network_programming.observe(latency.as_secs_f64());
        }
    }

    /// Deletes chains that were emptied a while ago. Kernels before 6.2 may still count references.
    async fn tidy(&mut self) {
        self.tidy_at = None;
        if !self.applied {
            // The next full sync finds them itself.
            self.stale_chains.clear();
            return;
        }
        let chains: Vec<Name> = std::mem::take(&mut self.stale_chains).into_iter().collect();
        let tx = Transaction::delete_chains(&chains);
        if let Err(error) = self.blocking(move |backend, _| backend.run(&tx, None)).await {
            self.metrics.cleanup_failures.inc();
            tracing::debug!(error = %error, "stale chains stay for now");
            if error.is_busy() {
                self.stale_chains = chains.into_iter().collect();
                self.tidy_at = Some(Instant::now() + BACKOFF_LAST);
            } else {
                // Somebody meddled with the table: look at it anew.
                self.applied = false;
                self.retry_at = Some(Instant::now() + self.backoff);
            }
        }
    }

    async fn forget_stale_flows(&mut self, full: bool) {
        if !(self.udp.pending() || full) {
            return;
        }
        let udp = std::mem::take(&mut self.udp);
        let node_ips = self.node_ips.clone();
        let began = std::time::Instant::now();
        let (udp, result) = self
            .blocking(move |_, conntrack| {
                let deleted = delete_stale(conntrack, &udp, &node_ips);
                (udp, deleted)
            })
            .await;
        self.udp = udp;
        self.metrics.conntrack_duration.observe(began.elapsed().as_secs_f64());
        match result {
            Ok(deleted) => {
                self.udp.done();
                self.metrics.conntrack_deleted.inc_by(deleted);
            }
            // They stay pending: the next change tries again.
            Err(error) => tracing::warn!(error = %error, "stale UDP flows could not be forgotten"),
        }
    }

    /// Runs `work` on a blocking thread with the backend and connection tracking.
    async fn blocking<T: Send + 'static>(&mut self, work: impl FnOnce(&mut B, &mut C) -> T + Send + 'static) -> T {
        let (mut backend, mut conntrack) = self.io.take().expect("only one write runs at a time");
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut backend, &mut conntrack);
            (result, backend, conntrack)
        });
        let (result, backend, conntrack) = done.await.expect("backends do not panic");
        self.io = Some((backend, conntrack));
        result
    }
}

impl AppliedTransaction {
    fn of(tx: Transaction) -> Self {
        let requests = tx.len();
        let revived = tx.ops.into_iter().filter_map(|op| match op {
            Op::AddChain(name, _) => Some(name),
            _ => None,
        });
        Self { revived: revived.collect(), requests, stale_chains: tx.stale_chains }
    }
}

fn delete_stale(conntrack: &mut impl Conntrack, udp: &UdpServices, node_ips: &[Ipv4Addr]) -> Result<u64, NftError> {
    let flows = conntrack.udp_flows()?;
    let mut deleted = 0;
    for flow in udp.stale(&flows, node_ips) {
        conntrack.delete(&flow)?;
        deleted += 1;
    }
    Ok(deleted)
}

/// Ready endpoints on this node, each address once however many ports it serves.
fn local_ready(ports: &[Resolved]) -> usize {
    let addresses = ports.iter().flat_map(|r| &r.endpoints).filter(|e| e.local && e.ready).map(|e| e.addr);
    addresses.collect::<BTreeSet<_>>().len()
}

fn now_seconds() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests;
