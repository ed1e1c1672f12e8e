//! A request as webhooks see it: as which resources of other versions, too, in which namespace, and in which form its
//! objects are sent.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::hook::{FailurePolicy, Hook};
use super::matching::{self, Named, Subject};
use super::review::Question;
use super::{Condition, Conditions, failed};
use crate::admission::{Operation, Refusal, Request, View};
use crate::registry::ResourceName;
use scheme::{Kind, Text};

const NAMESPACES: ResourceName = ResourceName { group: Text::Borrowed(""), plural: Text::Borrowed("namespaces") };

/// What is the same for all webhooks that are asked about a request.
pub(in crate::admission) struct Asked<'a> {
    pub request: &'a Request<'a>,
    view: &'a dyn View,
    subject: Subject<'a>,
    /// The resource in other versions, and groups.
    others: Vec<Arc<Kind>>,
    /// Labels of the namespace, once somebody wanted to know.
    namespace: tokio::sync::OnceCell<Value>,
}

/// The resource as which a webhook is to see the object: the place of its kind, the request's own being the first.
pub(in crate::admission) type Seen = usize;

impl<'a> Asked<'a> {
    pub(in crate::admission) fn new(request: &'a Request<'a>, view: &'a dyn View) -> Self {
        let served = request.served;
        let resource = Named { group: &served.group, version: &served.version, name: &served.plural };
        let is_namespace = request.is("", "namespaces");
        let subject = Subject {
            operation: request.operation.as_str(),
            resource,
            subresource: request.subresource,
            namespace: if is_namespace { request.name } else { request.namespace },
        };
        let scheme = view.scheme();
        let same = |kind: &&Arc<Kind>| {
            kind.stored()
                && (kind.storage_group(), kind.storage_plural()) == (served.storage_group(), served.storage_plural())
                && (&kind.group, &kind.version, &kind.plural) != (&served.group, &served.version, &served.plural)
                && (request.subresource.is_empty() || kind.subresource(request.subresource).is_some())
        };
        let others = if served.stored() { scheme.served().filter(same).cloned().collect() } else { Vec::new() };
        Self { request, view, subject, others, namespace: tokio::sync::OnceCell::new() }
    }

    /// Whether the webhook is to be called, and as what it sees the object.
    pub(in crate::admission) async fn wants(
        &self,
        hook: &Hook,
        object: Option<&Value>,
        conditions: &Conditions,
    ) -> Result<Option<Seen>, Refusal> {
        let others: Vec<Named<'_>> = self.others.iter().map(|kind| named(kind, &kind.plural)).collect();
        let Some(seen) = matching::resource(hook, &self.subject, &others) else { return Ok(None) };
        match &hook.objects {
            Ok(selector) if !matching::selects(selector, [object, self.request.old]) => return Ok(None),
            Ok(_) => {}
            Err(why) => return Err(failed(why.as_str())),
        }
        if !self.is_in_namespace(hook, object).await? {
            return Ok(None);
        }
        let judged =
            if hook.conditions.is_empty() { Ok(true) } else { self.judge(hook, object, seen, conditions).await };
        match (judged, hook.failure) {
            (Ok(true), _) => Ok(Some(seen)),
            (Ok(false), _) | (Err(_), FailurePolicy::Ignore) => Ok(None),
            (Err(why), FailurePolicy::Fail) => Err(Refusal::Forbidden {
                resource: ResourceName::of(self.request.served),
                name: self.request.name.to_owned(),
                why,
                cause: None,
            }),
        }
    }

    async fn is_in_namespace(&self, hook: &Hook, object: Option<&Value>) -> Result<bool, Refusal> {
        if self.subject.namespace.is_empty() && !self.request.is("", "namespaces") {
            // What lives in no namespace is never spared.
            return Ok(true);
        }
        let selector = hook.namespaces.as_ref().map_err(|why| failed(why.as_str()))?;
        if selector.is_everything() {
            return Ok(true);
        }
        let written = matches!(self.request.operation, Operation::Create | Operation::Update);
        if let Some(object) =
            object.filter(|_| self.subject.is_namespace() && written && self.subject.subresource.is_empty())
        {
            // It says itself what it is going to be.
            return Ok(selector.matches_object(object));
        }
        let name = self.subject.namespace;
        let find = || self.view.get("", "namespaces", "", name);
        let namespace = self.namespace.get_or_try_init(async || {
            if let Some(namespace) = find() {
                return Ok(namespace);
            }
            self.view.fresh().await?;
            find().ok_or_else(|| Refusal::NotFound { resource: NAMESPACES, name: name.to_owned() })
        });
        Ok(selector.matches_object(namespace.await?))
    }

