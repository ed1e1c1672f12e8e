//! Custom resources in another version, as a webhook says
//! (k8s.io/apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go): what is asked, what the answer has
//! to be, and where in a request somebody has to be asked. Objects that are in the version already are not sent.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::review;
use crate::backends;
use crate::call::Call;
use crate::deadline;
use crate::outbound::{Outbound, Peer, Resolve, ServicePort, Unusable};
use crate::registry::WriteResult;
use crate::server::{Server, random_uid};
use crate::status::ApiError;
use scheme::Kind;
use scheme::access::{at, list_at, str_at};
use storage::{Object, encode_stored};

/// Longest time that a webhook has for an answer, as upstream.
const LONGEST: Duration = Duration::from_secs(30);
/// Bytes of objects that are sent at once, and their number.
const BATCH: (usize, usize) = (1 << 20, 500);

/// The webhook of a definition.
#[derive(Debug)]
pub struct Converter {
    peer: Result<Peer, Unusable>,
    /// The version of ConversionReview that it understands.
    review: Option<&'static str>,
}

impl Converter {
    /// That of a definition which says that there is one.
    pub fn of(crd: &Value, outbound: &Arc<Outbound>) -> Option<Arc<Self>> {
        let conversion = at(crd, &["spec", "conversion"]);
        if str_at(conversion, &["strategy"]) != "Webhook" {
            return None;
        }
        let versions = list_at(conversion, &["webhook", "conversionReviewVersions"]).iter();
        let review = versions.filter_map(Value::as_str).find_map(|version| match version {
            "v1" => Some("v1"),
            "v1beta1" => Some("v1beta1"),
            _ => None,
        });
        Some(Arc::new(Self { peer: Peer::new(at(conversion, &["webhook", "clientConfig"]), outbound), review }))
    }

    /// An object in the version of a kind.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn convert_one(&self, server: &Server, object: Value, kind: &Kind) -> Result<Value, String> {
        let from = str_at(&object, &["apiVersion"]).to_owned();
        let converted =
            self.convert(server, &[object], &kind.api_version()).await.map_err(|why| failure(&from, kind, &why))?;
        converted.into_iter().next().ok_or_else(|| failure(&from, kind, "a conversion gave nothing"))
    }

    /// The objects in another version, in their order; all of them are in other versions.
    async fn convert(&self, server: &Server, objects: &[Value], api_version: &str) -> Result<Vec<Value>, String> {
        let version = self.review.ok_or("no supported conversion review versions")?;
        let peer = self.peer.as_ref().map_err(ToString::to_string)?;
        let uid = random_uid();
        let question = json!({
            "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
        });
        let left = deadline::left().unwrap_or(LONGEST).clamp(Duration::from_millis(1), LONGEST);
        let parts = [Bytes::from(question.to_string())];
        let answer = peer.post(&parts, (LONGEST, left), &Endpoints(server)).await.map_err(|why| why.to_string())?;
        if !(200..=206).contains(&answer.code) {
            return Err(format!("the server responded with the status code {}", answer.code));
        }
        review::converted(version, &uid, api_version, objects, &answer.body)
    }
}

/// What is told of objects that could not be converted from a version.
fn failure(from: &str, kind: &Kind, why: &str) -> String {
    format!("conversion webhook for {from}, Kind={} failed: {why}", kind.kind)
}

/// Services' endpoints, as the server knows them.
struct Endpoints<'a>(&'a Server);

impl Resolve for Endpoints<'_> {
    fn endpoint(&self, service: &ServicePort) -> Result<SocketAddr, String> {
        backends::endpoint(self.0, service)
    }
}

/// Whether an object is evidently stored in a version: most encoded objects begin with it.
fn is_in(object: &Object, api_version: &str) -> bool {
    let rest = object.json_bytes().strip_prefix(b"{\"apiVersion\":\"");
    rest.and_then(|rest| rest.strip_prefix(api_version.as_bytes())).is_some_and(|rest| rest.first() == Some(&b'"'))
}

impl Call {
    /// The kind whose rules a write passes: that of the stored form, but of custom resources that of the request, since
    /// each of their versions has rules of its own.
    pub fn ruling(&self) -> &Arc<Kind> {
        if self.kind.custom { &self.kind } else { &self.resource.kind }
    }

