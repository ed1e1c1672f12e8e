//! GET with watch: changes as they happen, as chunked JSON lines or WebSocket messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::{BoxStream, StreamExt};
use http::{HeaderValue, Request, Response, header};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::answer;
use crate::body::{self, Body};
use crate::call::Call;
use crate::flow::{LARGE_BODY, Permit};
use crate::negotiate::{self, Accept, Format, Shape};
use crate::options::{self, ListOptions};
use crate::respond;
use crate::server::Server;
use crate::snapshots::{self, Loan, Payer, Room, SHORT_START};
use crate::status::ApiError;
use crate::websocket::{self, Outgoing, Timeouts};
use scheme::table::IncludeObject;
use storage::watch_cache::{CacheWatch, WatchItem, WatchRequest, WatchStart};
use storage::{EventKind, Line, Object, Revision};

mod selected;
pub mod shared;

use selected::Selected;
use shared::Form;

/// A watch without timeoutSeconds lasts 30 to 60 minutes, as upstream.
const MIN_SECONDS: u64 = 1800;
/// No watch lasts longer, so that its end can be computed.
const MAX_SECONDS: u64 = 366 * 24 * 3600;

/// Starts a watch.
///
/// # Errors
/// 400 for selectors, 410 for versions too old (before the first byte; later as an ERROR event), 429 when too much is
/// being sent to the user already, 504 for versions not reached.
pub async fn watch(mut call: Call, request: &mut Request<Body>) -> Result<Response<Body>, ApiError> {
    let options = options::list(&call.query, true)?;
    let accept = negotiate::accept(&call.headers)?;
    // They lie in the connection's read buffer, which would last as long as the watch.
    call.headers = http::HeaderMap::new();
    let call = Arc::new(call);
    if accept.format != Format::Json {
        return Err(ApiError::not_acceptable(&negotiate::ACCEPTED[..1]));
    }
    let place = request.extensions_mut().remove::<Arc<Permit>>();
    let seconds = options.timeout_seconds.unwrap_or_else(default_timeout).min(MAX_SECONDS);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let payer = request.extensions_mut().remove::<Payer>();
    let begin = || start(&call, &options);
    let selected = super::list::converted_fields(&call, &options)?.map(Selected::new);
    let mut lent = None;
    let room = Room { short: SHORT_START, expected: 0 };
    let lines = match snapshots::hold(&call.server, payer.as_ref(), room, begin, CacheWatch::initial_bytes).await {
        Ok((watch, loan)) => {
            lent.clone_from(&loan);
            if loan.is_some() {
                // A long state may come through a slow line, as a long list may.
                watch.spare_while_beginning();
            }
            let include = IncludeObject::from_query(call.query.get("includeObject").unwrap_or("")).unwrap_or_default();
            let form = Form { kind: call.kind.clone(), accept, include, columns: true, second: 0 };
            let open = Open { call: call.clone(), form, watch, selected, deadline, ended: false, loan, _place: place };
            futures::stream::unfold(open, next_line).boxed()
        }
        // A version outside the history is answered inside the stream, where clients' reflectors look for it.
        Err(error) if error.code() == 410 => {
            let line = error_frame(&error).into();
            futures::stream::once(async move { line }).boxed()
        }
        Err(error) => return Err(error),
    };
    if websocket::is_request(request.headers()) {
        return Ok(over_websocket(&call.server, request, lines, lent, deadline));
    }
    let mut response = Response::new(body::stream(lines.flat_map(|line| futures::stream::iter(line.into_parts()))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(accept)));
    if let Some(loan) = lent {
        response.extensions_mut().insert(loan);
    }
    Ok(response)
}

/// One event per text message.
fn over_websocket(
    server: &Server,
    request: &mut Request<Body>,
    lines: BoxStream<'static, Line>,
    loan: Option<Loan>,
    deadline: Instant,
) -> Response<Body> {
    let behind = Arc::new(server.flow.answers.behind(loan));
    let overdue = behind.clone();
    let text = move |line: Line| {
        let parts = line.without_end().into_parts();
        Outgoing::text(parts.flat_map(|part| behind.hand_out(part)))
    };
    let stopping = server.stopping.clone();
    let end = async move {
        // The last bookmark may still be on its way at the deadline.
        tokio::select! {
            () = sleep_until(deadline + answer::UNREAD) => {}
            () = stopping.cancelled() => {}
            () = overdue.overdue() => {}
        }
    };
    let timeouts = Timeouts { unread: answer::UNREAD, end: end.boxed() };
    websocket::answer(request, "", lines.map(text).boxed(), timeouts)
}

fn content_type(accept: Accept) -> &'static str {
    match accept.shape {
        Shape::Object => "application/json",
        Shape::Table => "application/json;as=Table;v=v1;g=meta.k8s.io",
        Shape::Metadata => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    }
}

fn default_timeout() -> u64 {
    MIN_SECONDS + rand::random_range(0..MIN_SECONDS)
}

async fn start(call: &Call, options: &ListOptions) -> Result<CacheWatch, ApiError> {
    let mut request = WatchRequest::new(super::list::filter(call, options)?, WatchStart::State);
    request.bookmarks = options.bookmarks;
    request.initial_events_end = options.send_initial_events == Some(true) && options.bookmarks;
    let cache = call.resource.cache();
    let version = options.version()?;
    request.start = match (version, options.send_initial_events) {
        // The streaming list: state, its end mark, then changes; at least as new as asked for.
        (Some(0), Some(true)) => WatchStart::State,
        (None, Some(true)) => {
            call.server.registry.fresh().await?;
            WatchStart::State
        }
        (Some(version), Some(true)) => {
            cache.wait_until_fresh(Revision(version)).await?;
            WatchStart::State
        }
        (None, Some(false)) => {
            call.server.registry.fresh().await?;
            WatchStart::Now
        }
        (Some(0), Some(false)) => WatchStart::Now,
        (Some(0), None) => WatchStart::State,
        (None, None) => {
            call.server.registry.fresh().await?;
            WatchStart::State
        }
        (Some(version), _) => {
            cache.wait_until_fresh(Revision(version)).await?;
            WatchStart::After(Revision(version))
        }
    };
    Ok(cache.watch(request)?)
}

