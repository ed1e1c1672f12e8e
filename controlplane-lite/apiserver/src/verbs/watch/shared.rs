//! Events that have to be made of a decoded object: in a Table, as metadata, in another version. Each is made once for
//! all watches that want the same, as those are that are sent as they are stored. A large one is shared as long as
//! anybody sends it: many watches that do not read theirs keep it once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::flow::LARGE_BODY;
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
    made: Weak<Made>,
    /// For watches that come to it later.
    kept: Option<Arc<Made>>,
}

/// An event that is made by the first who wants it.
pub type Made = OnceCell<Bytes>;

impl Entry {
    fn length(&self) -> usize {
        self.kept.as_ref().and_then(|made| made.get()).map_or(0, Bytes::len)
    }
}

/// The bytes of an event that is being sent.
struct Sent(Arc<Made>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        self.0.get().map_or(&[], |bytes| bytes)
    }
}

/// What is sent of an event that was made. Others find it as long as a large one is somewhere on its way.
pub fn sent(made: &Arc<Made>) -> Option<Bytes> {
    let bytes = made.get()?;
    Some(if bytes.len() < LARGE_BODY { bytes.clone() } else { Bytes::from_owner(Sent(made.clone())) })
}

/// Keeps some entries no longer, and forgets those that nobody sends or makes either.
fn let_go(entries: &mut VecDeque<Entry>, kept: usize) {
    let mut bytes = entries.iter().map(Entry::length).sum::<usize>();
    let mut count = entries.iter().filter(|entry| entry.kept.is_some()).count();
    for entry in entries.iter_mut().filter(|entry| entry.kept.is_some()) {
        if count <= kept && bytes <= KEPT_BYTES {
            break;
        }
        bytes -= entry.length();
        count -= 1;
        entry.kept = None;
    }
    entries.retain(|entry| entry.made.strong_count() > 0);
}

/// The events made last.
#[derive(Debug, Default)]
pub struct Shared(Mutex<VecDeque<Entry>>);

impl Shared {
    /// Where the event is, or will be when one of those who want it has made it.
    pub fn frame(&self, object: &Arc<Object>, event: EventKind, form: &Form) -> Arc<Made> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |entry: &&Entry| {
            std::ptr::eq(entry.object.as_ptr(), Arc::as_ptr(object)) && entry.event == event && entry.form == *form
        };
        // Those that are wanted were mostly made a moment ago.
        if let Some(made) = entries.iter().rev().find(is_same).and_then(|entry| entry.made.upgrade()) {
            return made;
        }
        let_go(&mut entries, KEPT - 1);
        let made = Arc::new(Made::new());
        entries.push_back(Entry {
            object: Arc::downgrade(object),
            event,
            form: form.clone(),
            made: Arc::downgrade(&made),
            kept: Some(made.clone()),
        });
        made
    }

    /// Keeps nothing: watches that keep up have taken what concerns them.
    pub fn clear(&self) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let_go(&mut entries, 0);
        entries.shrink_to_fit();
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
        assert!(same(&object, EventKind::Added, &form), "somebody is still making it");
    }

    #[test]
    fn what_is_large_is_shared_as_long_as_it_is_sent() {
        let (shared, form) = (Shared::default(), form(Shape::Metadata));
        let make = |object: &Arc<Object>, length: usize| {
            let made = shared.frame(object, EventKind::Added, &form);
            made.set(Bytes::from(vec![b'x'; length])).unwrap();
            sent(&made).unwrap()
        };
        let (large, small) = (object(), object());
        let (first, short) = (make(&large, KEPT_BYTES + 1), make(&small, 10));
        for _ in 0..1000 {
            shared.frame(&object(), EventKind::Added, &form);
        }
        shared.clear();
        let same = sent(&shared.frame(&large, EventKind::Added, &form)).unwrap();
        assert_eq!((same.as_ptr(), same.len()), (first.as_ptr(), KEPT_BYTES + 1));
        assert!(shared.frame(&small, EventKind::Added, &form).get().is_none(), "made anew");
        // A part of it, as it lies in a connection, is enough.
        let part = first.slice(7..8);
        drop((first, same, short));
        shared.clear();
        assert_eq!(shared.0.lock().unwrap().len(), 1);
        drop(part);
        shared.clear();
        assert!(shared.0.lock().unwrap().is_empty());
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
