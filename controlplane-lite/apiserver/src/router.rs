//! Request info → verb or subresource. Knows which verbs a kind has; the verbs know what they do.

use std::sync::Arc;

use futures::FutureExt as _;
use http::{Request, Response};

use super::body::{self, Body};
use super::call::Call;
use super::request_info::{Query, RequestInfo};
use super::server::Server;
use super::status::ApiError;
use super::{aggregation, endpoints, reviews, subresource, verbs};
use auth::authn::UserInfo;
use scheme::Kind;
use scheme::kind::{ALL_VERBS, Serving};

/// Answers an authorized request.
///
/// # Errors
/// What the verb answers; 404 and 405 for what does not exist.
pub async fn dispatch(
    server: &Arc<Server>,
    request: Request<Body>,
    mut info: RequestInfo,
    query: Query,
    user: UserInfo,
) -> Result<Response<Body>, ApiError> {
    if let Some(remote) = server.aggregation.of(&info) {
        return Ok(aggregation::proxy::forward(server, &remote, request, &info, &user).boxed().await);
    }
    // One state for all of the request: another may come meanwhile.
    let served = server.registry.served();
    if !info.is_resource {
        let (parts, _) = request.into_parts();
        return endpoints::serve(server, &served, &parts, &info, &query).boxed().await;
    }
    let Some(kind) = served.scheme.by_gvr(&info.group, &info.version, &info.resource) else {
        return Ok(endpoints::not_found());
    };
    if let Some(text) = &kind.deprecated {
        crate::warnings::add(text.clone());
    }
    if kind.namespaced {
        let across = matches!(info.verb.as_str(), "list" | "watch") && info.name.is_empty();
        if info.namespace.is_empty() && !across {
            return if kind.custom { Ok(endpoints::not_found()) } else { Err(ApiError::method_not_allowed()) };
        }
    } else if !info.namespace.is_empty() {
        if !info.is_own_namespace() {
            return Ok(endpoints::not_found());
        }
        info.namespace.clear();
    }
    if !kind.stored() {
        return virtual_kind(server, request, info, query, user, kind).boxed().await;
    }
    let resource = served.resource(kind).ok_or_else(ApiError::no_such_path)?.clone();
    let (kind, headers) = (kind.clone(), request.headers().clone());
    let call = Call { server: server.clone(), info, query, headers, user, kind, resource };
    if call.info.subresource.is_empty() { object(call, request).await } else { below(call, request).boxed().await }
}

/// The object or the collection itself.
async fn object(call: Call, mut request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let verb = call.info.verb.as_str();
    let named = !call.info.name.is_empty();
    let fits = match verb {
        "get" | "update" | "patch" | "delete" => named,
        "watch" => true,
        _ => !named,
    };
    // Discovery does not offer to change what is going, but its finalizers have to.
    let known = call.kind.verbs.contains(&verb) || call.kind.terminating && ALL_VERBS.contains(&verb);
    if !fits || !known {
        return Err(ApiError::method_not_allowed());
    }
    // Each verb's own allocation: what one of them keeps while it waits is not moved about with every request.
    let object = match verb {
        "get" => verbs::get::get(&call).boxed(),
        "list" => {
            let payer = request.extensions_mut().remove();
            return verbs::list::list(call, payer).boxed().await;
        }
        "watch" => return verbs::watch::watch(call, &mut request).boxed().await,
        "create" => verbs::create::create(&call, body::collect(request.into_body()).await?).boxed(),
        "update" => verbs::update::update(&call, body::collect(request.into_body()).await?).boxed(),
        "patch" => verbs::patch::patch(&call, body::collect(request.into_body()).await?).boxed(),
        "delete" => verbs::delete::delete(&call, body::collect(request.into_body()).await?).boxed(),
        "deletecollection" => {
            let payer = request.extensions_mut().remove();
            let body = body::collect(request.into_body()).await?;
            return verbs::deletecollection::deletecollection(call, body, payer).boxed().await;
        }
        _ => return Err(ApiError::method_not_allowed()),
    };
    object.await
}

/// A subresource.
async fn below(call: Call, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let name = call.info.subresource.clone();
    let Some(known) = call.kind.subresource(&name) else {
        if call.kind.custom {
            return Err(ApiError::not_found(call.subject(), &call.info.name));
        }
        return Ok(endpoints::not_found());
    };
    let verb = call.info.verb.clone();
    // A proxy takes OPTIONS, too, which is no verb of the API.
    let proxied = name == "proxy" && request.method() == http::Method::OPTIONS;
    if !(proxied || known.verbs.contains(&verb.as_str())) || call.info.name.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    match name.as_str() {
        "log" => return subresource::node_connect::log(&call, request).boxed().await,
        "exec" | "attach" | "portforward" => return subresource::node_connect::connect(&call, request).boxed().await,
        "proxy" => return subresource::proxy::proxy(&call, request).boxed().await,
        _ => {}
    }
    if !call.info.rest.is_empty() {
        return Ok(endpoints::not_found());
    }
    let body = body::collect(request.into_body()).await?;
    let answer = match (name.as_str(), verb.as_str()) {
        ("scale", "get") => subresource::scale::get(&call).boxed(),
        ("scale", "update") => subresource::scale::update(&call, body).boxed(),
        ("scale", "patch") => subresource::scale::patch(&call, body).boxed(),
        ("binding", "create") => subresource::binding::create(&call, body).boxed(),
        ("eviction", "create") => subresource::eviction::create(&call, body).boxed(),
        ("token", "create") => subresource::token::create(&call, body).boxed(),
        (_, "get") => verbs::get::get(&call).boxed(),
        (_, "update") => verbs::update::update(&call, body).boxed(),
        (_, "patch") => verbs::patch::patch(&call, body).boxed(),
        _ => return Err(ApiError::method_not_allowed()),
    };
    answer.await
}

/// Kinds that are answered, not stored.
async fn virtual_kind(
    server: &Arc<Server>,
    request: Request<Body>,
    info: RequestInfo,
    query: Query,
    user: UserInfo,
    kind: &Kind,
) -> Result<Response<Body>, ApiError> {
    if !kind.verbs.contains(&info.verb.as_str()) || !info.subresource.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    match kind.serving {
        Serving::Binding => {
            let resource = server.registry.get("", "pods").ok_or_else(ApiError::no_such_path)?;
            let headers = request.headers().clone();
            let kind = resource.kind.clone();
            let call = Call { server: server.clone(), info, query, headers, user, kind, resource };
            subresource::binding::create(&call, body::collect(request.into_body()).await?).await
        }
        Serving::ComponentStatus => endpoints::component_statuses(&info, request.headers(), &query),
        Serving::Stored | Serving::Body => Err(ApiError::no_such_path()),
        Serving::Review(_) => {
            let (parts, incoming) = request.into_parts();
            let bytes = body::collect(incoming).await?;
            reviews::answer(server, kind, &info, &query, &parts.headers, &user, &bytes).await
        }
    }
}
