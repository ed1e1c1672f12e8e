//! Storage: the revisioned [`Store`] contract, its backends, stored [`object`]s
//! and the [`watch_cache`] in front of them. Knows nothing of kinds beyond the
//! paths of their selectable fields, and nothing of HTTP.

mod config;
mod etcd;
mod fanout;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod memory;
mod object;
mod redb;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod watch_cache;

pub use config::{DatastoreConfig, EtcdConfig, EtcdTls, RedbConfig, open};
pub use object::{EventKind, FieldPath, Line, Object, ObjectError, encode_stored};
pub use store::{
    Durability, Entry, Event, EventStream, Key, Page, Precondition, Put, Range, Revision, Store, StoreError,
};
pub use watch_cache::{
    CacheError, Filter, ListQuery, Listing, ResourceCache, ResourceSpec, WatchCache, WatchRequest, WatchStart,
};

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}
