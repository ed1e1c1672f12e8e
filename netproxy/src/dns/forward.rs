//! Names outside the cluster: asked of the node's own resolvers, answers kept for as long as they
//! say, up to a small number.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{Resolver, TokioResolver};
use tokio::time::timeout;

use super::PORT;
use super::resolv_conf::ResolvConf;

/// Answers to keep; names that a node's pods use are few.
const CACHE_ENTRIES: u64 = 512;
/// How long a resolver may take, how often it is asked, and how long all of it may take.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(5);

/// What others said.
#[derive(Clone, Debug, PartialEq)]
pub enum UpstreamAnswer {
    Records(Vec<Record>),
    Negative {
        code: ResponseCode,
        soa: Option<Box<Record>>,
    },
    /// Nobody answered: the client may try again.
    Failed,
    /// We ask nobody.
    Refused,
}

/// Somebody who knows names outside the cluster.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Asks for one name, as it is: no search domains are tried.
    async fn lookup(&self, name: &Name, kind: RecordType) -> UpstreamAnswer;

    /// Whether anybody is asked at all.
    fn available(&self) -> bool;
}

/// The way to the name servers of a resolv.conf.
pub struct Forwarder {
    /// `None` when nobody is to be asked.
    followed: Option<Mutex<Followed>>,
    /// Ourselves: asking that would ask us again.
    own: IpAddr,
    /// Where name servers listen.
    port: u16,
}

struct Followed {
    conf: ResolvConf,
    servers: Vec<IpAddr>,
    resolver: Option<TokioResolver>,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Forwarder {
    /// Forwards to the name servers that `resolv_conf` names at the time of a question, except
    /// `own`; without a file to nobody.
    pub fn new(resolv_conf: Option<PathBuf>, own: IpAddr) -> Self {
        let followed = |path| Mutex::new(Followed { conf: ResolvConf::new(path), servers: Vec::new(), resolver: None });
        Self { followed: resolv_conf.map(followed), own, port: PORT }
    }

    /// Asks name servers at another port.
    #[cfg(test)]
    pub fn at_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// The resolver for a question that came just now; `None` while there is nobody to ask.
    fn resolver(&self) -> Option<TokioResolver> {
        let mut followed = self.followed.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        match followed.conf.changed() {
            None => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "the resolver configuration cannot be read");
                followed.set(Vec::new(), self.port);
            }
            Some(Ok(mut servers)) => {
                servers.retain(|server| *server != self.own);
                followed.set(servers, self.port);
            }
        }
        followed.resolver.clone()
    }
}

impl Followed {
    fn set(&mut self, servers: Vec<IpAddr>, port: u16) {
        if self.servers == servers {
            return;
        }
        tracing::info!(?servers, "names outside the cluster are asked of other servers");
        self.resolver = resolver(&servers, port);
        self.servers = servers;
    }
}

fn resolver(servers: &[IpAddr], port: u16) -> Option<TokioResolver> {
    if servers.is_empty() {
        return None;
    }
    let mut servers: Vec<_> = servers.iter().copied().map(NameServerConfig::udp_and_tcp).collect();
    servers.iter_mut().flat_map(|server| &mut server.connections).for_each(|connection| connection.port = port);
    let config = ResolverConfig::from_name_servers(servers);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.cache_size = CACHE_ENTRIES;
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    options.use_hosts_file = ResolveHosts::Never;
    options.edns0 = true;
    let built = builder.build();
    built.inspect_err(|error| tracing::warn!(%error, "names outside the cluster cannot be forwarded")).ok()
}

#[async_trait]
impl Upstream for Forwarder {
    async fn lookup(&self, name: &Name, kind: RecordType) -> UpstreamAnswer {
        if self.followed.is_none() {
            return UpstreamAnswer::Refused;
        }
        let Some(resolver) = self.resolver() else { return UpstreamAnswer::Failed };
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        match timeout(PATIENCE, resolver.lookup(absolute, kind)).await {
            Ok(Ok(lookup)) => UpstreamAnswer::Records(lookup.answers().to_vec()),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                let soa = none
                    .soa
                    .map(|soa| Box::new(Record::from_rdata(soa.name.clone(), soa.ttl, RData::SOA(soa.data.clone()))));
                match none.response_code {
                    code @ (ResponseCode::NoError | ResponseCode::NXDomain) => UpstreamAnswer::Negative { code, soa },
                    _ => UpstreamAnswer::Failed,
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(%name, %error, "a name outside the cluster got no answer");
                UpstreamAnswer::Failed
            }
            Err(_) => {
                tracing::debug!(%name, "a name outside the cluster got no answer in time");
                UpstreamAnswer::Failed
            }
        }
    }

    fn available(&self) -> bool {
        self.followed.is_some()
    }
}