    /// Whether all conditions hold (`Matcher.Match`): one that does not settles it, whatever else fails.
    async fn judge(
        &self,
        hook: &Hook,
        object: Option<&Value>,
        seen: Seen,
        conditions: &Conditions,
    ) -> Result<bool, String> {
        let (object, old) = (self.form_of(seen, object).await?, self.form_of(seen, self.request.old).await?);
        let request = self.told(seen);
        let about =
            Condition { request: &request, object: object.as_deref(), old: old.as_deref(), user: self.request.user };
        let mut problems = Vec::new();
        for condition in &hook.conditions {
            match conditions(condition["expression"].as_str().unwrap_or(""), &about, self.view) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(why) => problems.push(why),
            }
        }
        match problems.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }

    /// The kind as which objects are sent.
    pub(in crate::admission) fn kind(&self, seen: Seen) -> &Kind {
        seen.checked_sub(1).and_then(|place| self.others.get(place)).map_or(self.request.served, |kind| kind)
    }

    /// Whether the request carries the object itself, and not its Scale, its Eviction, or options.
    pub(in crate::admission) fn carries_object(&self) -> bool {
        self.body(0).is_none()
    }

    fn body(&self, seen: Seen) -> Option<(&'static str, &'static str, &'static str)> {
        self.kind(seen).subresource(self.request.subresource).and_then(|subresource| subresource.body)
    }

    /// An object of the request in the form of what is seen.
    ///
    /// # Errors
    /// Why it cannot be had: somebody else has to say what a custom resource is in another version.
    pub(in crate::admission) async fn form<'v>(&self, seen: Seen, object: &'v Value) -> Result<Cow<'v, Value>, String> {
        let kind = self.kind(seen);
        let Some(conversion) = kind.conversion.as_ref().filter(|_| self.carries_object()) else {
            return Ok(Cow::Borrowed(object));
        };
        let mut object = object.clone();
        if kind.custom && object["apiVersion"] != *kind.api_version() {
            object = self.view.convert(kind, object).await?;
        }
        Ok(Cow::Owned((*conversion.from_storage)(object)))
    }

    /// The same, of an object where there is one.
    ///
    /// # Errors
    /// As [`Asked::form`].
    pub(in crate::admission) async fn form_of<'v>(
        &self,
        seen: Seen,
        object: Option<&'v Value>,
    ) -> Result<Option<Cow<'v, Value>>, String> {
        match object {
            Some(object) => self.form(seen, object).await.map(Some),
            None => Ok(None),
        }
    }

    fn named_kind(&self, seen: Seen) -> Named<'_> {
        match self.body(seen) {
            Some((group, version, name)) => Named { group, version, name },
            None => named(self.kind(seen), &self.kind(seen).kind),
        }
    }

    /// What a webhook that sees the object so is asked.
    fn question<'q>(&'q self, seen: Seen, object: Option<&'q Value>, old: Option<&'q Value>) -> Question<'q> {
        let Request { name, user, operation, options, .. } = *self.request;
        Question {
            kind: self.named_kind(seen),
            resource: named(self.kind(seen), &self.kind(seen).plural),
            request_kind: self.named_kind(0),
            request_resource: self.subject.resource,
            subresource: self.request.subresource,
            name,
            namespace: self.subject.namespace,
            operation: self.subject.operation,
            user,
            object,
            old,
            dry_run: self.request.dry_run,
            options: options.to_value(operation),
        }
    }

    /// The request as expressions see it: without its objects.
    pub(in crate::admission) fn told(&self, seen: Seen) -> Value {
        self.question(seen, None, None).to_value()
    }

    /// The same, ready to be sent.
    ///
    /// # Errors
    /// As [`Asked::form`].
    pub(super) async fn encode(&self, seen: Seen, object: Option<&Value>) -> Result<Bytes, String> {
        let (object, old) = (self.form_of(seen, object).await?, self.form_of(seen, self.request.old).await?);
        Ok(self.question(seen, object.as_deref(), old.as_deref()).encode())
    }

    /// An annotation of the request, for who audits.
    pub(in crate::admission) fn annotate(&self, key: &str, value: &str) {
        let Request { user, name, .. } = self.request;
        tracing::debug!(target: "audit", user = user.username, name, key, value, "admission");
    }

    pub(in crate::admission) fn view(&self) -> &'a dyn View {
        self.view
    }
}

fn named<'k>(kind: &'k Kind, name: &'k str) -> Named<'k> {
    Named { group: &kind.group, version: &kind.version, name }
}

/// What was warned of an object whose owners a webhook made unreadable, as upstream warns of it
/// (`endpoints/handlers/fieldmanager/admission.go`).
pub(in crate::admission) fn restore_owners(before: &Value, after: &mut Value) {
    let (old, new) = (&before["metadata"]["managedFields"], &after["metadata"]["managedFields"]);
    if old == new || new.is_null() || managedfields::readable(new) {
        return;
    }
    let old = old.clone();
    if let Some(metadata) = after.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if !old.is_null() {
            metadata.insert("managedFields".to_owned(), old);
        }
    }
    crate::warnings::add(
        ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating \
         admission controller; please fix your requests: they cannot be read",
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn owners_that_cannot_be_read_stay_as_they_were() {
        let before = json!({"metadata": {"managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "v1",
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {}}]}});
        for (after, kept) in [
            (json!({"metadata": {"managedFields": [{"operation": 7}]}}), true),
            (json!({"metadata": {"managedFields": "x"}}), true),
            (json!({"metadata": {}}), false),
        ] {
            let mut object = after.clone();
            restore_owners(&before, &mut object);
            assert_eq!(object == before, kept, "{after}");
        }
    }
}
