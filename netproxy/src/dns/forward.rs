//! Names outside the cluster: asked of the node's own resolvers, answers kept
//! for as long as they say, up to a small number.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::net::{DnsError, NetError};
use hickory_server::resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_server::resolver::{Resolver, TokioResolver};

/// Answers to keep; names that a node's pods use are few.
const CACHE_ENTRIES: u64 = 512;
/// How long a resolver may take, and how often it is asked.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// The way to other name servers.
pub struct Forwarder {
    resolver: TokioResolver,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").finish_non_exhaustive()
    }
}

/// What others said.
#[derive(Debug)]
pub enum Forwarded {
    Records(Vec<Record>),
    Negative { code: ResponseCode, soa: Option<Box<Record>> },
    Failed,
}

impl Forwarder {
    /// Forwards to the name servers of a resolv.conf. `None` when there are
    /// none, or only `own`, which would ask us again.
    pub fn from_file(resolv_conf: Option<&Path>, own: IpAddr) -> Option<Self> {
        let path = resolv_conf?;
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no resolvers to forward to");
                return None;
            }
        };
        Self::new(name_servers(&text, own))
    }

    fn new(servers: Vec<IpAddr>) -> Option<Self> {
        if servers.is_empty() {
            return None;
        }
        let servers = servers.into_iter().map(NameServerConfig::udp_and_tcp).collect();
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.cache_size = CACHE_ENTRIES;
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        options.use_hosts_file = ResolveHosts::Never;
        options.edns0 = true;
        builder
            .build()
            .inspect_err(|error| tracing::warn!(%error, "names outside the cluster cannot be forwarded"))
            .ok()
            .map(|resolver| Self { resolver })
    }

    /// Asks for one name, as it is: no search domains are tried.
    pub async fn ask(&self, name: &Name, kind: RecordType) -> Forwarded {
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        match self.resolver.lookup(absolute, kind).await {
            Ok(lookup) => Forwarded::Records(lookup.answers().to_vec()),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let soa = none
                    .soa
                    .map(|soa| Box::new(Record::from_rdata(soa.name.clone(), soa.ttl, RData::SOA(soa.data.clone()))));
                Forwarded::Negative { code: none.response_code, soa }
            }
            Err(error) => {
                tracing::debug!(%name, %error, "a name outside the cluster got no answer");
                Forwarded::Failed
            }
        }
    }
}

/// The name servers of a resolv.conf, without `own`; anything else is skipped.
fn name_servers(text: &str, own: IpAddr) -> Vec<IpAddr> {
    let value = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten().and_then(|word| word.parse().ok())
    };
    text.lines().filter_map(value).filter(|server| *server != own).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_name_servers_other_than_us_are_asked() {
        let own = "10.43.0.10".parse().unwrap();
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 192.168.1.1 \nnameserver 10.43.0.10\nnameserver junk\nnameserver\n";
        assert_eq!(name_servers(text, own), ["192.168.1.1".parse::<IpAddr>().unwrap()]);
        assert!(Forwarder::from_file(Some(Path::new("/nonexistent")), own).is_none());
        assert!(Forwarder::from_file(None, own).is_none());
    }
}
