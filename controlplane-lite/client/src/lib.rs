//! What every API client of the control plane is built from: list and watch
//! ([`reflect`]) into a [`Store`], a [`workqueue`], [`events`], the [`status`] of all of them, and small facts
//! about API objects ([`objects`], [`tolerations`], [`text`]). Decides nothing, and knows
//! neither the API server nor its storage.

pub mod decode;
pub mod events;
pub mod objects;
pub mod reflect;
mod segment;
mod status;
mod store;
pub mod text;
pub mod tolerations;
pub mod workqueue;

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

pub use decode::Unreadable;
pub use reflect::{Filter, Objects, Observer, Sink, reflect};
pub use segment::segment;
pub use status::Status;
pub use store::{Change, ObjectKey, Store, revision};

/// An `Api` for the namespace of `key`.
pub fn api_in<K>(client: &Client, key: &ObjectKey) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), &key.namespace)
}
