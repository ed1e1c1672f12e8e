//! What every request passes, in order: request info, metrics, panics, authentication, impersonation, limits,
//! authorization, deadline, and then the router. (Audit will wrap the router here.)

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use tracing::error;

use super::answer;
use super::body::{self, Body};
use super::call::Call;
use super::deadline;
use super::flow::{self, Held, Level, Pools, Use};
use super::inprocess::InProcessUser;
use super::metrics;
use super::options;
use super::priority::Class;
use super::request_info::{self, Query, RequestInfo};
use super::serve::{PeerCertificate, Trust};
use super::server::Server;
use super::snapshots::Payer;
use super::status::{ApiError, Subject};
use super::tunnel;
use super::verbs::list;
use auth::authn::{Credentials, UserInfo};
use auth::authz::Attributes;
use storage::Object;
use storage::watch_cache::Filter;

/// A request that does not last may take this long.
const DEADLINE: Duration = Duration::from_secs(60);

/// Answers a request, whatever it is.
pub async fn handle(server: Arc<Server>, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let query = Query::parse(request.uri().query());
    let info = request_info::parse(request.method(), request.uri().path(), &query);
    // Which of its paths are tunnels, only the server of an aggregated API knows.
    let tunnel = tunnel::wants_upgrade(request.headers()) && server.aggregation.of(&info).is_some();
    let long = info.long_running() || tunnel;
    let labels = metrics::Labels::new(&server.registry.served().scheme, &info);
    let in_flight = server.metrics.begin(&labels, long);
    let to = answer::Taker {
        many: request.version() == http::Version::HTTP_2,
        connection: request.extensions().get::<Trust>().cloned(),
    };
    let noted = Noted::default();
    let work = AssertUnwindSafe(filtered(&server, request, &info, &query, long, &noted)).catch_unwind();
    let (answer, warnings) = super::warnings::collect(work).await;
    let mut response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => {
            if let Some(text) = failure.internal_text() {
                error!(verb = info.verb, path = info.path, error = text, "request failed");
            }
            body::failure(&failure)
        }
        Err(panic) => {
            server.metrics.panicked();
            error!(verb = info.verb, path = info.path, panic = storage::panic_text(&*panic), "handler panicked");
            body::failure(&ApiError::plain(
                500,
                "This request caused apiserver to panic. Look in the logs for details.",
            ))
        }
    };
    super::respond::warn(&mut response, &warnings);
    if let Some(class) = noted.class.get() {
        class.tell(response.headers_mut());
    }
    if !response.headers().contains_key(header::CACHE_CONTROL) {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    server.metrics.end(labels, response.status().as_u16(), started.elapsed());
    drop(in_flight);
    // Tunnels and logs may pause as long as they like; a watch that nobody reads would collect events. What is no
    // tunnel or log after all is an answer like any other.
    let begun = response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if long && info.verb != "watch" && begun {
        return response;
    }
    let kept = answer::kept(&response);
    let held = noted.held.into_inner().unwrap_or_else(PoisonError::into_inner);
    server.flow.answers.send(response, held.of_answer(kept), to)
}

/// What is noted of a request on its way, for its answer.
#[derive(Debug, Default)]
struct Noted {
    held: Mutex<Held>,
    /// Unknown of whom nobody knows.
    class: OnceLock<Arc<Class>>,
}

