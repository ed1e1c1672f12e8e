//! The only maker of `metav1.Status`: every failure the API answers, with upstream's code, reason, message,
//! details and causes.
//!
//! Failures of what lies below (the registry, admission) are types of their own, turned into these in
//! `status/failures.rs` and nowhere else. Does not decide when a failure occurs, and does not log.
//! [`ApiError::internal`] keeps the internal text apart from what the client reads.

use std::borrow::Cow;

use scheme::access::{int_at, list_at, str_at};
use serde_json::{Map, Value, json};

mod failures;

pub use failures::invalid;

/// The group and plural resource (or kind) an error is about, printed as upstream prints it: `pods`,
/// `deployments.apps`.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// API group; empty for core.
    pub group: &'a str,
    /// Plural resource name, or the kind for validation failures.
    pub kind: &'a str,
}

impl<'a> Subject<'a> {
    /// A subject of `group` (empty for core).
    pub fn new(group: &'a str, kind: &'a str) -> Self {
        Self { group, kind }
    }
}

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() { f.write_str(self.kind) } else { write!(f, "{}.{}", self.kind, self.group) }
    }
}

/// One entry of `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Upstream's cause type, such as `FieldValueRequired`.
    pub reason: String,
    /// What a person reads.
    pub message: String,
    /// The field path, empty when the cause is not about a field.
    pub field: String,
}

/// Causes that are taken over from somebody else's `Status`.
const MAX_CAUSES: usize = 1000;

/// A failed API request: what becomes a `metav1.Status` with `status: Failure`.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Inner>);

