//! Tells of Services that want more than one Service may have ([`crate::snapshot::bound`]).

use std::collections::BTreeMap;

use prometheus_client::metrics::gauge::Gauge;

use crate::snapshot::ServiceName;

/// Frontends that are not served, of the Services that have some.
#[derive(Debug, Default)]
pub struct Unserved(BTreeMap<ServiceName, usize>);

impl Unserved {
    /// Takes in how many frontends of a Service are not served; told once for each change.
    pub fn note(&mut self, service: &ServiceName, frontends: usize, all: &Gauge) {
        if self.0.get(service).copied().unwrap_or(0) == frontends {
            return;
        }
        if frontends == 0 {
            self.0.remove(service);
        } else {
            tracing::warn!(%service, frontends, "too large a Service: not all of it is served");
            self.0.insert(service.clone(), frontends);
        }
        all.set(i64::try_from(self.0.values().sum::<usize>()).unwrap_or(i64::MAX));
    }
}
