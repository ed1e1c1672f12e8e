//! The webhooks that are configured now, in the order in which they are asked: by the name of their configuration, then
//! as they stand in it (k8s.io/apiserver/pkg/admission/configuration).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde_json::Value;

use super::hook::Hook;
use crate::outbound::{Outbound, Peer, Unusable};
use scheme::access::{list_at, str_at};
use storage::Revision;
use storage::watch_cache::{Filter, ResourceCache};

/// Webhooks as of a change of their configurations.
#[derive(Debug, Default)]
struct Known {
    changed: Option<Revision>,
    hooks: Arc<[Arc<Hook>]>,
}

/// The webhooks of one kind of configuration.
#[derive(Debug)]
pub(super) struct Source {
    configurations: Arc<ResourceCache>,
    outbound: Arc<Outbound>,
    known: ArcSwap<Known>,
    /// Held by whoever reads them anew.
    reading: Mutex<()>,
}

impl Source {
    pub(super) fn new(configurations: Arc<ResourceCache>, outbound: Arc<Outbound>) -> Self {
        Self { configurations, outbound, known: ArcSwap::default(), reading: Mutex::default() }
    }

    /// All webhooks. They are read again when a configuration changed, and else shared.
    pub(super) fn hooks(&self) -> Arc<[Arc<Hook>]> {
        let known = self.known.load();
        if known.changed == Some(self.configurations.changed()) {
            return known.hooks.clone();
        }
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the contents: what changes meanwhile is read the next time.
        let changed = self.configurations.changed();
        let known = self.known.load();
        if known.changed != Some(changed) {
            self.known.store(Arc::new(Known { changed: Some(changed), hooks: self.read(&known.hooks) }));
        }
        self.known.load().hooks.clone()
    }

    fn read(&self, before: &[Arc<Hook>]) -> Arc<[Arc<Hook>]> {
        let mut hooks = Vec::new();
        let peer = |config: &Value| -> Result<Arc<Peer>, Unusable> {
            // One whose place and certificates stay the same keeps its connections.
            let kept = before.iter().filter(|hook| hook.config == *config).find_map(|hook| hook.peer.as_ref().ok());
            kept.map_or_else(|| Peer::new(config, &self.outbound).map(Arc::new), |peer| Ok(peer.clone()))
        };
        // In the order of keys, which is that of names.
        self.configurations.for_each(&Filter::all(), |object| {
            let configuration = object.value();
            let name = str_at(&configuration, &["metadata", "name"]);
            let mut names = HashMap::<&str, usize>::new();
            for webhook in list_at(&configuration, &["webhooks"]) {
                let nth = names.entry(str_at(webhook, &["name"])).or_default();
                hooks.push(Arc::new(Hook::read(name, webhook, *nth, peer)));
                *nth += 1;
            }
        });
        hooks.into()
    }
}
