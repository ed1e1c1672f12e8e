//! A client whose credentials can be exchanged while it is in use: requests that
//! come later go out with the new ones, on connections of their own; watches and
//! answers that are under way end on the old.

use std::sync::{Arc, PoisonError, RwLock};

use http::Request;
use kube::Client;
use kube::client::Body;

/// The exchangeable part.
#[derive(Clone)]
pub struct Switch {
    current: Arc<RwLock<Client>>,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch").finish_non_exhaustive()
    }
}

impl Switch {
    /// Starts with `first`. Needs a running runtime.
    pub fn new(first: Client) -> (Self, Client) {
        let switch = Self { current: Arc::new(RwLock::new(first)) };
        let current = switch.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let client = current.current();
            async move { client.send(request).await }
        });
        (switch, Client::new(service, "default"))
    }

    fn current(&self) -> Client {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests from now on go through `next`.
    pub fn exchange(&self, next: Client) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::StreamExt;
    use http::Response;
    use http_body_util::{BodyExt, Full, StreamBody};
    use hyper::body::Frame;

    /// A server that answers with its name, `/watch` bit by bit.
    fn server(name: &'static str, more: tokio::sync::mpsc::UnboundedReceiver<&'static str>) -> Client {
        let more = Arc::new(std::sync::Mutex::new(Some(more)));
        let service = tower::service_fn(move |request: Request<Body>| {
            let stream = if request.uri().path() == "/watch" { more.lock().unwrap().take() } else { None };
            async move {
                let body = match stream {
                    Some(bits) => {
                        let bits = tokio_stream::wrappers::UnboundedReceiverStream::new(bits);
                        let frames = bits.map(|bit| Ok::<_, std::convert::Infallible>(Frame::data(bit.into())));
                        StreamBody::new(frames).boxed_unsync()
                    }
                    None => Full::new(name.into()).boxed_unsync(),
                };
                Ok::<_, std::convert::Infallible>(Response::new(body))
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn a_watch_outlives_the_exchange() {
        let (old_more, old_bits) = tokio::sync::mpsc::unbounded_channel();
        let (_new_more, new_bits) = tokio::sync::mpsc::unbounded_channel();
        let (switch, client) = Switch::new(server("old", old_bits));
        let get = |path: &'static str| {
            let client = client.clone();
            async move { client.send(Request::get(path).body(Body::empty()).unwrap()).await.unwrap().into_body() }
        };
        let text = async |body: Body| String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert_eq!(text(get("/").await).await, "old");
        let watch = get("/watch").await;
        old_more.send("a").unwrap();
        switch.exchange(server("new", new_bits));
        assert_eq!(text(get("/").await).await, "new");
        old_more.send("b").unwrap();
        drop(old_more);
        assert_eq!(text(watch).await, "ab");
    }
}
