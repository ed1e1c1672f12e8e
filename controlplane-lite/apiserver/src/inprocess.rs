//! A `kube::Client` straight into the server: the same filters and verbs, no socket, no TLS.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt as _};
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};

use super::body::{Body, boxed};
use super::server::Server;
use auth::authn::UserInfo;

/// Who an in-process request comes from. An extension of the request; nothing from outside can set it.
#[derive(Debug, Clone)]
pub struct InProcessUser(pub Arc<UserInfo>);

/// The `User-Agent` of a part of the control plane: that of upstream's program in its place, by which its fields are
/// owned.
fn component(username: &str) -> &'static str {
    match username {
        "system:kube-scheduler" => "kube-scheduler",
        "system:kube-controller-manager" => "kube-controller-manager",
        name if name.starts_with("system:serviceaccount:kube-system:") => "kube-controller-manager",
        name if name.starts_with("system:node:") => "kubelet",
        _ => "kube-apiserver",
    }
}

/// The transport.
#[derive(Debug, Clone)]
pub struct Transport {
    server: Arc<Server>,
    user: InProcessUser,
    agent: HeaderValue,
}

impl Transport {
    /// A transport on behalf of `user`.
    pub fn new(server: Arc<Server>, user: UserInfo) -> Self {
        let agent = HeaderValue::from_static(component(&user.username));
        Self { server, user: InProcessUser(Arc::new(user)), agent }
    }
}

impl tower::Service<Request<kube::client::Body>> for Transport {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let mut request = request.map(boxed);
        request.extensions_mut().insert(self.user.clone());
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.agent.clone());
        let server = self.server.clone();
        async move { Ok(super::service::handle(server, request).await) }.boxed()
    }
}