async fn filtered(
    server: &Arc<Server>,
    request: Request<Body>,
    info: &RequestInfo,
    query: &Query,
    long: bool,
    noted: &Noted,
) -> Result<Response<Body>, ApiError> {
    // Apart, because a reference to the parts may be held while waiting, and one to the body may not.
    let (mut parts, body) = request.into_parts();
    readable(&parts.headers)?;
    let user = authenticate(server, &parts, info).await?;
    if let Some(trust) = parts.extensions.get::<Trust>()
        && !user.in_group("system:unauthenticated")
    {
        trust.give();
    }
    // Whose share a request takes is decided before impersonation: who may act for others is still one client.
    let inside = parts.extensions.get::<InProcessUser>().is_some();
    let level = Level::of(&user);
    let share =
        (!inside).then(|| Share { level, pools: server.flow.pools(level), payer: flow::payer(&user).to_owned() });
    let user = super::impersonation::resolve(&parts.headers, user, &*server.authz)?;
    // Who is asking is settled: nobody behind this, and no backend, is to read it otherwise.
    super::impersonation::strip(&mut parts.headers);
    parts.headers.remove(header::AUTHORIZATION);
    // A tunnel or log waits for nothing that a level could give.
    if (!long || info.verb == "watch")
        && let Some(class) = server.priority.classify(&user, info)
    {
        drop(noted.class.set(class));
    }
    authorize(server, &user, info, query)?;
    if let Some(share) = share.as_ref().filter(|_| matches!(info.verb.as_str(), "list" | "watch" | "deletecollection"))
    {
        parts.extensions.insert(Payer { level: share.level, name: share.payer.as_str().into() });
    }
    if let Some(share) = share.as_ref().filter(|_| info.verb == "watch") {
        // The watch's own, however it is spoken.
        parts.extensions.insert(Arc::new(share.pools.watch(&share.payer)?));
    }
    if long {
        if let Some(trust) = parts.extensions.get::<Trust>().filter(|_| info.verb != "watch") {
            trust.may_pause();
        }
        let request = Request::from_parts(parts, body);
        return super::router::dispatch(server, request, info.clone(), query.clone(), user).await;
    }
    let limit = timeout(query)?;
    // Apart from what surrounds it, which would be moved about with all of it.
    let work = limited(server, Request::from_parts(parts, body), (info, query), user, share, &noted.held).boxed();
    deadline::within(limit, work)
        .await
        .unwrap_or_else(|_| Err(ApiError::timeout("Timeout: request did not complete within the allotted timeout")))
}

/// The part of the server that a request may take.
struct Share<'a> {
    level: Level,
    pools: &'a Pools,
    payer: String,
}

