//! Webhooks that judge: all at once (`validating/dispatcher.go`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio::time::Instant;

use super::hook::Hook;
use super::request::{Asked, Seen};
use super::{Refusal, Request, View, Webhooks, call, failed};

/// Asks all that have to do with the request; of several that refuse, the first to answer is told.
pub(super) async fn dispatch(
    webhooks: &Webhooks,
    hooks: Arc<[Arc<Hook>]>,
    request: &Request<'_>,
    object: Option<&Value>,
    view: &dyn View,
) -> Result<(), Refusal> {
    let asked = Asked::new(request, view);
    let mut relevant = Vec::new();
    for hook in hooks.iter() {
        if let Some(seen) = asked.wants(hook, object, &*webhooks.conditions).await? {
            relevant.push((hook, seen));
        }
    }
    // Those that see the same share what is sent.
    let mut questions = HashMap::<Seen, Bytes>::new();
    for (_, seen) in &relevant {
        if let Entry::Vacant(place) = questions.entry(*seen) {
            place.insert(asked.encode(*seen, object).await.map_err(failed)?);
        }
    }
    let ask = async |hook: &Arc<Hook>, question: Bytes| {
        let began = Instant::now();
        let called = call::ask(hook, &asked, || question, webhooks.phase).await;
        webhooks.note(hook, &asked, began, &called);
        called.err().and_then(|failure| failure.refusal(hook))
    };
    let mut calls: FuturesUnordered<_> =
        relevant.iter().map(|(hook, seen)| ask(hook, questions[seen].clone())).collect();
    let mut refused = None;
    while let Some(answer) = calls.next().await {
        refused = refused.or(answer);
    }
    refused.map_or(Ok(()), Err)
}
