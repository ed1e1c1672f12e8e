//! The loop on fakes: when it writes, what it does after failures, what it leaves alone.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use super::*;
use crate::conntrack::{Flow, Tuple};
use crate::fake::FakeNft;
use crate::nft::object::Table;
use crate::ruleset::LocalTraffic;
use crate::services::NodePortAddresses;
use crate::snapshot::{Endpoint, Protocol, ServicePort, Slice};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);

#[derive(Clone, Debug, Default)]
struct FakeConntrack(Arc<Mutex<Vec<Flow>>>);

impl Conntrack for FakeConntrack {
    fn udp_flows(&mut self) -> Result<Vec<Flow>, NftError> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn delete(&mut self, flow: &Flow) -> Result<(), NftError> {
        self.0.lock().unwrap().retain(|f| f != flow);
        Ok(())
    }
}

fn node() -> NodeView {
    NodeView {
        node_ips: vec![Ipv4Addr::new(192, 0, 2, 1)],
        local: LocalTraffic::From(vec!["10.42.0.0/16".parse().unwrap()]),
        service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
        node_port_addresses: NodePortAddresses::AllLocal,
        masquerade_all: false,
        masquerade_outbound: vec!["10.42.0.0/16".parse().unwrap()],
        masquerade_mark: 0x4000,
        dns_address: None,
    }
}

struct Harness {
    nft: FakeNft,
    conntrack: FakeConntrack,
    metrics: Metrics,
    health: Health,
    changes: mpsc::Sender<Event>,
    token: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Harness {
    fn start(nft: FakeNft) -> Self {
        Self::with(nft, SyncPeriods::default(), PodCidr::Ignored)
    }

    fn with(nft: FakeNft, periods: SyncPeriods, pod_cidr: PodCidr) -> Self {
        let (changes, receiver) = mpsc::channel(16);
        let (conntrack, metrics, token) = (FakeConntrack::default(), Metrics::default(), CancellationToken::new());
        let health = Health::new(Instant::now(), periods.sync_period * 2);
        let inputs = ProxyInputs {
            backend: nft.clone(),
            conntrack: conntrack.clone(),
            node_name: "node".to_owned(),
            node: node(),
            health: health.clone(),
            periods: periods.clone(),
            pod_cidr,
            metrics: metrics.clone(),
        };
        let task = tokio::spawn(Proxy::new(inputs).run(receiver, token.clone()));
        Self { nft, conntrack, metrics, health, changes, token, task }
    }

    async fn see_node(&self, pod_cidr: &str) {
        let pod_cidr = pod_cidr.parse().ok();
        self.changes.send(Event::Node { zone: None, eligible: true, pod_cidr }).await.unwrap();
    }

    async fn see(&self, change: Change) {
        self.see_since(change, 0).await;
    }

    /// A change that began then, in milliseconds since 1970.
    async fn see_since(&self, change: Change, began: i64) {
        self.changes.send(Event::Change(change, Some(began))).await.unwrap();
    }

    /// How often the latency of a change was measured.
    fn measured(&self) -> String {
        let (mut text, mut registry) = (String::new(), prometheus_client::registry::Registry::default());
        self.metrics.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let name = "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} ";
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned()
    }

    /// Lets the loop work until `condition` holds; virtual time passes as it sleeps.
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), waiting).await.unwrap_or_else(|_| panic!("timed out: {what}"));
    }

    async fn stop(self) {
        self.token.cancel();
        self.task.await.unwrap();
    }

    fn serves(&self, last: u8) -> bool {
        let addr = format!("0a2a00{last:02x}1f900000");
        let table = self.nft.table().unwrap_or_default();
        let elements = table.sets.get("endpoints").map(|set| set.elements.clone()).unwrap_or_default();
        elements.values().any(|value| format!("{value:?}") == format!("Data({addr})"))
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName { namespace: "ns".into(), name: text.into() }
}

fn port(protocol: Protocol) -> ServicePort {
    ServicePort::new(protocol, VIP, 80)
}