/// Bytes of stored objects that an answer has copies of, read from the store for it: what the caches hold, all answers
/// share.
fn copied(server: &Server, info: &RequestInfo, query: &Query) -> usize {
    if !info.is_resource || !matches!(info.verb.as_str(), "get" | "list" | "deletecollection") {
        return 0;
    }
    let served = server.registry.served();
    let kind = served.scheme.by_gvr(&info.group, &info.version, &info.resource);
    let Some(resource) = kind.and_then(|kind| served.resource(kind)) else { return 0 };
    let length = |object: &Object| object.json_bytes().len();
    if info.verb == "get" {
        return resource.cache().get(&info.namespace, &info.name).map_or(0, |object| length(&object));
    }
    if !options::list(query, false).is_ok_and(|options| list::is_stored(resource, &options)) {
        return 0;
    }
    let mut sum = 0;
    resource.cache().for_each(&Filter::all().in_namespace(&info.namespace), |object| sum += length(object));
    // What there was may be more than what there is.
    sum.clamp(flow::LARGE_BODY, body::MAX_BODY)
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request needs a place for. Those that say whether the server lives need none.
fn purpose(info: &RequestInfo) -> Option<Use> {
    if info.is_resource {
        return Some(if matches!(info.verb.as_str(), "get" | "list") { Use::Read } else { Use::Write });
    }
    let first = info.path.split('/').find(|part| !part.is_empty());
    (!matches!(first, Some("healthz" | "livez" | "readyz" | "version"))).then_some(Use::Other)
}

/// Reads the body, then waits for a place, and holds it until the answer was sent: a body that trickles in holds
/// nothing but its own memory.
async fn limited(
    server: &Arc<Server>,
    request: Request<Body>,
    (info, query): (&RequestInfo, &Query),
    user: UserInfo,
    share: Option<Share<'_>>,
    held: &Mutex<Held>,
) -> Result<Response<Body>, ApiError> {
    let (parts, body) = request.into_parts();
    let memory = share.as_ref().map(|share| (share.pools.bodies(), share.payer.as_str()));
    let (body, received) = body::receive(body, memory).await?;
    lock(held).memory = received;
    let media = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let weight = flow::weight(media, &body);
    if let (Some(share), Some(to)) = (&share, purpose(info)) {
        let place = share.pools.place(&share.payer, to).await?;
        lock(held).place = Some(place);
    }
    // A small patch of a large object is as much work as the object. To find that out may mean to look at all there
    // are, so it takes a place, too.
    let weight = weight.max(super::weigh::stored(server, info, query, &parts.headers)).max(copied(server, info, query));
    let request = Request::from_parts(parts, body::full(body));
    if weight < flow::LARGE_BODY {
        return super::router::dispatch(server, request, info.clone(), query.clone(), user).await;
    }
    if let Some(share) = &share {
        let room = share.pools.room(&share.payer, weight).await?;
        lock(held).room = Some(room);
    }
    let (own, info, query) = (server.clone(), info.clone(), query.clone());
    let work = async move { super::router::dispatch(&own, request, info, query, user).await };
    // The warnings of a request belong to its task.
    let (answer, warnings) =
        server.flow.apart(deadline::carried(deadline::until(), super::warnings::collect(work))).await?;
    warnings.into_iter().for_each(super::warnings::add);
    answer
}

/// The client's `timeout` parameter, at most the server's own.
fn timeout(query: &Query) -> Result<Duration, ApiError> {
    let Some(text) = query.get("timeout").filter(|t| !t.is_empty()) else { return Ok(DEADLINE) };
    let asked = gojson::duration::parse(text).map_err(|_| {
        ApiError::bad_request(format!("invalid timeout specified in the request URL - time: invalid duration {text:?}"))
    })?;
    // What is over before it began asks for nothing.
    let asked = u64::try_from(asked).map_or(Duration::ZERO, Duration::from_nanos);
    Ok(if asked.is_zero() { DEADLINE } else { asked.min(DEADLINE) })
}

async fn authenticate(server: &Server, request: &Parts, info: &RequestInfo) -> Result<UserInfo, ApiError> {
    if let Some(InProcessUser(user)) = request.extensions.get() {
        return Ok(UserInfo::clone(user));
    }
    let certificate = request.extensions.get::<PeerCertificate>().map(|peer| &*peer.0);
    let authorization = request.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let credentials = Credentials { certificate, authorization, path: &info.path };
    match server.authn.authenticate(credentials).await {
        Ok(Some(authenticated)) => Ok(authenticated.user),
        Ok(None) => Err(ApiError::unauthorized()),
        Err(error) => {
            tracing::debug!(path = info.path, %error, "unauthenticated");
            Err(ApiError::unauthorized())
        }
    }
}

/// Refuses a request with a header that decides something and cannot be read, or says two things: acting as if it were
/// not there would be acting on something nobody asked for.
fn readable(headers: &http::HeaderMap) -> Result<(), ApiError> {
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT, header::ACCEPT_ENCODING] {
        if headers.get_all(&name).iter().any(|value| value.to_str().is_err()) {
            return Err(ApiError::bad_request(format!("the {name} header cannot be read")));
        }
    }
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
        if headers.get_all(&name).iter().nth(1).is_some() {
            return Err(ApiError::bad_request(format!("several {name} headers")));
        }
    }
    Ok(())
}

fn authorize(server: &Server, user: &UserInfo, info: &RequestInfo, query: &Query) -> Result<(), ApiError> {
    let mut attributes = Attributes {
        user: user.clone(),
        verb: info.verb.clone(),
        resource_request: info.is_resource,
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name: info.authorization_name(query),
        path: info.path.clone(),
        field_selector: query.get("fieldSelector").unwrap_or("").to_owned(),
        label_selector: query.get("labelSelector").unwrap_or("").to_owned(),
    };
    check(server, &attributes)?;
    // A WebSocket can only be opened by GET, and must not be a way around the right to create.
    let stream = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward");
    if stream && info.resource == "pods" && info.verb == "get" {
        attributes.verb = "create".into();
        check(server, &attributes)?;
    }
    Ok(())
}

