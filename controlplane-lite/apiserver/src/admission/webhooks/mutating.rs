//! Webhooks that change the object: one after the other, and once more those that asked for it when others changed the
//! object after them (`mutating/{dispatcher,reinvocationcontext}.go`).

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use super::call::{self, Failure};
use super::hook::Hook;
use super::request::{Asked, Seen, restore_owners};
use super::{Mutated, Refusal, Request, View, Webhooks};
use crate::flow;
use scheme::decode::{self, FieldValidation, MediaType};
use scheme::field::go_quote;
use scheme::patch::{PatchError, json};

const PLUGIN: &str = "MutatingAdmissionWebhook";

/// What is remembered from the first round to the second.
#[derive(Debug, Default)]
struct Rounds {
    /// What the webhooks left behind.
    last: Option<Value>,
    /// Those that were asked, and are to be asked again should the object change.
    invoked: HashSet<String>,
    /// Those that are to be asked again.
    again: HashSet<String>,
}

impl Rounds {
    fn require(&mut self) {
        self.again.extend(self.invoked.drain());
    }
}

/// Asks all that have to do with the request, in order.
pub(super) async fn dispatch(
    webhooks: &Webhooks,
    hooks: Arc<[Arc<Hook>]>,
    request: &Request<'_>,
    mut object: Option<&mut Value>,
    view: &dyn View,
) -> Result<Mutated, Refusal> {
    let asked = Asked::new(request, view);
    if request.again {
        // Others of this server changed it, too.
        request.memory.of(PLUGIN, |rounds: &mut Rounds| {
            if rounds.last.as_ref() != object.as_deref() {
                rounds.require();
            }
        });
    }
    let mut mutated = Mutated::No;
    for hook in hooks.iter() {
        let Some(seen) = asked.wants(hook, object.as_deref(), &*webhooks.conditions).await? else { continue };
        // Who was not asked in the first round is not in the second.
        if request.again && !request.memory.of(PLUGIN, |rounds: &mut Rounds| rounds.again.contains(&hook.id)) {
            continue;
        }
        let began = Instant::now();
        let called = ask(hook, &asked, seen, object.as_deref()).await;
        webhooks.note(hook, &asked, began, &called);
        let changed = match called {
            Ok(new) => new,
            Err(failure) => match failure.refusal(hook) {
                Some(refusal) => return Err(refusal),
                None => None,
            },
        };
        if let (Some(new), Some(object)) = (changed, object.as_deref_mut()) {
            *object = new;
            mutated = Mutated::Raw;
            request.memory.of(PLUGIN, Rounds::require);
        }
        if hook.reinvoke {
            request.memory.of(PLUGIN, |rounds: &mut Rounds| rounds.invoked.insert(hook.id.clone()));
        }
    }
    request.memory.of(PLUGIN, |rounds: &mut Rounds| {
        // Nobody else has to know what it was.
        rounds.last = if rounds.invoked.is_empty() { None } else { object.as_deref().cloned() };
    });
    Ok(mutated)
}

/// Asks one; the object as it is to be, where that is another.
async fn ask(hook: &Hook, asked: &Asked<'_>, seen: Seen, object: Option<&Value>) -> Result<Option<Value>, Failure> {
    let question = asked.encode(seen, object).await.map_err(Failure::Internal)?;
    let verdict = call::ask(hook, asked, || question, super::Phase::Mutating).await?;
    if verdict.patch.is_empty() {
        return Ok(None);
    }
    let undecodable = |why: String| Failure::Calling {
        why: format!("received undecodable patch in webhook response: {why}"),
        code: 503,
    };
    let patch = decode::parse(MediaType::Json, &verdict.patch).map_err(|why| {
        let (decode::ParseError::Json(text) | decode::ParseError::Yaml(text)) = why;
        undecodable(text)
    })?;
    let Some(operations) = patch.value.as_array() else {
        return Err(undecodable("json: cannot unmarshal a value that is no array into a patch".to_owned()));
    };
    if operations.is_empty() {
        return Ok(None);
    }
    let connects = asked.request.operation == crate::admission::Operation::Connect;
    let Some(object) = object.filter(|_| !connects) else {
        let name = go_quote(&hook.name);
        return Err(Failure::Internal(format!(
            "admission webhook {name} attempted to modify the object, which is not supported for this operation"
        )));
    };
    // A small patch may copy a large object many times.
    let heavy = flow::weight("application/json-patch+json", &verdict.patch) >= flow::LARGE_BODY;
    let form = asked.form(seen, object).await.map_err(Failure::Internal)?;
    let new = if heavy {
        let form = form.into_owned();
        call::apart(true, move || json::apply(&form, &patch.value)).await?
    } else {
        json::apply(&form, &patch.value)
    };
    let new = new.map_err(|why| match why {
        PatchError::BadRequest(why) => undecodable(why),
        why => Failure::Internal(why.to_string()),
    })?;
    let new = read(asked, seen, object, new).await.map_err(Failure::Internal)?;
    Ok((new != *object).then_some(new))
}

/// The object that a patch made of what the webhook saw, read as a client's is.
async fn read(asked: &Asked<'_>, seen: Seen, before: &Value, patched: Value) -> Result<Value, String> {
    let kind = if asked.carries_object() { asked.kind(seen) } else { asked.request.body };
    let decoded = decode::decode_value(kind, patched, Vec::new(), true, FieldValidation::Ignore);
    let mut new = decoded.map_err(|why| why.to_string())?.object;
    kind.default(&mut new);
    let mut new = match &kind.conversion {
        // The rules of a write know a custom resource in the version of the request.
        Some(_) if asked.carries_object() && kind.custom => asked.form(0, &new).await?.into_owned(),
        Some(conversion) if asked.carries_object() => (*conversion.to_storage)(new),
        _ => new,
    };
    restore_owners(before, &mut new);
    Ok(new)
}