#[derive(Debug, Clone, Default)]
struct Inner {
    code: u16,
    reason: Cow<'static, str>,
    message: String,
    name: String,
    group: String,
    kind: String,
    uid: String,
    causes: Vec<Cause>,
    retry_after: Option<u32>,
    continue_token: Option<String>,
    internal: Option<String>,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    fn make(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { code, reason: reason.into(), message: message.into(), ..Inner::default() }))
    }

    fn about(mut self, subject: Subject<'_>, name: &str) -> Self {
        self.0.group = subject.group.to_owned();
        self.0.kind = subject.kind.to_owned();
        self.0.name = name.to_owned();
        self
    }

    /// 404 NotFound: `pods "x" not found`.
    pub fn not_found(subject: Subject<'_>, name: &str) -> Self {
        Self::make(404, "NotFound", format!("{subject} \"{name}\" not found")).about(subject, name)
    }

    /// 404 for a path that serves nothing.
    pub fn no_such_path() -> Self {
        Self::make(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409 AlreadyExists.
    pub fn already_exists(subject: Subject<'_>, name: &str) -> Self {
        Self::make(409, "AlreadyExists", format!("{subject} \"{name}\" already exists")).about(subject, name)
    }

    /// 409 AlreadyExists when every generated name was taken; clients may retry.
    pub fn generate_name_conflict(subject: Subject<'_>, name: &str) -> Self {
        let message = format!(
            "{subject} \"{name}\" already exists, the server was not able to generate a unique name for the object"
        );
        let mut error = Self::make(409, "AlreadyExists", message).about(subject, name);
        error.0.retry_after = Some(1);
        error
    }

    /// 409 Conflict with upstream's `Operation cannot be fulfilled on …` frame around `detail`.
    pub fn conflict(subject: Subject<'_>, name: &str, detail: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {subject} \"{name}\": {detail}");
        Self::make(409, "Conflict", message).about(subject, name)
    }

    /// 409 Conflict of an update that read an older version.
    pub fn modified(subject: Subject<'_>, name: &str) -> Self {
        let detail = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(subject, name, detail)
    }

    /// 409 Conflict of a configuration that would change fields of other managers.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Self {
        let mut error = Self::make(409, "Conflict", message);
        error.0.causes = causes;
        error
    }

    /// 400 BadRequest.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::make(400, "BadRequest", message)
    }

    /// 422 Invalid with causes; `message` is the text after `is invalid: `.
    pub fn invalid(kind: Subject<'_>, name: &str, message: &str, causes: Vec<Cause>) -> Self {
        let mut error =
            Self::make(422, "Invalid", format!("{kind} \"{name}\" is invalid: {message}")).about(kind, name);
        error.0.causes = causes;
        error
    }

    /// 422 Invalid with a message of its own, as a JSON patch that cannot be applied gives.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::make(422, "Invalid", message)
    }

    /// 401 Unauthorized.
    pub fn unauthorized() -> Self {
        Self::make(401, "Unauthorized", "Unauthorized")
    }

    /// 403 Forbidden about a resource: `pods "x" is forbidden: …`.
    pub fn forbidden(subject: Subject<'_>, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{subject} is forbidden: {why}")
        } else {
            format!("{subject} \"{name}\" is forbidden: {why}")
        };
        Self::make(403, "Forbidden", message).about(subject, name)
    }

    /// 403 Forbidden about a path.
    pub fn forbidden_path(why: &str) -> Self {
        Self::make(403, "Forbidden", format!("forbidden: {why}"))
    }

    /// 405 MethodNotAllowed.
    pub fn method_not_allowed() -> Self {
        Self::make(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 406 NotAcceptable.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::make(406, "NotAcceptable", message)
    }

    /// 415 UnsupportedMediaType.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::make(415, "UnsupportedMediaType", message)
    }

    /// 413 RequestEntityTooLarge.
    pub fn too_large(limit: usize) -> Self {
        Self::make(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// 410 Expired: a resourceVersion outside the history.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::make(410, "Expired", message)
    }

    /// 410 Expired for a continue token outside the history; `token` continues without consistency.
    pub fn expired_continue(token: String) -> Self {
        let mut error = Self::make(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the \
             list.",
        );
        error.0.continue_token = Some(token);
        error
    }

    /// 504 Timeout for a resourceVersion the server has not reached.
    pub fn version_too_large(wanted: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        let mut error = Self::make(504, "Timeout", message);
        error.0.retry_after = Some(1);
        error.0.causes = vec![Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }];
        error
    }

    /// 504 Timeout of a request that outlived its deadline.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::make(504, "Timeout", message)
    }

    /// 429 TooManyRequests.
    pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Self {
        let mut error = Self::make(429, "TooManyRequests", message);
        error.0.retry_after = (retry_after > 0).then_some(retry_after);
        error
    }

    /// 503 ServiceUnavailable.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::make(503, "ServiceUnavailable", message)
    }

    /// 500 InternalError. `internal` is for the log and for the message, which upstream also exposes.
    pub fn internal(internal: impl std::fmt::Display) -> Self {
        let text = internal.to_string();
        let mut error = Self::make(500, "InternalError", format!("Internal error occurred: {text}"));
        error.0.causes = vec![Cause { reason: String::new(), message: text.clone(), field: String::new() }];
        error.0.internal = Some(text);
        error
    }

    /// Any other code, as a node's server answered it.
    pub fn upstream(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            410 => "Gone",
            422 => "Invalid",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        Self::make(code, reason, message)
    }

    /// A code and a message without a reason, as upstream answers errors it has no name for.
    pub fn plain(code: u16, message: impl Into<String>) -> Self {
        Self::make(code, "", message)
    }

    /// A `Status` that somebody else made of a refusal: a webhook. What is no part of one is left out.
    pub fn answered(status: &Value) -> Self {
        let text = |path: &[&str]| str_at(status, path).to_owned();
        let causes = list_at(status, &["details", "causes"]).iter().take(MAX_CAUSES);
        Self(Box::new(Inner {
            code: int_at(status, &["code"]).and_then(|code| u16::try_from(code).ok()).unwrap_or(500),
            reason: text(&["reason"]).into(),
            message: text(&["message"]),
            name: text(&["details", "name"]),
            group: text(&["details", "group"]),
            kind: text(&["details", "kind"]),
            uid: text(&["details", "uid"]),
            causes: causes
                .map(|cause| Cause {
                    reason: str_at(cause, &["reason"]).to_owned(),
                    message: str_at(cause, &["message"]).to_owned(),
                    field: str_at(cause, &["field"]).to_owned(),
                })
                .collect(),
            retry_after: int_at(status, &["details", "retryAfterSeconds"]).and_then(|s| u32::try_from(s).ok()),
            ..Inner::default()
        }))
    }

    /// The same, with what is to be read first.
    #[must_use]
    pub fn preceded_by(mut self, text: &str) -> Self {
        self.0.message = format!("{text}: {}", self.0.message);
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        self.0.causes.push(Cause { reason: reason.into(), message: message.into(), field: field.into() });
        self
    }

    /// Adds the uid of the object the error is about.
    #[must_use]
    pub fn with_uid(mut self, uid: &str) -> Self {
        self.0.uid = uid.to_owned();
        self
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.0.code
    }

    /// The machine-readable reason.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The internal text of a 500.
    pub fn internal_text(&self) -> Option<&str> {
        self.0.internal.as_deref()
    }

    /// Seconds for the `Retry-After` header.
    pub fn retry_after(&self) -> Option<u32> {
        self.0.retry_after
    }

    /// Whether this is a 404.
    pub fn is_not_found(&self) -> bool {
        self.0.code == 404
    }

    /// Whether this is a 409 Conflict (not AlreadyExists).
    pub fn is_conflict(&self) -> bool {
        self.0.reason == "Conflict"
    }

    /// Whether this is a 409 AlreadyExists.
    pub fn is_already_exists(&self) -> bool {
        self.0.reason == "AlreadyExists"
    }

    /// The `metav1.Status` object.
    pub fn to_value(&self) -> Value {
        let inner = &*self.0;
        let mut metadata = Map::new();
        if let Some(token) = &inner.continue_token {
            metadata.insert("continue".into(), json!(token));
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": inner.message,
        });
        if !inner.reason.is_empty() {
            status["reason"] = json!(inner.reason);
        }
        let details = self.details();
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status["code"] = json!(inner.code);
        status
    }

    fn details(&self) -> Map<String, Value> {
        let inner = &*self.0;
        let mut details = Map::new();
        for (key, value) in [("name", &inner.name), ("group", &inner.group), ("kind", &inner.kind), ("uid", &inner.uid)]
        {
            if !value.is_empty() {
                details.insert(key.into(), json!(value));
            }
        }
        if !inner.causes.is_empty() {
            details.insert("causes".into(), inner.causes.iter().map(cause_value).collect());
        }
        if let Some(seconds) = inner.retry_after {
            details.insert("retryAfterSeconds".into(), json!(seconds));
        }
        details
    }
}

