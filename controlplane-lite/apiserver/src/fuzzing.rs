//! What the fuzz targets call: the readers of headers, addresses and proxied pages, with what holds of whatever they
//! read.

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::authn::UserInfo;
use auth::authz::{AlwaysAllow, Attributes, Authorizer, Decision};
use http::{HeaderMap, HeaderName, HeaderValue};
use scheme::decode::decode;
use scheme::selector::selectable_fields;
use scheme::strategy::{Context, Requester};
use scheme::{FieldValidation, Kind, MediaType, convert, table};
use serde_json::{Value, json};
use storage::{EventKind, Object, Revision, encode_stored};

use crate::allocate::Cidr;
use crate::registry::field_paths;
use crate::subresource::proxy::links::{Links, Rewriter};
use crate::{impersonation, negotiate, websocket};

/// Denies whatever is asked.
#[derive(Debug)]
struct Nothing;

impl Authorizer for Nothing {
    fn authorize(&self, _: &Attributes) -> Decision {
        Decision::no_opinion("")
    }
}

/// Headers of a request, `name: value` a line: without a right nobody acts as another, and what accepts something is
/// answered with that.
pub fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|b| *b == b'\n') {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let caller = UserInfo::new("caller", ["group"]);
    if let Ok(user) = impersonation::resolve(&headers, caller.clone(), &Nothing) {
        assert_eq!(user, caller);
    }
    let named = headers.get("impersonate-user").map(HeaderValue::as_bytes);
    if let Ok(user) = impersonation::resolve(&headers, caller.clone(), &AlwaysAllow) {
        assert_eq!(user.username.as_bytes(), named.unwrap_or(b"caller"));
    }
    if let Ok(media) = negotiate::content_type(&headers, &negotiate::BODY_TYPES) {
        assert!(negotiate::BODY_TYPES.contains(&media));
    }
    let (accept, plain) = (negotiate::accept(&headers), negotiate::accept_plain(&headers));
    assert!(accept.is_ok() || plain.is_err(), "what is answered plainly is answered");
    let _ = (negotiate::accepts_gzip(&headers), websocket::is_request(&headers));
    let known = ["v5.channel.k8s.io", "base64.binary.k8s.io"];
    if let Ok(protocol) = websocket::subprotocol(&headers, &known) {
        assert!(protocol.is_empty() || known.contains(&protocol));
    }
    impersonation::strip(&mut headers);
    assert_eq!(impersonation::resolve(&headers, caller.clone(), &Nothing).ok(), Some(caller));
}

/// A proxied page: however it comes in pieces the client gets the same, no more than a prefix longer for each link, and
/// a page that was rewritten is not rewritten again.
pub fn links(data: &[u8]) {
    let [step, page @ ..] = data else { return };
    let links = || Links { prefix: "/api/v1/p/proxy".into(), hosts: vec!["10.0.0.1:80".into()] };
    let through = |page: &[u8], step: usize| {
        let mut rewriter = Rewriter::new(links());
        let mut out: Vec<u8> = page.chunks(step.max(1)).flat_map(|piece| rewriter.feed(piece)).collect();
        out.extend(rewriter.rest());
        out
    };
    let whole = through(page, usize::MAX);
    assert_eq!(through(page, usize::from(*step)), whole);
    let values = page.iter().filter(|b| **b == b'=').count();
    assert!(whole.len() <= page.len() + values * links().prefix.len(), "{} of {}", whole.len(), page.len());
    if let Ok(link) = std::str::from_utf8(page) {
        let once = links().rewrite(link);
        assert_eq!(links().rewrite(&once), once);
    }
}

/// What a webhook answers: who only judges changes nothing, and whatever is told of it names the webhook.
pub fn webhook_answer(body: &[u8]) {
    crate::admission::webhooks::read_answer(body);
}

/// The answer of a conversion webhook: what is taken of it is the object that was asked for, with its metadata.
pub fn conversion_answer(body: &[u8]) {
    let original = json!({"apiVersion": "e.com/v1", "kind": "W", "metadata": {"name": "a", "uid": "u"}});
    for version in ["v1", "v1beta1"] {
        let converted =
            crate::definitions::review::converted(version, "1", "e.com/v2", std::slice::from_ref(&original), body);
        for object in converted.into_iter().flatten() {
            assert_eq!((&object["apiVersion"], &object["kind"]), (&json!("e.com/v2"), &json!("W")));
            assert_eq!((&object["metadata"]["name"], &object["metadata"]["uid"]), (&json!("a"), &json!("u")));
        }
    }
}

/// The range of Services' addresses.
pub fn cidr(text: &str) {
    if let Ok(cidr) = text.parse::<Cidr>() {
        assert_eq!(cidr.to_string().parse(), Ok(cidr));
        assert!(cidr.contains(cidr.nth(cidr.size() - 1)));
        assert!(text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'/'), "{text:?}");
    }
}

/// Objects of a kind (its plural, or else any), before and after a change: whatever the kind's rules make of them is an
/// object that can be stored, whose header tells its selectable fields as the object does, and that can be shown.
pub fn object(plural: &[u8], before: &[u8], after: &[u8]) {
    let kinds: Vec<&Arc<Kind>> = scheme::builtin().kinds().filter(|kind| kind.stores()).collect();
    let any = || kinds[plural.iter().map(|b| usize::from(*b)).sum::<usize>() % kinds.len()];
    let kind = kinds.iter().copied().find(|kind| kind.plural.as_bytes() == plural).unwrap_or_else(any);
    let read = |text| Some(decode(kind, MediaType::Json, text, FieldValidation::Ignore).ok()?.object);
    let user = Requester { username: "fuzz", uid: "", groups: &[], extra: &BTreeMap::new() };
    let context = Context { user, now: "2026-01-01T00:00:00Z", uid: "uid" };
    let Some(mut old) = read(before) else { return };
    kind.default(&mut old);
    let mut again = old.clone();
    kind.default(&mut again);
    assert_eq!(again, old, "{}: what has its defaults has them all", kind.kind);
    kind.prepare_create(&mut old, &context);
    let _ = kind.strategy.warnings(&old);
    if kind.validate_create(&old).is_empty() {
        stored(kind, &old);
    }
    shown(kind, &old);
    let Some(mut new) = read(after) else { return };
    kind.default(&mut new);
    let names = kind.subresources.iter().map(|subresource| subresource.name);
    for subresource in names.chain([""]) {
        let mut new = new.clone();
        kind.prepare_update(subresource, &mut new, &old, &context);
        let _ = (kind.validate_update(subresource, &new, &old), kind.warnings_on_update(subresource, &new));
        let _ = kind.strategy.is_heartbeat(subresource, &new, &old);
        shown(kind, &new);
    }
}

fn stored(kind: &Kind, object: &Value) {
    let mut object = object.clone();
    let bytes = encode_stored(&mut object);
    let stored = Object::parse(&bytes, Revision(7), EventKind::Added, &field_paths(kind).into());
    let stored = stored.unwrap_or_else(|error| panic!("{}: {error}", kind.kind));
    for (name, value) in selectable_fields(kind, &object) {
        assert_eq!(stored.field(name), Some(value.as_str()), "{} {name}", kind.kind);
    }
}

fn shown(kind: &Kind, object: &Value) {
    let row = table::row(kind, object, table::IncludeObject::Object, jiff::Timestamp::UNIX_EPOCH);
    let columns = table::column_definitions(kind);
    assert_eq!(row["cells"].as_array().map(Vec::len), columns.as_array().map(Vec::len), "{}", kind.kind);
    let _ = (table::partial_metadata(object), convert::scale_of(object));
}