    /// A stored object as the rules of a write know it.
    ///
    /// # Errors
    /// 500 where a webhook does not say what it is in the version of the request.
    pub async fn judged<'v>(&self, stored: &'v Value) -> Result<Cow<'v, Value>, ApiError> {
        let Some(conversion) = self.kind.conversion.as_ref().filter(|_| self.kind.custom) else {
            return Ok(Cow::Borrowed(stored));
        };
        let own = self.turned(stored.clone(), &self.kind.api_version()).await?;
        Ok(Cow::Owned((*conversion.from_storage)(own)))
    }

    /// An object that passed the rules of a write as it is stored.
    ///
    /// # Errors
    /// As [`Call::judged`].
    pub async fn laid_down(&self, judged: Value) -> Result<Value, ApiError> {
        let Some(conversion) = self.kind.conversion.as_ref().filter(|_| self.kind.custom) else { return Ok(judged) };
        let stored = self.turned(judged, &format!("{}/{}", conversion.group, conversion.version)).await?;
        Ok((*conversion.to_storage)(stored))
    }

    /// Stored objects of which each is in the version of the request where only a webhook knows what it is in that.
    ///
    /// # Errors
    /// As [`Call::judged`].
    pub async fn converted(&self, mut objects: Vec<Arc<Object>>) -> Result<Vec<Arc<Object>>, ApiError> {
        if self.resource.converter().is_none() {
            return Ok(objects);
        }
        let own = self.kind.api_version();
        let mut waiting: Vec<usize> =
            objects.iter().enumerate().filter(|(_, object)| !is_in(object, &own)).map(|(place, _)| place).collect();
        waiting.reverse();
        while !waiting.is_empty() {
            let (mut places, mut values, mut length) = (Vec::new(), Vec::new(), 0);
            while let Some(place) = waiting.pop_if(|_| length < BATCH.0 && places.len() < BATCH.1) {
                length += objects[place].json_bytes().len();
                let value = objects[place].value();
                if str_at(&value, &["apiVersion"]) != own {
                    places.push(place);
                    values.push(value);
                }
            }
            if places.is_empty() {
                continue;
            }
            for (place, mut value) in places.iter().zip(self.all_turned(values, &own).await?) {
                let before = &objects[*place];
                let bytes = encode_stored(&mut value);
                let fields = self.resource.cache().spec().fields();
                let after = Object::parse(&bytes, before.revision(), before.kind(), fields);
                objects[*place] = Arc::new(after.map_err(ApiError::internal)?);
            }
        }
        Ok(objects)
    }

    /// The same of one.
    ///
    /// # Errors
    /// As [`Call::judged`].
    pub async fn converted_one(&self, object: Arc<Object>) -> Result<Arc<Object>, ApiError> {
        if self.resource.converter().is_none() {
            return Ok(object);
        }
        let mut objects = self.converted(vec![object.clone()]).await?;
        Ok(objects.pop().unwrap_or(object))
    }

    /// What came of a write, for its answer.
    ///
    /// # Errors
    /// As [`Call::judged`].
    pub async fn answered(&self, written: WriteResult) -> Result<WriteResult, ApiError> {
        let object = self.converted_one(written.object).await?;
        Ok(WriteResult { object, removed: written.removed })
    }

    async fn turned(&self, object: Value, api_version: &str) -> Result<Value, ApiError> {
        if self.resource.converter().is_none() || str_at(&object, &["apiVersion"]) == api_version {
            return Ok(object);
        }
        let mut objects = self.all_turned(vec![object], api_version).await?;
        objects.pop().ok_or_else(|| ApiError::internal("a conversion gave nothing"))
    }

    /// Objects of other versions, each as the schema of its version has it, in this one.
    async fn all_turned(&self, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, ApiError> {
        let Some(converter) = self.resource.converter() else { return Ok(objects) };
        let scheme = self.server.registry.served().scheme.clone();
        let as_read = |object: Value| {
            let known = scheme.by_api_version(str_at(&object, &["apiVersion"]), &self.kind.kind);
            match known.and_then(|kind| kind.conversion.as_ref()) {
                Some(conversion) => (*conversion.from_storage)(object),
                None => object,
            }
        };
        let objects: Vec<Value> = objects.into_iter().map(as_read).collect();
        let from = objects.first().map_or("", |object| str_at(object, &["apiVersion"])).to_owned();
        let failed = |why: String| ApiError::plain(500, failure(&from, &self.kind, &why));
        converter.convert(&self.server, &objects, api_version).await.map_err(failed)
    }
}
