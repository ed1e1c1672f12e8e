//! What lists and new watches keep of the past. They refer to objects where the caches have them, until they are sent;
//! what is rewritten meanwhile is theirs alone. So a long one holds room for all of it, as long as it is not sent.

use std::sync::{Arc, Mutex, PoisonError};

use super::flow::{Level, Permit, too_many};
use super::server::Server;
use super::status::ApiError;

/// Lists of so many bytes or less hold nothing: all that may be answered at once keep a few megabytes.
pub const SHORT_LIST: usize = 64 * 1024;
/// The same for what a watch begins with, of which there may be tens of thousands.
pub const SHORT_START: usize = 16 * 1024;

/// Whose share of the server a request takes. An extension of requests from outside.
#[derive(Debug, Clone)]
pub struct Payer {
    /// The pools.
    pub level: Level,
    /// The name there.
    pub name: Box<str>,
}

/// Room that an answer holds until it is sent, or until it keeps nothing of the past any more. An extension of
/// responses.
#[derive(Debug, Clone)]
pub struct Loan(Arc<Mutex<Option<Permit>>>);

impl Loan {
    fn new(permit: Permit) -> Self {
        Self(Arc::new(Mutex::new(Some(permit))))
    }

    /// Ends it before the answer does.
    pub fn give_back(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Whether somebody waits for it.
    pub fn is_wanted(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(Permit::is_wanted)
    }
}

/// How much room something needs, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// What keeps no more than this holds none.
    pub short: usize,
    /// What is taken before it is made, for what is nowhere yet; 0 for what is in the caches anyhow.
    pub expected: usize,
}

