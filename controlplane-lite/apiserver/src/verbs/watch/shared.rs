//! Events that have to be made of a decoded object: in a Table, as metadata, in another version. Each is made once for all
//! watches that want the same, as those are that are sent as they are stored.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::negotiate::Accept;
use scheme::Kind;
use scheme::table::IncludeObject;
use storage::{EventKind, Object};

/// Events that are kept for other watches.
const KEPT: usize = 64;
/// Bytes of them, the newest aside.
const KEPT_BYTES: usize = 1 << 20;

/// What a watch wants to be told an object in.
#[derive(Debug, Clone)]
pub struct Form {
    /// As it is served.
    pub kind: Arc<Kind>,
    /// The shape.
    pub accept: Accept,
    /// What a Table's row has of the object.
    pub include: IncludeObject,
    /// Whether a Table has its columns.
    pub columns: bool,
    /// The second that a Table counts ages to.
    pub second: i64,
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        let of = |form: &Self| (form.accept, form.include, form.columns, form.second);
        Arc::ptr_eq(&self.kind, &other.kind) && of(self) == of(other)
    }
}

#[derive(Debug)]
struct Entry {
    /// Which object: its place in memory is nobody else's as long as this is here.
    object: Weak<Object>,
    event: EventKind,
    form: Form,
    frame: Arc<OnceCell<Bytes>>,
}

impl Entry {
    fn length(&self) -> usize {
        self.frame.get().map_or(0, Bytes::len)
    }
}

/// The events made last.
#[derive(Debug, Default)]
pub struct Shared(Mutex<VecDeque<Entry>>);

impl Shared {
    /// Where the event is, or will be when one of those who want it has made it.
    pub fn frame(&self, object: &Arc<Object>, event: EventKind, form: &Form) -> Arc<OnceCell<Bytes>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |entry: &&Entry| {
            std::ptr::eq(entry.object.as_ptr(), Arc::as_ptr(object)) && entry.event == event && entry.form == *form
        };
        // Those that are wanted were mostly made a moment ago.
        if let Some(entry) = kept.iter().rev().find(is_same) {
            return entry.frame.clone();
        }
        while kept.len() >= KEPT || kept.iter().map(Entry::length).sum::<usize>() > KEPT_BYTES {
            kept.pop_front();
        }
        let frame = Arc::new(OnceCell::new());
        kept.push_back(Entry { object: Arc::downgrade(object), event, form: form.clone(), frame: frame.clone() });
        frame
    }

    /// Forgets all: watches that keep up have taken what concerns them.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::negotiate::{Format, Shape};
    use storage::Revision;

    fn object() -> Arc<Object> {
        let json = br#"{"metadata":{"name":"a"}}"#;
        Arc::new(Object::parse(json, Revision(1), EventKind::Added, &Arc::from([])).unwrap())
    }

    fn form(shape: Shape) -> Form {
        let kind = scheme::builtin().by_gvk("", "v1", "Pod").unwrap().clone();
        let accept = Accept { format: Format::Json, shape, v1beta1: false };
        Form { kind, accept, include: IncludeObject::Metadata, columns: false, second: 0 }
    }

    #[test]
    fn who_wants_the_same_shares_it() {
        let (shared, object, form) = (Shared::default(), object(), form(Shape::Metadata));
        let first = shared.frame(&object, EventKind::Added, &form);
        let same = |object: &Arc<Object>, event, form: &Form| Arc::ptr_eq(&first, &shared.frame(object, event, form));
        assert!(same(&object, EventKind::Added, &form.clone()));
        assert!(!same(&object, EventKind::Deleted, &form));
        assert!(!same(&Arc::new(Object::clone(&object)), EventKind::Added, &form));
        assert!(!same(&object, EventKind::Added, &Form { columns: true, ..form.clone() }));
        assert!(!same(&object, EventKind::Added, &Form { second: 1, ..form.clone() }));
        assert!(!same(&object, EventKind::Added, &self::form(Shape::Table)));
        shared.clear();
        assert!(!same(&object, EventKind::Added, &form));
    }

    #[test]
    fn little_is_kept() {
        let (shared, form) = (Shared::default(), form(Shape::Metadata));
        for _ in 0..1000 {
            shared.frame(&object(), EventKind::Added, &form);
        }
        assert!(shared.0.lock().unwrap().len() <= KEPT);
        for _ in 0..5 {
            let frame = shared.frame(&object(), EventKind::Added, &form);
            frame.set(Bytes::from(vec![0; KEPT_BYTES + 1])).unwrap();
        }
        let long = |entry: &&Entry| entry.length() > 0;
        assert_eq!(shared.0.lock().unwrap().iter().filter(long).count(), 1);
    }
}
