//! Stores for tests, here and in dependents: one that does what another does, but for what a test says.

use std::sync::Arc;

use async_trait::async_trait;

use super::store::{Entry, EventStream, Key, Page, Precondition, Put, Range, Revision, Store, StoreError};

/// A store in front of another one. What it does not say itself the other one does.
#[async_trait]
pub trait Delegate: std::fmt::Debug + Send + Sync + 'static {
    /// The store behind it.
    fn inner(&self) -> Arc<dyn Store>;

    /// What [`Store::list`] does.
    async fn on_list(&self, range: Range) -> Result<Page, StoreError> {
        self.inner().list(range).await
    }

    /// What [`Store::put`] does.
    async fn on_put(&self, put: Put) -> Result<Revision, StoreError> {
        self.inner().put(put).await
    }

    /// What [`Store::watch`] does.
    async fn on_watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        self.inner().watch(prefix, after).await
    }
}

#[async_trait]
impl<D: Delegate> Store for D {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.inner().get(key).await
    }
    async fn list(&self, range: Range) -> Result<Page, StoreError> {
        self.on_list(range).await
    }
    async fn put(&self, put: Put) -> Result<Revision, StoreError> {
        self.on_put(put).await
    }
    async fn delete(&self, key: &Key, precondition: Precondition) -> Result<(Revision, Entry), StoreError> {
        self.inner().delete(key, precondition).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        self.on_watch(prefix, after).await
    }
    async fn request_progress(&self) -> Result<(), StoreError> {
        self.inner().request_progress().await
    }
    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.inner().compact(before).await
    }
    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.inner().current_revision().await
    }
    async fn close(&self) -> Result<(), StoreError> {
        self.inner().close().await
    }
}