/// Makes what keeps `bytes` of the past, with room for them when they are more than `short`. Who has to wait for it
/// keeps nothing meanwhile, and makes it anew; what it has become is held by the same room. More than a user's share
/// takes all of that.
///
/// # Errors
/// Those of `make`; 429 when there is no room for a while.
pub async fn hold<T, F>(
    server: &Server,
    payer: Option<&Payer>,
    room: Room,
    make: impl Fn() -> F,
    bytes: impl Fn(&T) -> usize,
) -> Result<(T, Option<Loan>), ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let Some(payer) = payer else { return Ok((make().await?, None)) };
    let pool = server.flow.pools(payer.level).snapshots();
    let expected = pool.portion(room.expected);
    let mut before = None;
    if expected > 0 {
        before = Some(pool.take(&payer.name, expected).await.ok_or_else(too_many)?);
    }
    let made = make().await?;
    let wanted = bytes(&made);
    if wanted <= room.short {
        return Ok((made, None));
    }
    let amount = pool.portion(wanted);
    if let Some(permit) = before.take().filter(|_| amount <= expected) {
        return Ok((made, Some(Loan::new(permit.at_most(amount)))));
    }
    if let Some(permit) = pool.try_take(&payer.name, amount) {
        return Ok((made, Some(Loan::new(permit))));
    }
    drop(made);
    let permit = pool.take(&payer.name, amount).await.ok_or_else(too_many)?;
    Ok((make().await?, Some(Loan::new(permit))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::body::{Body, MAX_BODY, boxed, full};
    use crate::flow::Use;
    use crate::serve::{Connection, PeerCertificate};
    use crate::testing::{Ca, admin, config, delete, expect, get, post};
    use crate::{ApiServer, service};
    use auth::authn::x509::ClientCertificate;
    use futures::FutureExt as _;
    use http::{Request, Response, StatusCode};
    use http_body_util::BodyExt as _;
    use hyper_util::rt::TokioIo;
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    use serde_json::json;
    use std::pin::Pin;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    const MIB: usize = 1 << 20;
    /// A user's share.
    const SHARE: usize = 64 * MIB;

    /// A server with ten megabytes of objects, and who asks for them over a connection.
    struct World {
        ca: Ca,
        server: ApiServer,
        connection: Arc<Connection>,
    }

    impl World {
        async fn new() -> Self {
            let ca = Ca::default();
            let server = ApiServer::new(config(&ca)).await.unwrap();
            let binding = json!({
                "metadata": {"name": "users"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "users"}],
            });
            let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
            expect(post(&server.client(admin()), path, &binding).await, StatusCode::CREATED);
            let maps = server.server().registry.get("", "configmaps").unwrap();
            for n in 0..10 {
                let name = format!("m{n}");
                let map = json!({
                    "metadata": {"name": name, "namespace": "default"}, "data": {"k": "x".repeat(MIB)},
                });
                maps.create("default", &name, map, false).await.unwrap();
            }
            server.server().registry.fresh().await.unwrap();
            Self { ca, server, connection: Arc::default() }
        }

        async fn ask(&self, user: &str, path: &str) -> Response<Body> {
            let mut request = Request::get(path).body(full("")).unwrap();
            request.extensions_mut().insert(self.certificate(user));
            request.extensions_mut().insert(self.connection.trust());
            service::handle(self.server.server().clone(), request).await
        }

        fn certificate(&self, user: &str) -> PeerCertificate {
            let (certificate, _) = self.ca.issue(user, "users");
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            PeerCertificate(Arc::new(ClientCertificate::read(&certificate)))
        }

        /// The client's end of a WebSocket, behind the first line of the answer.
        async fn socket(&self, user: &str, path: &str) -> DuplexStream {
            let (near, mut far) = tokio::io::duplex(64 * 1024);
            let (server, certificate, trust) =
                (self.server.server().clone(), self.certificate(user), self.connection.trust());
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let mut request = request.map(boxed);
                request.extensions_mut().insert(certificate.clone());
                request.extensions_mut().insert(trust.clone());
                let answer = service::handle(server.clone(), request);
                async move { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(near), service);
            tokio::spawn(connection.with_upgrades());
            let key = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
            let upgrade = format!("host: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n{key}");
            far.write_all(format!("GET {path} HTTP/1.1\r\n{upgrade}\r\n\r\n").as_bytes()).await.unwrap();
            let mut status = [0; 12];
            far.read_exact(&mut status).await.unwrap();
            assert_eq!(&status, b"HTTP/1.1 101");
            far
        }

        /// Answers of which nothing is taken, as many as there are until one is refused.
        async fn unread(&self, user: &str, path: &str) -> Vec<Response<Body>> {
            let mut unread = Vec::new();
            loop {
                let answer = self.ask(user, path).await;
                match answer.status() {
                    StatusCode::OK => unread.push(answer),
                    StatusCode::TOO_MANY_REQUESTS => return unread,
                    other => panic!("{other}"),
                }
                assert!(unread.len() < 100, "there is no end");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lists_that_are_not_read_keep_a_share_at_most() {
        let world = World::new().await;
        let mut unread = world.unread("jane", MAPS).await;
        // Each may be of other objects than the last, all of which were rewritten.
        let kept = unread.len() * 10 * MIB;
        assert!((SHARE - 11 * MIB..=SHARE).contains(&kept), "{kept}");
        assert_eq!(world.ask("joe", MAPS).await.status(), StatusCode::OK, "somebody else");
        assert_eq!(world.ask("jane", &format!("{MAPS}?limit=1")).await.status(), StatusCode::OK, "what fits");
        let mut one = unread.pop().unwrap().into_body();
        while one.frame().await.is_some() {}
        drop(one);
        assert_eq!(world.ask("jane", MAPS).await.status(), StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn what_watches_begin_with_is_a_list() {
        let world = World::new().await;
        let path = format!("{MAPS}?watch=true");
        let mut unread = world.unread("jane", &path).await;
        let kept = unread.len() * 10 * MIB;
        assert!((SHARE - 11 * MIB..=SHARE).contains(&kept), "{kept}");
        let now = format!("{path}&resourceVersion={}", world.server.server().registry.cache().revision());
        assert_eq!(world.ask("jane", &now).await.status(), StatusCode::OK, "it begins with nothing");
        let body = unread[0].body_mut();
        let (mut read, mut frames) = (0, 0);
        while let Some(frame) = body.frame().now_or_never() {
            read += frame.unwrap().unwrap().into_data().unwrap().len();
            frames += 1;
        }
        assert!(read > 10 * MIB && frames > 10, "{read} {frames}");
        assert_eq!(world.ask("jane", &path).await.status(), StatusCode::OK, "the other is a watch like any");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_nothing_matches_holds_nothing_for_long() {
        let world = World::new().await;
        for none in ["labelSelector=app%3Dnothing", "fieldSelector=metadata.name!%3Dm9%2Cmetadata.namespace!%3Ddefault"]
        {
            let mut open = world.unread("jane", &format!("{MAPS}?watch=true&{none}")).await;
            assert_eq!(world.ask("jane", MAPS).await.status(), StatusCode::TOO_MANY_REQUESTS, "nothing was asked yet");
            for answer in &mut open {
                assert!(answer.body_mut().frame().now_or_never().is_none(), "{none}");
            }
            assert_eq!(world.ask("jane", MAPS).await.status(), StatusCode::OK, "{none}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_does_not_wait_for_a_websocket_that_is_not_read() {
        let world = World::new().await;
        let path = format!("{MAPS}?watch=true");
        let mut unread = Vec::new();
        for _ in 0..SHARE / (11 * MIB) + 1 {
            unread.push(world.socket("jane", &path).await);
        }
        let mut list = Box::pin(world.ask("jane", MAPS));
        assert!(futures::poll!(&mut list).is_pending());
        let answers = &world.server.server().flow.answers;
        (0..3).for_each(|_| answers.sweep());
        assert_eq!(list.await.status(), StatusCode::OK);
        // They ended; who reads goes on.
        drop(unread);
        let mut read = world.socket("jane", &path).await;
        let mut all = vec![0; 10 * MIB];
        for part in all.chunks_mut(MIB) {
            read.read_exact(part).await.unwrap();
            answers.sweep();
        }
    }

    /// Returns when a request waits for what was taken, without which it is not to end.
    async fn wants(taken: &Permit, request: &mut Pin<Box<impl Future<Output = Response<Body>>>>) {
        while !taken.is_wanted() {
            assert!(futures::poll!(&mut *request).is_pending(), "it asked for nothing");
            tokio::task::yield_now().await;
        }
    }

    /// Lists of what a server that was started anew does not remember, and nobody sees any more.
    #[tokio::test]
    async fn what_is_read_from_the_store_has_room_before() {
        let mut world = World::new().await;
        let at = world.server.server().registry.cache().revision();
        let first = expect(get(&world.server.client(admin()), &format!("{MAPS}?limit=1")).await, StatusCode::OK);
        let token = first["metadata"]["continue"].as_str().unwrap();
        expect(delete(&world.server.client(admin()), MAPS).await, StatusCode::OK);
        let store = world.server.server().registry.cache().store().clone();
        world.server = ApiServer::new(crate::Config { store, ..config(&world.ca) }).await.unwrap();
        let pools = world.server.server().flow.pools(Level::Workloads);
        let page = format!("{MAPS}?resourceVersion={at}&limit=1000");
        let body = world.ask("jane", &page).await.into_body().collect().await.unwrap().to_bytes();
        assert!(body.len() > 10 * MIB, "{}", body.len());

        let room = pools.room("jane", 2 * MAX_BODY).await.unwrap();
        for past in [
            page.clone(),
            format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=Exact"),
            format!("{MAPS}?limit=2&continue={token}"),
        ] {
            wants(&room, &mut Box::pin(world.ask("jane", &past))).await;
        }
        for now in ["", "?resourceVersion=0&limit=5", &format!("?resourceVersion={at}"), "?limit=5"] {
            assert_eq!(world.ask("jane", &format!("{MAPS}{now}")).await.status(), StatusCode::OK, "{now}");
        }
        drop(room);

        let snapshots = pools.snapshots().try_take("jane", SHARE).unwrap();
        let none = format!("{page}&fieldSelector=metadata.name%3Dnone");
        let mut none = Box::pin(world.ask("jane", &none));
        wants(&snapshots, &mut none).await;
        drop(snapshots);
        assert_eq!(none.await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_request_is_weighed_when_it_has_its_place() {
        let world = World::new().await;
        let pools = world.server.server().flow.pools(Level::Workloads);
        let mut places = Vec::new();
        while let Some(place) = pools.place("jane", Use::Read).now_or_never() {
            places.push(place.unwrap());
        }
        let room = pools.room("jane", 2 * MAX_BODY).await.unwrap();
        let mut list = Box::pin(world.ask("jane", "/api/v1/namespaces/default/secrets?pretty=true"));
        assert!(futures::poll!(&mut list).is_pending());
        let secrets = world.server.server().registry.get("", "secrets").unwrap();
        let metadata = json!({"name": "s", "namespace": "default", "annotations": {"note": "x".repeat(40_000)}});
        secrets.create("default", "s", json!({"metadata": metadata}), false).await.unwrap();
        world.server.server().registry.fresh().await.unwrap();
        drop(places);
        wants(&room, &mut list).await;
        drop(room);
        assert_eq!(list.await.status(), StatusCode::OK);
    }
}
