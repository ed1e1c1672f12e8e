//! Which objects a watch is about that selects fields of custom resources which a webhook converts: what the fields are
//! is known only when an object is converted, so that the cache cannot choose. An object that comes to be selected is
//! added, and one that is no longer deleted, as upstream's cache says it
//! (k8s.io/apiserver/pkg/storage/cacher/cache_watcher.go).

use std::collections::HashMap;

use crate::call::Call;
use crate::status::ApiError;
use scheme::selector::FieldSelector;
use storage::EventKind;
use storage::watch_cache::WatchItem;

/// The objects of one watch.
#[derive(Debug)]
pub struct Selected {
    fields: FieldSelector,
    /// Whether each was selected when it was seen last, by uid.
    known: HashMap<String, bool>,
}

impl Selected {
    /// Nothing is seen yet.
    pub fn new(fields: FieldSelector) -> Self {
        Self { fields, known: HashMap::new() }
    }

    /// What is told of an item, if anything.
    ///
    /// # Errors
    /// 500 where an object cannot be converted.
    pub async fn told(&mut self, call: &Call, item: WatchItem) -> Result<Option<WatchItem>, ApiError> {
        let WatchItem::Event { kind, object } = item else { return Ok(Some(item)) };
        let object = call.converted_one(object).await?;
        let is = self.fields.matches(|field| object.field(field));
        let kind = self.event(object.uid(), kind, is);
        Ok(kind.map(|kind| WatchItem::Event { kind, object }))
    }

    /// Of an object that was not seen before nobody knows whether it was selected: the watch began later.
    fn event(&mut self, uid: &str, kind: EventKind, is: bool) -> Option<EventKind> {
        if kind == EventKind::Deleted {
            return self.known.remove(uid).unwrap_or(is).then_some(kind);
        }
        let was = self.known.insert(uid.to_owned(), is).unwrap_or(kind != EventKind::Added);
        match (was, is) {
            (true, true) => Some(EventKind::Modified),
            (false, true) => Some(EventKind::Added),
            (true, false) => Some(EventKind::Deleted),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_and_go_as_they_are_selected() {
        use EventKind::{Added, Deleted, Modified};
        let mut selected = Selected::new(FieldSelector::default());
        for (uid, kind, is, told) in [
            ("a", Added, false, None),
            ("a", Modified, false, None),
            ("a", Modified, true, Some(Added)),
            ("a", Modified, true, Some(Modified)),
            ("a", Modified, false, Some(Deleted)),
            ("a", Deleted, false, None),
            ("b", Added, true, Some(Added)),
            ("b", Deleted, true, Some(Deleted)),
            // What was there before the watch.
            ("c", Modified, true, Some(Modified)),
            ("d", Modified, false, Some(Deleted)),
            ("e", Deleted, true, Some(Deleted)),
            ("e", Deleted, false, None),
        ] {
            assert_eq!(selected.event(uid, kind, is), told, "{uid} {kind:?} {is}");
        }
    }
}