/// State of an open watch.
struct Open {
    call: Arc<Call>,
    form: Form,
    watch: CacheWatch,
    selected: Option<Selected>,
    deadline: Instant,
    ended: bool,
    /// For what it begins with.
    loan: Option<Loan>,
    /// Among all watches.
    _place: Option<Arc<Permit>>,
}

async fn next_line(mut open: Open) -> Option<(Line, Open)> {
    loop {
        // When it was cut off, the client resumes from its last version; upstream closes the stream the same way.
        let item = next_item(&mut open).await?;
        let told = match &mut open.selected {
            Some(selected) => selected.told(&open.call, item).await.ok()?,
            None => Some(item),
        };
        if let Some(item) = told {
            let line = encode(&mut open, &item).await?;
            return Some((line, open));
        }
    }
}

async fn next_item(open: &mut Open) -> Option<WatchItem> {
    if open.ended {
        return None;
    }
    let (stopping, replaced) = (open.call.server.stopping.clone(), open.call.resource.replaced().clone());
    let (watch, loan) = (&mut open.watch, &mut open.loan);
    let next = std::future::poll_fn(|context| {
        let item = watch.poll_next_unpin(context);
        // Also when nothing of what it begins with is sent, and nothing else for long.
        if let Some(loan) = loan.take_if(|_| watch.has_begun()) {
            loan.give_back();
        }
        item
    });
    // Cancel-safe: the watch keeps its queue, the deadline and the token are level-triggered.
    let item = tokio::select! {
        item = next => item,
        () = sleep_until(open.deadline) => {
            open.ended = true;
            open.watch.final_bookmark().map(Ok)
        }
        () = stopping.cancelled() => None,
        () = replaced.cancelled() => None,
    };
    item?.ok()
}

/// One line. Watches that want the same share the bytes, made once for all.
async fn encode(open: &mut Open, item: &WatchItem) -> Option<Line> {
    let (call, accept) = (&open.call, open.form.accept);
    let (WatchItem::Event { kind, object }, false) =
        (item, accept.shape == Shape::Object && call.kind.conversion.is_none())
    else {
        return Some(stored_line(call, accept, item));
    };
    if accept.shape == Shape::Table {
        open.form.second = call.server.now().as_second();
    }
    let (call, event, form) = (call.clone(), *kind, open.form.clone());
    open.form.columns = false;
    // On the heap, so that each open watch does not keep room for it.
    Box::pin(made(call, object.clone(), event, form)).await.map(Line::from)
}

/// An event as it is stored, or a bookmark.
fn stored_line(call: &Call, accept: Accept, item: &WatchItem) -> Line {
    let line = item.line(&call.kind.api_version(), &call.kind.kind);
    match accept.shape {
        Shape::Object => line,
        Shape::Metadata => reshaped_bookmark(&line.whole(), accept).into(),
        Shape::Table => table_bookmark(&line.whole()).into(),
    }
}

/// An event of a decoded object; nothing when it cannot be made. Large ones are decoded apart, where they hold up no
/// leases.
async fn made(call: Arc<Call>, object: Arc<Object>, event: EventKind, form: Form) -> Option<Bytes> {
    let server = call.server.clone();
    let frame = server.watch_frames.frame(&object, event, &form);
    let make = || async {
        let object = call.converted_one(object.clone()).await?;
        if object.json_bytes().len() < LARGE_BODY {
            return Ok(reshaped(&call, &object, event, &form));
        }
        server.flow.apart(async move { reshaped(&call, &object, event, &form) }).await
    };
    frame.get_or_try_init(make).await.ok()?;
    shared::sent(&frame)
}

fn reshaped(call: &Call, object: &Object, event: EventKind, form: &Form) -> Bytes {
    let value = call.served(object.value());
    let value = match form.accept.shape {
        Shape::Object => value,
        Shape::Metadata => respond::metadata_of(&value, form.accept),
        Shape::Table => {
            let version = respond::version_of(&value);
            respond::table_of(call, &[value], version, form.accept, form.columns)
        }
    };
    line(event.as_str(), value)
}

/// A frame as Go writes it: readers that take an object as it stands have to know the type before it.
fn line(kind: &str, object: Value) -> Bytes {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
}

fn reshaped_bookmark(frame: &Bytes, accept: Accept) -> Bytes {
    let event: Value = serde_json::from_slice(frame).unwrap_or_default();
    line("BOOKMARK", respond::metadata_of(&event["object"], accept))
}

fn table_bookmark(frame: &Bytes) -> Bytes {
    let event: Value = serde_json::from_slice(frame).unwrap_or_default();
    let object = &event["object"];
    let row = json!({"cells": [], "object": respond::partial(object)});
    line(
        "BOOKMARK",
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": null,
            "metadata": object["metadata"], "rows": [row],
        }),
    )
}

/// An ERROR event, after which a stream ends.
pub fn error_frame(error: &ApiError) -> Bytes {
    line("ERROR", error.to_value())
}