fn slice(lasts: &[u8]) -> Change {
    let endpoint = |last: &u8| Endpoint::new(Ipv4Addr::new(10, 42, 0, *last), 0);
    let ports = [Protocol::Tcp, Protocol::Udp].map(|p| ("".into(), p, 8080)).to_vec();
    Change::Slice(name("svc"), "s".into(), Slice { ports, endpoints: lasts.iter().map(endpoint).collect() })
}

fn service(protocol: Protocol) -> Change {
    Change::Service(name("svc"), vec![port(protocol)])
}

#[tokio::test(start_paused = true)]
async fn writes_nothing_before_both_lists_then_at_once() {
    let harness = Harness::start(FakeNft::default());
    harness.see(slice(&[1])).await;
    harness.see(service(Protocol::Tcp)).await;
    harness.see(Change::ServicesListed).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(harness.nft.table().is_none());
    assert!(!harness.health.healthy(Instant::now() + Duration::from_secs(61)));
    harness.see(Change::SlicesListed).await;
    harness.until("the first sync", |h| h.nft.table().is_some()).await;
    harness.see(slice(&[1, 2])).await;
    harness.until("the change", |h| h.serves(2)).await;
    assert_eq!(harness.nft.transactions().len(), 2);
    harness.see(slice(&[1, 2])).await;
    harness.see(slice(&[1, 3])).await;
    harness.until("another", |h| h.serves(3)).await;
    assert_eq!(harness.nft.transactions().len(), 3, "the same again writes nothing");
    assert!(harness.health.healthy(Instant::now() + Duration::from_secs(999)));
    let mut text = String::new();
    let mut registry = prometheus_client::registry::Registry::default();
    harness.metrics.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1"), "{text}");
    assert!(text.contains("kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 2"), "{text}");
    harness.stop().await;
}

async fn synced(nft: FakeNft, protocol: Protocol, lasts: &[u8]) -> Harness {
    let harness = Harness::start(nft);
    harness.see(service(protocol)).await;
    harness.see(Change::ServicesListed).await;
    harness.see(Change::SlicesListed).await;
    harness.see(slice(lasts)).await;
    let last = lasts.last().copied().unwrap();
    harness.until("the first endpoints", |h| h.serves(last)).await;
    harness
}