fn cause_value(cause: &Cause) -> Value {
    let mut out = Map::new();
    for (key, value) in [("reason", &cause.reason), ("message", &cause.message), ("field", &cause.field)] {
        if !value.is_empty() {
            out.insert(key.into(), json!(value));
        }
    }
    Value::Object(out)
}

/// The `status: Success` object a delete answers.
pub fn deleted(subject: Subject<'_>, name: &str, uid: &str) -> Value {
    let mut details = Map::new();
    for (key, value) in [("name", name), ("group", subject.group), ("kind", subject.kind), ("uid", uid)] {
        if !value.is_empty() {
            details.insert(key.into(), json!(value));
        }
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// A bare `status: Success`, with code when upstream gives one (binding and eviction answer 201).
pub fn success(code: Option<u16>) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if let Some(code) = code {
        status["code"] = json!(code);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_upstream_texts() {
        let deployments = Subject::new("apps", "deployments");
        let pods = Subject::new("", "pods");
        for (error, code, reason, message) in [
            (ApiError::not_found(deployments, "x"), 404, "NotFound", "deployments.apps \"x\" not found"),
            (ApiError::already_exists(pods, "x"), 409, "AlreadyExists", "pods \"x\" already exists"),
            (
                ApiError::modified(pods, "x"),
                409,
                "Conflict",
                "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (ApiError::unauthorized(), 401, "Unauthorized", "Unauthorized"),
            (ApiError::too_large(3145728), 413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"),
        ] {
            let value = error.to_value();
            assert_eq!(value["code"], code);
            assert_eq!(value["reason"], reason);
            assert_eq!(value["message"], message);
            assert_eq!(value["status"], "Failure");
        }
    }

    #[test]
    fn details_carry_causes() {
        let cause =
            Cause { reason: "FieldValueRequired".into(), message: "Required value".into(), field: "spec.a".into() };
        let error = ApiError::invalid(Subject::new("apps", "Deployment"), "x", "spec.a: Required value", vec![cause]);
        assert_eq!(error.to_value()["message"], "Deployment.apps \"x\" is invalid: spec.a: Required value");
        assert_eq!(error.to_value()["details"]["causes"][0]["field"], "spec.a");
        assert_eq!(ApiError::bad_request("x").to_value().get("details"), None);
    }
}