/// Whether the caller of an update may create what is not there yet.
///
/// # Errors
/// 403 without the right to create.
pub fn authorize_create(call: &Call) -> Result<(), ApiError> {
    let RequestInfo { group, version, resource, namespace, name, .. } = &call.info;
    let attributes = Attributes::resource(call.user.clone(), "create", group, resource, namespace);
    check(&call.server, &Attributes { version: version.clone(), name: name.clone(), ..attributes })
}

fn check(server: &Server, attributes: &Attributes) -> Result<(), ApiError> {
    let decision = server.authz.authorize(attributes);
    if decision.allowed() { Ok(()) } else { Err(forbidden(attributes, &decision.reason)) }
}

/// Upstream's words for a refusal.
pub fn forbidden(a: &Attributes, reason: &str) -> ApiError {
    let user = &a.user.username;
    let suffix = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if !a.resource_request {
        return ApiError::forbidden_path(&format!("User {user:?} cannot {} path {:?}{suffix}", a.verb, a.path));
    }
    let resource =
        if a.subresource.is_empty() { a.resource.clone() } else { format!("{}/{}", a.resource, a.subresource) };
    let place = if a.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", a.namespace)
    };
    let why =
        format!("User {user:?} cannot {} resource {resource:?} in API group {:?} {place}{suffix}", a.verb, a.group);
    ApiError::forbidden(Subject::new(&a.group, &a.resource), &a.name, &why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn refusals_read_as_upstream() {
        let user = UserInfo::new("jane", Vec::<String>::new());
        let list = Attributes::resource(user.clone(), "list", "apps", "deployments", "a");
        assert_eq!(
            forbidden(&list, "").to_string(),
            "deployments.apps is forbidden: User \"jane\" cannot list resource \"deployments\" in API group \"apps\" in the namespace \"a\""
        );
        let path = Attributes::non_resource(user, "get", "/metrics");
        assert_eq!(forbidden(&path, "").to_string(), "forbidden: User \"jane\" cannot get path \"/metrics\"");
    }

    #[test]
    fn what_is_no_question_of_life_needs_a_place() {
        let of = |method: &str, path: &str| {
            let method = http::Method::from_bytes(method.as_bytes()).unwrap();
            purpose(&request_info::parse(&method, path, &Query::parse(None)))
        };
        for (path, expect) in [
            ("/healthz", None),
            ("/livez/ping", None),
            ("//readyz", None),
            ("/version", None),
            ("/", Some(Use::Other)),
            ("/versions", Some(Use::Other)),
            ("/openapi/v2", Some(Use::Other)),
            ("/apis", Some(Use::Other)),
            ("/metrics", Some(Use::Other)),
            ("/api/v1/pods", Some(Use::Read)),
        ] {
            assert_eq!(of("GET", path), expect, "{path}");
        }
        assert_eq!(of("POST", "/api/v1/namespaces/a/pods"), Some(Use::Write));
    }

    #[test]
    fn timeouts_are_read() {
        let of = |text: &str| timeout(&Query::parse(Some(&format!("timeout={text}"))));
        assert_eq!(of("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(of("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(of("3h").unwrap(), DEADLINE);
        assert_eq!(of("0s").unwrap(), DEADLINE);
        assert_eq!(of("1m0s").unwrap(), DEADLINE);
        assert_eq!(of("0m1.5s").unwrap(), Duration::from_millis(1500));
        for bad in ["5", "x", "5y", "s"] {
            assert_eq!(of(bad).unwrap_err().code(), 400, "{bad}");
        }
    }
}
