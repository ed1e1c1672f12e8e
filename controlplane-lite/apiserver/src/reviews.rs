//! Kinds that are questions: TokenReview, the SubjectAccessReview family, SelfSubjectReview, SelfSubjectRulesReview.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::body::Body;
use super::call::{decode_body, valid};
use super::negotiate;
use super::options;
use super::request_info::{Query, RequestInfo};
use super::respond;
use super::server::Server;
use super::status::{ApiError, Subject};
use auth::authn::UserInfo;
use auth::authz::{Attributes, Verdict};
use scheme::access::{ensure_map, str_at};
use scheme::kind::{Review, Serving};
use scheme::{FieldErrors, Kind, Path};

/// Answers a review.
///
/// # Errors
/// 400 and 422 for what is asked badly.
pub async fn answer(
    server: &Arc<Server>,
    kind: &Kind,
    info: &RequestInfo,
    query: &Query,
    headers: &HeaderMap,
    user: &UserInfo,
    body: &Bytes,
) -> Result<Response<Body>, ApiError> {
    let options = options::write(query, "CreateOptions")?;
    let format = negotiate::accept_plain(headers)?;
    let decoded = decode_body(kind, headers, body, options.field_validation)?;
    let mut review = decoded.object;
    let subject = Subject::new(&kind.group, &kind.kind);
    let Serving::Review(asked) = kind.serving else { return Err(ApiError::no_such_path()) };
    match asked {
        Review::Token => token_review(server, subject, &mut review).await?,
        Review::SelfSubject => review["status"] = json!({"userInfo": user}),
        Review::SelfSubjectRules => rules_review(server, subject, user, &mut review)?,
        Review::SelfSubjectAccess => {
            let attributes = attributes(subject, &review, Some(user))?;
            decide(server, &attributes, &mut review);
        }
        Review::LocalSubjectAccess => {
            local_namespace(subject, info, &review)?;
            let attributes = attributes(subject, &review, None)?;
            decide(server, &attributes, &mut review);
        }
        Review::SubjectAccess => {
            let attributes = attributes(subject, &review, None)?;
            decide(server, &attributes, &mut review);
        }
    }
    ensure_map(&mut review, &["metadata"]).entry("creationTimestamp").or_insert(Value::Null);
    let mut response = respond::encode(StatusCode::CREATED, format, &review, query);
    respond::warn(&mut response, &decoded.warnings);
    Ok(response)
}

async fn token_review(server: &Server, subject: Subject<'_>, review: &mut Value) -> Result<(), ApiError> {
    let token = str_at(review, &["spec", "token"]).to_owned();
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let _ = subject;
    let wanted: Vec<String> = scheme::access::list_at(review, &["spec", "audiences"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    review["status"] = server.access.review_token(server, &token, &wanted).await;
    Ok(())
}

fn rules_review(server: &Server, subject: Subject<'_>, user: &UserInfo, review: &mut Value) -> Result<(), ApiError> {
    let namespace = str_at(review, &["spec", "namespace"]).to_owned();
    if namespace.is_empty() {
        let mut errors = FieldErrors::new();
        errors.required(&Path::new("spec").child("namespace"), "");
        valid(subject, "", errors)?;
    }
    review["status"] = server.access.rules(user, &namespace);
    Ok(())
}

fn local_namespace(subject: Subject<'_>, info: &RequestInfo, review: &Value) -> Result<(), ApiError> {
    let spec = Path::new("spec");
    let attributes = spec.child("resourceAttributes");
    let mut errors = FieldErrors::new();
    let asked = str_at(review, &["spec", "resourceAttributes", "namespace"]);
    if asked != info.namespace {
        errors.invalid(&attributes.child("namespace"), asked, "must match metadata.namespace");
    }
    if !review["spec"]["nonResourceAttributes"].is_null() {
        errors.invalid(&spec.child("nonResourceAttributes"), Value::Null, "disallowed on this kind of request");
    }
    valid(subject, "", errors)
}

/// What is asked, of whom.
fn attributes(subject: Subject<'_>, review: &Value, user: Option<&UserInfo>) -> Result<Attributes, ApiError> {
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut errors = FieldErrors::new();
    let at = Path::new("spec");
    if resource.is_null() == path.is_null() {
        let why = if resource.is_null() {
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        } else {
            "cannot be specified in combination with resourceAttributes"
        };
        errors.invalid(
            &at.child(if resource.is_null() { "resourceAttributes" } else { "nonResourceAttributes" }),
            Value::Null,
            why,
        );
    }
    let asked_user = match user {
        Some(user) => user.clone(),
        None => subject_of(spec),
    };
    if user.is_none() && asked_user.username.is_empty() && asked_user.groups.is_empty() {
        errors.invalid(&at.child("user"), "", "at least one of user or group must be specified");
    }
    valid(subject, "", errors)?;
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or("").to_owned();
    if !path.is_null() {
        return Ok(Attributes::non_resource(asked_user, &text(path, "verb"), &text(path, "path")));
    }
    Ok(Attributes {
        user: asked_user,
        verb: text(resource, "verb"),
        resource_request: true,
        group: text(resource, "group"),
        version: text(resource, "version"),
        resource: text(resource, "resource"),
        subresource: text(resource, "subresource"),
        namespace: text(resource, "namespace"),
        name: text(resource, "name"),
        ..Attributes::default()
    })
}

fn subject_of(spec: &Value) -> UserInfo {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    UserInfo {
        username: spec["user"].as_str().unwrap_or("").to_owned(),
        uid: spec["uid"].as_str().unwrap_or("").to_owned(),
        groups: list(&spec["groups"]),
        extra: spec["extra"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), list(v))).collect(),
    }
}

fn decide(server: &Server, attributes: &Attributes, review: &mut Value) {
    let decision = server.authz.authorize(attributes);
    let mut status = json!({"allowed": decision.allowed()});
    if decision.verdict == Verdict::Deny {
        status["denied"] = json!(true);
    }
    if !decision.reason.is_empty() {
        status["reason"] = json!(decision.reason);
    }
    review["status"] = status;
}
