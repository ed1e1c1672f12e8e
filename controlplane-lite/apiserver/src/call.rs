//! One resource request on its way through a verb: who, what, on which resource, and reading its body.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use super::negotiate;
use super::protobuf;
use super::registry::Resource;
use super::request_info::{Query, RequestInfo};
use super::server::Server;
use super::status::{self, ApiError, Subject};
use auth::authn::UserInfo;
use scheme::decode::{self, MediaType};
use scheme::strategy::{Context, Requester};
use scheme::{FieldErrors, FieldValidation, Kind};

/// A resource request.
#[derive(Debug)]
pub struct Call {
    /// The server.
    pub server: Arc<Server>,
    /// What the path and method say.
    pub info: RequestInfo,
    /// The query.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    /// Who asks.
    pub user: UserInfo,
    /// The kind as it is served.
    pub kind: Arc<Kind>,
    /// Where its objects are.
    pub resource: Arc<Resource>,
}

impl Call {
    /// Subject of errors about the resource.
    pub fn subject(&self) -> Subject<'_> {
        Subject::new(&self.kind.group, &self.kind.plural)
    }

    /// Subject of validation errors.
    pub fn kind_subject(&self) -> Subject<'_> {
        Subject::new(&self.kind.group, &self.kind.kind)
    }

    /// The same caller's request for one object of the collection.
    #[must_use]
    pub fn for_object(&self, namespace: &str, name: &str) -> Self {
        let info = RequestInfo {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
            ..self.info.clone()
        };
        Self {
            server: self.server.clone(),
            info,
            query: Query::default(),
            headers: HeaderMap::new(),
            user: self.user.clone(),
            kind: self.kind.clone(),
            resource: self.resource.clone(),
        }
    }

    /// The same request, of the object itself rather than its subresource.
    #[must_use]
    pub fn main(&self) -> Self {
        let mut call = self.for_object(&self.info.namespace, &self.info.name);
        call.info.subresource.clear();
        call
    }

    /// Decodes a body as `kind`, in the form it is stored.
    ///
    /// # Errors
    /// 415 for unknown media types, 400 for anything that is no such object.
    pub fn decode(&self, kind: &Kind, body: &Bytes, validation: FieldValidation) -> Result<decode::Decoded, ApiError> {
        decode_body(kind, &self.headers, body, validation)
    }

    /// Makes the namespace of a body the path's.
    ///
    /// # Errors
    /// 400 when they differ.
    pub fn ensure_namespace(&self, object: &mut Value) -> Result<(), ApiError> {
        let metadata = scheme::access::ensure_map(object, &["metadata"]);
        if !self.kind.namespaced {
            if metadata.get("namespace").and_then(Value::as_str).is_none_or(str::is_empty) {
                metadata.remove("namespace");
            }
            return Ok(());
        }
        match metadata.get("namespace").and_then(Value::as_str) {
            None | Some("") => {
                metadata.insert("namespace".into(), Value::String(self.info.namespace.clone()));
                Ok(())
            }
            Some(namespace) if namespace == self.info.namespace => Ok(()),
            Some(_) => Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )),
        }
    }

    /// What strategies are told of this request.
    pub fn context<'a>(&'a self, now: &'a str, uid: &'a str) -> Context<'a> {
        let UserInfo { username, uid: user_uid, groups, extra } = &self.user;
        Context { user: Requester { username, uid: user_uid, groups, extra }, now, uid }
    }

    /// An object that the rules of a write know as this kind serves it, not copied where that is the same.
    pub fn served_ref<'v>(&self, judged: &'v Value) -> Cow<'v, Value> {
        match &self.kind.conversion {
            Some(conversion) if !self.kind.custom => Cow::Owned((*conversion.from_storage)(judged.clone())),
            _ => Cow::Borrowed(judged),
        }
    }

    /// A stored object as this kind serves it.
    pub fn served(&self, stored: Value) -> Value {
        match &self.kind.conversion {
            Some(conversion) => (*conversion.from_storage)(stored),
            None => stored,
        }
    }

    /// An object as the rules of a write know it, of one as it is served.
    pub fn unserved(&self, served: Value) -> Value {
        match &self.kind.conversion {
            Some(conversion) if !self.kind.custom => (*conversion.to_storage)(served),
            _ => served,
        }
    }
}

/// Decodes a body by its content type.
///
/// # Errors
/// 415 for unknown media types, 400 for anything that is no such object.
pub fn decode_body(
    kind: &Kind,
    headers: &HeaderMap,
    body: &Bytes,
    validation: FieldValidation,
) -> Result<decode::Decoded, ApiError> {
    // Custom resources have no protobuf form.
    let known = if kind.custom { &negotiate::CUSTOM_BODY_TYPES[..] } else { &negotiate::BODY_TYPES[..] };
    let media = match negotiate::content_type(headers, known)? {
        "application/yaml" => MediaType::Yaml,
        protobuf::MEDIA_TYPE => {
            let object = protobuf::decode(kind, body).map_err(|e| ApiError::bad_request(e.to_string()))?;
            // Numbers and unknown fields are settled; types and identity are checked like everybody's.
            return decode::decode_value(kind, object, Vec::new(), true, validation)
                .map_err(|e| ApiError::bad_request(e.to_string()));
        }
        _ => MediaType::Json,
    };
    decode::decode(kind, media, body, validation).map_err(|e| ApiError::bad_request(e.to_string()))
}

/// 422 out of field errors; nothing when there are none.
///
/// # Errors
/// The Invalid status.
pub fn valid(kind: Subject<'_>, name: &str, errors: FieldErrors) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(status::invalid(kind, name, &errors)) }
}
