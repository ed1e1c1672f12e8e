//! Follows ServiceCIDRs: what is ready gives addresses to Services from then on, and what Services have addresses of is
//! not deleted. Decides nothing: `allocate::objects` says what there ought to be. Upstream has its allocators do the
//! first and a controller (pkg/controller/servicecidrs) the second; here they are one, as whoever gives addresses knows
//! best when it does.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tracing::warn;

use super::allocate::objects::{added_ranges, is_managed, settled};
use super::deletion::ends_with_update;
use super::owners::without_owners;
use super::registry::{Change, RegistryError, Resource};
use super::server::Server;
use scheme::access::str_at;
use storage::watch_cache::{Filter, WatchRequest, WatchStart};

const GROUP: &str = "networking.k8s.io";
/// Pause after a failure, and before one that is deleted is looked at again.
const RETRY: Duration = Duration::from_secs(1);
/// A range that gives no addresses any more stays so long: a Service that got one before is stored by then, as
/// upstream's deletionGracePeriod.
const GRACE: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);

/// Takes up the ranges that are stored.
pub fn load(server: &Server) {
    if let Some(ranges) = server.registry.get(GROUP, "servicecidrs") {
        server.services.set_added(added_ranges(stored(&ranges).iter(), server.service_cidr));
    }
}

/// Follows them until the server ends.
pub async fn keep(server: Arc<Server>) {
    let resources = (server.registry.get(GROUP, "servicecidrs"), server.registry.get(GROUP, "ipaddresses"));
    let (Some(ranges), Some(addresses)) = resources else { return };
    let kept = Kept { server, ranges, addresses };
    while !kept.server.stopping.is_cancelled() {
        if let Err(error) = kept.follow().await {
            warn!(error = &error as &dyn Error, "cannot keep the ServiceCIDRs");
            // Cancel-safe: the pause is given up with the server.
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = kept.server.stopping.cancelled() => return,
            }
        }
    }
}

/// All ranges, without their owners, which nobody asks for here.
fn stored(ranges: &Resource) -> Vec<Value> {
    let mut all = Vec::new();
    ranges.cache().for_each(&Filter::all(), |range| all.push(without_owners(range)));
    all
}

struct Kept {
    server: Arc<Server>,
    ranges: Arc<Resource>,
    addresses: Arc<Resource>,
}

impl Kept {
    /// Settles all of them, again whenever one changes, until the watch ends.
    async fn follow(&self) -> Result<(), RegistryError> {
        let mut changes = self.ranges.cache().watch(WatchRequest::new(Filter::all(), WatchStart::Now))?;
        loop {
            let waits = self.settle().await?;
            // Each arm is cancel-safe: an event is taken whole or not at all.
            tokio::select! {
                () = self.server.stopping.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY), if waits => {}
                change = changes.next() => if !matches!(change, Some(Ok(_))) {
                    return Ok(());
                },
            }
        }
    }

    /// Brings all in line; whether one waits to be deleted.
    async fn settle(&self) -> Result<bool, RegistryError> {
        self.server.registry.fresh().await?;
        let all = stored(&self.ranges);
        self.server.services.set_added(added_ranges(all.iter(), self.server.service_cidr));
        let is_going = |range: &Value| !range["metadata"]["deletionTimestamp"].is_null();
        let used = if all.iter().any(is_going) { self.used() } else { Vec::new() };
        for range in &all {
            let name = str_at(range, &["metadata", "name"]);
            let others = self.others(&all, name);
            if is_going(range) && !self.is_due(range) {
                continue;
            }
            let now = self.server.now_text();
            if settled(range, &used, &others, &now).is_none() {
                continue;
            }
            let next = |old: &Value| {
                Ok(match settled(old, &used, &others, &now) {
                    Some(next) if ends_with_update(&self.ranges.kind, &next) => Change::Remove(next),
                    Some(next) => Change::Write(next),
                    None => Change::Keep,
                })
            };
            match self.ranges.change::<_, RegistryError>("", name, false, next).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(all.iter().any(is_going))
    }

    /// Addresses that Services have.
    fn used(&self) -> Vec<Ipv4Addr> {
        let mut used = Vec::new();
        let note = |address: &Arc<storage::Object>| {
            if is_managed(address) {
                used.extend(address.name().parse::<Ipv4Addr>());
            }
        };
        self.addresses.cache().for_each(&Filter::all(), note);
        used
    }

    /// The ranges that stay without one of that name: this server's own is one that stays.
    fn others(&self, all: &[Value], name: &str) -> Vec<super::allocate::Cidr> {
        let own = self.server.service_cidr;
        let mut others = added_ranges(all.iter().filter(|other| str_at(other, &["metadata", "name"]) != name), own);
        others.push(own);
        others
    }

    fn is_due(&self, range: &Value) -> bool {
        let since = str_at(range, &["metadata", "deletionTimestamp"]).parse::<jiff::Timestamp>();
        since.is_ok_and(|since| self.server.now().duration_since(since) >= GRACE)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::StatusCode;
    use serde_json::json;

    use crate::testing::{delete, expect, get, post, start};
    use scheme::access::{list_at, str_at};

    const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    const SERVICES: &str = "/api/v1/namespaces/default/services";

    /// As upstream's specification of Service CIDRs has it (test/e2e/network/service_cidrs.go).
    #[tokio::test]
    async fn services_have_addresses_of_a_range_that_comes_later() {
        let (server, client) = start().await;
        let service = |name: &str, ip: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
        let before = post(&client, SERVICES, &service("a", "203.0.113.10")).await;
        assert_eq!(before.0, 422, "{}", before.1);
        let range = json!({"metadata": {"name": "later"}, "spec": {"cidrs": ["203.0.113.0/24"]}});
        expect(post(&client, RANGES, &range).await, StatusCode::CREATED);
        let path = format!("{RANGES}/later");
        let ready = async || {
            let range = get(&client, &path).await.1;
            list_at(&range, &["status", "conditions"]).iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        harness::time::eventually_true("the range is ready", ready).await.unwrap();
        let made = expect(post(&client, SERVICES, &service("a", "203.0.113.10")).await, StatusCode::CREATED);
        assert_eq!(made["spec"]["clusterIPs"], json!(["203.0.113.10"]));
        assert_eq!(post(&client, SERVICES, &service("b", "203.0.113.10")).await.0, 422, "it is taken");
        assert_eq!(post(&client, SERVICES, &service("b", "203.0.113.255")).await.0, 422, "the broadcast address");
        let external =
            json!({"metadata": {"name": "e"}, "spec": {"externalIPs": ["203.0.113.77"], "ports": [{"port": 80}]}});
        assert_eq!(post(&client, SERVICES, &external).await.0, 422);
        server.server().services.repair(&server.server().registry).await.unwrap();
        assert_eq!(post(&client, SERVICES, &service("b", "203.0.113.10")).await.0, 422, "as before");

        // It stays as long as a Service has an address of it, and gives no other one.
        let going = expect(delete(&client, &path).await, StatusCode::OK);
        assert!(!str_at(&going, &["metadata", "deletionTimestamp"]).is_empty(), "{going}");
        let refused =
            async || post(&client, &format!("{SERVICES}?dryRun=All"), &service("c", "203.0.113.11")).await.0 == 422;
        harness::time::eventually_true("it gives no address any more", refused).await.unwrap();
        let changed = service("a", "203.0.113.10");
        let kept = crate::testing::patch(&client, &format!("{SERVICES}/a"), "merge-patch+json", &changed).await;
        expect(kept, StatusCode::OK);
        assert_eq!(get(&client, &path).await.0, 200);
    }
}