#[tokio::test(start_paused = true)]
async fn a_restart_writes_only_what_differs_and_stopping_leaves_rules() {
    let nft = FakeNft::default();
    synced(nft.clone(), Protocol::Tcp, &[1, 2]).await.stop().await;
    let before = nft.table().unwrap();
    let writes = nft.transactions().len();
    let harness = Harness::start(nft.clone());
    harness.see(slice(&[1, 2])).await;
    harness.see(Change::SlicesListed).await;
    harness.see(service(Protocol::Tcp)).await;
    harness.see(Change::ServicesListed).await;
    harness.see(slice(&[1, 3])).await;
    harness.until("the change", |h| h.serves(3)).await;
    let writes: Vec<_> = nft.transactions().split_off(writes);
    assert!(writes.iter().all(|tx| tx.len() <= 4), "only the endpoint: {writes:?}");
    assert_ne!(before, nft.table().unwrap());
    harness.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retries_with_a_full_comparison_after_a_failure() {
    let harness = synced(FakeNft::default(), Protocol::Tcp, &[1]).await;
    harness.nft.fail_next(NftError::Unanswered);
    harness.nft.fail_next(NftError::Unanswered);
    // Somebody emptied the table meanwhile: the retry finds out.
    harness.nft.set_table(Some(Table::default()));
    harness.see(slice(&[2])).await;
    harness.until("the repair", |h| h.serves(2)).await;
    assert_eq!(harness.metrics.sync_failures.get(), 2);
    harness.see(slice(&[3])).await;
    harness.until("life goes on", |h| h.serves(3)).await;
    harness.stop().await;
}

#[tokio::test(start_paused = true)]
async fn starts_over_when_the_ruleset_moves_under_it() {
    let nft = FakeNft::default();
    nft.fail_next(NftError::Changed);
    let harness = synced(nft, Protocol::Tcp, &[1]).await;
    assert_eq!(harness.metrics.sync_failures.get(), 0);
    harness.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deletes_emptied_chains_later_and_not_when_they_came_back() {
    let harness = synced(FakeNft::default(), Protocol::Tcp, &[1]).await;
    let has_chain = |h: &Harness| h.nft.table().unwrap().chains.contains_key("service-ns/svc/tcp/");
    assert!(has_chain(&harness));
    harness.see(slice(&[])).await;
    harness.until("no endpoints", |h| !h.serves(1)).await;
    assert!(has_chain(&harness), "it stays for a moment");
    harness.see(slice(&[2])).await;
    harness.until("endpoints again", |h| h.serves(2)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(has_chain(&harness));
    harness.see(slice(&[])).await;
    harness.until("the chain goes", |h| !has_chain(h)).await;
    assert_eq!(harness.metrics.cleanup_failures.get(), 0);
    harness.stop().await;
}

#[tokio::test(start_paused = true)]
async fn forgets_stale_udp_flows_and_only_those() {
    let harness = synced(FakeNft::default(), Protocol::Udp, &[1]).await;
    let flow = |last| {
        let client = Ipv4Addr::new(10, 42, 0, 99);
        Flow {
            original: Tuple { src: client, dst: VIP, sport: 1, dport: 80 },
            reply: Tuple { src: Ipv4Addr::new(10, 42, 0, last), dst: client, sport: 8080, dport: 1 },
            zone: 0,
        }
    };
    *harness.conntrack.0.lock().unwrap() = vec![flow(1), flow(2)];
    harness.see(slice(&[2])).await;
    harness.until("the stale flow is gone", |h| *h.conntrack.0.lock().unwrap() == [flow(2)]).await;
    assert_eq!(harness.metrics.conntrack_deleted.get(), 1);
    harness.stop().await;
}

#[tokio::test(start_paused = true)]
async fn restores_a_table_that_was_flushed_and_repairs_one_that_was_bent() {
    let harness = synced(FakeNft::default(), Protocol::Tcp, &[1]).await;
    let whole = harness.nft.table();
    harness.nft.set_table(None);
    harness.until("the table is back", |h| h.nft.table() == whole).await;
    let mut bent = whole.clone().unwrap();
    bent.chains.get_mut("services").unwrap().rules.clear();
    harness.nft.set_table(Some(bent));
    let began = tokio::time::Instant::now();
    let repaired = async {
        while harness.nft.table() != whole {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(7200), repaired).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(1800), "at the hourly comparison");
    assert_eq!(harness.metrics.sync_failures.get(), 0);
    harness.stop().await;
}

/// Others may change rulesets all the time: that spoils the comparison, not the service.
#[tokio::test(start_paused = true)]
async fn a_comparison_that_never_comes_to_rest_holds_nothing_up() {
    let harness = synced(FakeNft::default(), Protocol::Tcp, &[1]).await;
    harness.nft.restless(true);
    let compared = harness.nft.lists();
    tokio::time::sleep(FULL_SYNC_PERIOD).await;
    harness.until("the hourly comparison was tried", |h| h.nft.lists() > compared + 20).await;
    let began = Instant::now();
    harness.see(slice(&[2])).await;
    harness.until("a change", |h| h.serves(2)).await;
    assert!(began.elapsed() < BACKOFF_FIRST, "at once");
    assert_eq!(harness.metrics.sync_failures.get(), 0);
    assert!(harness.health.healthy(Instant::now() + Duration::from_secs(999)));
    harness.nft.restless(false);
    let whole = harness.nft.table();
    let mut bent = whole.clone().unwrap();
    bent.chains.get_mut("services").unwrap().rules.clear();
    harness.nft.set_table(Some(bent));
    let began = Instant::now();
    harness.until("the repair", |h| h.nft.table() == whole).await;
    assert!(began.elapsed() < Duration::from_secs(120), "tried again soon, not in an hour");
    harness.stop().await;
}

/// What keeps failing is to be seen: in health, and in metrics.
#[tokio::test(start_paused = true)]
async fn a_sync_that_makes_no_progress_is_unhealthy_until_it_does() {
    let harness = synced(FakeNft::default(), Protocol::Tcp, &[1]).await;
    let later = || Instant::now() + Duration::from_secs(61);
    assert!(harness.health.healthy(later()));
    for _ in 0..12 {
        harness.nft.fail_next(NftError::Unanswered);
    }
    harness.see(slice(&[2])).await;
    harness.until("failures", |h| h.metrics.sync_failures.get() >= 3).await;
    assert!(!harness.health.healthy(later()));
    harness.until("success", |h| h.serves(2)).await;
    assert_eq!(harness.metrics.sync_failures.get(), 12);
    assert!(harness.health.healthy(later()));
    harness.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rests_between_transactions_when_told_to() {
    let periods = SyncPeriods { min_sync_period: Duration::from_secs(20), ..SyncPeriods::default() };
    let harness = Harness::with(FakeNft::default(), periods, PodCidr::Ignored);
    harness.see(service(Protocol::Tcp)).await;
    harness.see(Change::ServicesListed).await;
    harness.see(Change::SlicesListed).await;
    harness.until("the first sync", |h| h.nft.table().is_some()).await;
    let began = Instant::now();
    harness.see(slice(&[1])).await;
    harness.see(slice(&[1, 2])).await;
    assert!(harness.metrics.endpoint_changes_pending.get() <= 2);
    harness.until("the changes", |h| h.serves(2)).await;
    assert!(began.elapsed() > Duration::from_secs(19), "{:?}", began.elapsed());
    assert_eq!(harness.nft.transactions().len(), 2, "both in one");
    assert_eq!(harness.metrics.endpoint_changes_pending.get(), 0);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let began = Instant::now();
    harness.see(slice(&[3])).await;
    harness.until("a change after a rest", |h| h.serves(3)).await;
    assert!(began.elapsed() < Duration::from_secs(1), "at once");
    harness.stop().await;
}

#[tokio::test(start_paused = true)]
async fn waits_for_the_nodes_part_of_the_pod_network_and_follows_it() {
    let harness = Harness::with(FakeNft::default(), SyncPeriods::default(), PodCidr::IsLocal);
    harness.see(service(Protocol::Tcp)).await;
    harness.see(Change::ServicesListed).await;
    harness.see(Change::SlicesListed).await;
    harness.see_node("none yet").await;
    harness.see(slice(&[1])).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(harness.nft.table().is_none(), "whose traffic to masquerade is not known");
    let tells = |h: &Harness, net: &str| {
        let rules = h.nft.table().map(|table| table.chains["services"].rules.clone()).unwrap_or_default();
        rules.iter().any(|rule| crate::nft::render::rule_text(rule).contains(&format!("ip saddr != {net}")))
    };
    harness.see_node("10.42.3.0/24").await;
    harness.until("the first sync", |h| tells(h, "10.42.3.0/24") && h.serves(1)).await;
    let writes = harness.nft.transactions().len();
    harness.see_node("10.42.3.0/24").await;
    harness.see_node("").await;
    harness.see_node("10.42.9.0/24").await;
    harness.until("the move", |h| tells(h, "10.42.9.0/24")).await;
    assert_eq!(harness.nft.transactions().len(), writes + 1, "only the move is written");
    harness.stop().await;
}

/// As upstream (`OnServiceCIDRsChanged` in `pkg/proxy/nftables/proxier.go`).
#[tokio::test(start_paused = true)]
async fn addresses_of_a_range_that_is_added_later_lead_nowhere_without_a_service() {
    let harness = synced(FakeNft::default(), Protocol::Tcp, &[1]).await;
    let drops = |h: &Harness, net: &str| {
        let rules = h.nft.table().unwrap().chains["cluster-ips-check"].rules.clone();
        rules.iter().any(|rule| crate::nft::render::rule_text(rule).contains(&format!("ip daddr {net} drop")))
    };
    let ranges = |texts: &[&str]| Event::ServiceRanges(texts.iter().map(|text| text.parse().unwrap()).collect());
    assert!(drops(&harness, "10.43.0.0/16"));
    let writes = harness.nft.transactions().len();
    harness.changes.send(ranges(&["10.43.0.0/16", "10.99.0.0/24"])).await.unwrap();
    harness.until("the range", |h| drops(h, "10.43.0.0/16") && drops(h, "10.99.0.0/24")).await;
    assert_eq!(harness.nft.transactions().len(), writes + 1);
    assert!(harness.serves(1));
    // The node's own word stays, whoever says nothing.
    harness.changes.send(ranges(&[])).await.unwrap();
    harness.until("no range", |h| drops(h, "10.43.0.0/16") && !drops(h, "10.99.0.0/24")).await;
    harness.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_too_large_is_told_and_counted() {
    let harness = synced(FakeNft::default(), Protocol::Tcp, &[1]).await;
    let addresses = (0..200_000u32).map(|index| Ipv4Addr::from_bits(0x6440_0000 + index)).collect();
    let large = ServicePort { external_ips: addresses, ..port(Protocol::Tcp) };
    harness.see(Change::Service(name("svc"), vec![large])).await;
    harness.until("what does not fit is counted", |h| h.metrics.unserved_frontends.get() > 60_000).await;
    harness.until("the rest is served", |h| h.nft.table().unwrap().sets["service-ips"].elements.len() > 100_000).await;
    assert!(harness.serves(1), "its ClusterIP, too");
    harness.see(service(Protocol::Tcp)).await;
    harness.until("it shrank", |h| h.metrics.unserved_frontends.get() == 0).await;
    harness.stop().await;
}

/// As upstream: what was there before the proxy is not its latency, nor what changes nothing.
#[tokio::test(start_paused = true)]
async fn latency_is_that_of_changes_since_the_start() {
    let before = Timestamp::now().as_millisecond() - 60_000;
    let harness = Harness::start(FakeNft::default());
    harness.see(service(Protocol::Tcp)).await;
    harness.see_since(slice(&[1]), before).await;
    harness.see(Change::ServicesListed).await;
    harness.see(Change::SlicesListed).await;
    harness.until("the first sync", |h| h.serves(1)).await;
    assert_eq!(harness.measured(), "0", "the slice is older than the proxy");
    let now = Timestamp::now().as_millisecond() + 1;
    harness.see_since(slice(&[2]), now).await;
    harness.until("a change", |h| h.serves(2) && h.measured() == "1").await;
    harness.see_since(slice(&[2]), now).await;
    harness.see_since(slice(&[3]), now).await;
    harness.until("another", |h| h.serves(3)).await;
    assert_eq!(harness.measured(), "2", "the same again is none");
    harness.stop().await;
}

/// Routes take the range around this node's part for the cluster's; so must the rules, or nothing of pods would come
/// back from elsewhere.
#[tokio::test(start_paused = true)]
async fn a_part_outside_the_named_network_moves_what_is_masqueraded() {
    let harness = Harness::with(FakeNft::default(), SyncPeriods::default(), PodCidr::IsWithin);
    harness.see(service(Protocol::Tcp)).await;
    harness.see(Change::ServicesListed).await;
    harness.see(Change::SlicesListed).await;
    harness.see(slice(&[1])).await;
    let tells = |h: &Harness, net: &str| {
        let table = h.nft.table().unwrap_or_default();
        let says = |chain: &str, text: &str| {
            let rules = table.chains.get(chain).map(|chain| chain.rules.as_slice()).unwrap_or_default();
            rules.iter().any(|rule| crate::nft::render::rule_text(rule).contains(text))
        };
        says("services", &format!("ip saddr != {net} "))
            && says("nat-postrouting", &format!("ip saddr {net} ip daddr != {net} masquerade"))
    };
    harness.until("the named network", |h| tells(h, "10.42.0.0/16")).await;
    harness.see_node("10.42.3.0/24").await;
    let writes = harness.nft.transactions().len();
    harness.see_node("10.99.3.0/24").await;
    harness.until("the network around it", |h| tells(h, "10.99.0.0/16") && !tells(h, "10.42.0.0/16")).await;
    assert_eq!(harness.nft.transactions().len(), writes + 1);
    assert!(harness.serves(1));
    harness.see_node("10.42.3.0/24").await;
    harness.until("the named network again", |h| tells(h, "10.42.0.0/16")).await;
    harness.stop().await;
}
