//! containerd's namespaces: which one is Kubernetes', and how a request names it.

use tonic::Request;
use tonic::metadata::MetadataValue;

/// The namespace of everything CRI does.
pub(crate) const K8S_NAMESPACE: &str = "k8s.io";

/// A request within [`K8S_NAMESPACE`].
pub(crate) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(K8S_NAMESPACE));
    request
}
