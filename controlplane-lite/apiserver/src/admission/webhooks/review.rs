//! AdmissionReviews: what a webhook is asked and what it may answer
//! (k8s.io/apiserver/pkg/admission/plugin/webhook/request/admissionreview.go, `errors/statuserror.go`). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::matching::Named;
use auth::authn::UserInfo;
use scheme::decode::{self, MediaType};
use scheme::field::go_quote;

/// Warnings that are read of one answer.
const MAX_WARNINGS: usize = 100;

/// What one webhook, or several alike, are asked.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// As the webhook sees it.
    pub kind: Named<'a>,
    pub resource: Named<'a>,
    /// As it was asked for.
    pub request_kind: Named<'a>,
    pub request_resource: Named<'a>,
    pub subresource: &'a str,
    pub name: &'a str,
    pub namespace: &'a str,
    pub operation: &'a str,
    pub user: &'a UserInfo,
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    pub options: Value,
}

#[derive(Serialize)]
struct Kind<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

#[derive(Serialize)]
struct Resource<'a> {
    group: &'a str,
    version: &'a str,
    resource: &'a str,
}

impl<'a> From<Named<'a>> for Kind<'a> {
    fn from(Named { group, version, name }: Named<'a>) -> Self {
        Self { group, version, kind: name }
    }
}

impl<'a> From<Named<'a>> for Resource<'a> {
    fn from(Named { group, version, name }: Named<'a>) -> Self {
        Self { group, version, resource: name }
    }
}

/// `AdmissionRequest` but for the uid, in the order of Go's fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: Kind<'a>,
    resource: Resource<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    sub_resource: &'a str,
    request_kind: Kind<'a>,
    request_resource: Resource<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_sub_resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    operation: &'a str,
    user_info: &'a UserInfo,
    object: Option<&'a Value>,
    old_object: Option<&'a Value>,
    dry_run: bool,
    options: &'a Value,
}

impl Question<'_> {
    fn request(&self) -> Request<'_> {
        Request {
            kind: self.kind.into(),
            resource: self.resource.into(),
            sub_resource: self.subresource,
            request_kind: self.request_kind.into(),
            request_resource: self.request_resource.into(),
            request_sub_resource: self.subresource,
            name: self.name,
            namespace: self.namespace,
            operation: self.operation,
            user_info: self.user,
            object: self.object,
            old_object: self.old,
            dry_run: self.dry_run,
            options: &self.options,
        }
    }

    /// The question as it is sent, but for what [`asked`] puts around it: webhooks that are asked the same share it.
    pub(super) fn encode(&self) -> Bytes {
        // Values have keys that are texts, so that they can be written.
        let text = Bytes::from(serde_json::to_vec(&self.request()).unwrap_or_default());
        text.slice(1.min(text.len())..)
    }

    /// The same as a value, for expressions.
    pub(super) fn to_value(&self) -> Value {
        serde_json::to_value(self.request()).unwrap_or(Value::Null)
    }
}

/// The parts of a review that asks an encoded question under a uid.
pub(super) fn asked(version: &str, uid: &str, question: &Bytes) -> [Bytes; 3] {
    let head = format!(
        "{{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/{version}\",\"request\":{{\"uid\":\"{uid}\","
    );
    [head.into(), question.clone(), Bytes::from_static(b"}")]
}

/// What a webhook answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    pub allowed: bool,
    /// A JSON patch, not read yet.
    pub patch: Vec<u8>,
    /// A `Status`, or null.
    pub result: Value,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
}

/// Reads an answer to what was asked in a version under a uid.
///
/// # Errors
/// What is wrong with it, and whether it is a review at all.
pub(super) fn verify(version: &str, uid: &str, mutating: bool, body: &[u8]) -> Result<Verdict, Wrong> {
    let parsed = decode::parse(MediaType::Json, body).map_err(|why| {
        let (decode::ParseError::Json(text) | decode::ParseError::Yaml(text)) = why;
        Wrong::NoReview(format!("couldn't get version/kind; json parse error: {text}"))
    })?;
    let review = parsed.value;
    let text = |field: &str| review.get(field).and_then(Value::as_str).unwrap_or("");
    let (said, kind) = (text("apiVersion"), text("kind"));
    let expected = format!("admission.k8s.io/{version}");
    if !(said.is_empty() || said == expected) || !(kind.is_empty() || kind == "AdmissionReview") {
        let what = if kind.is_empty() { "AdmissionReview" } else { kind };
        let at = if said.is_empty() { &expected } else { said };
        return Err(Wrong::NoReview(format!("no kind {what:?} is registered for version {at:?} in scheme")));
    }
    let response = match review.get("response") {
        None | Some(Value::Null) => return Err(Wrong::Response("webhook response was absent".to_owned())),
        Some(Value::Object(response)) => response,
        Some(other) => return Err(mistyped("response", other, "v1.AdmissionResponse")),
    };
    let read = read(response)?;
    if version == "v1" {
        if read.uid != uid {
            let why = format!("expected response.uid={}, got {}", go_quote(uid), go_quote(&read.uid));
            return Err(Wrong::Response(why));
        }
        if said.is_empty() || kind.is_empty() {
            let (group, version) = said.split_once('/').unwrap_or(("", said));
            let got = format!("{group}/{version}, Kind={kind}");
            let why = format!("expected webhook response of {expected}, Kind=AdmissionReview, got {got}");
            return Err(Wrong::Response(why));
        }
        read.check_patch(mutating).map_err(|why| Wrong::Response(why.to_owned()))?;
    }
    if mutating && version == "v1" && read.patch_type.as_deref().is_some_and(|ty| ty != "JSONPatch") {
        return Err(Wrong::PatchType(read.patch_type.unwrap_or_default()));
    }
    // What an older webhook that only judges says of patches was never read.
    let patch = if mutating { read.patch } else { Vec::new() };
    let Read { allowed, result, warnings, annotations, .. } = read;
    Ok(Verdict { allowed, patch, result, warnings, annotations })
}

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is no AdmissionReview.
    NoReview(String),
    /// It is one that says what it may not.
    Response(String),
    /// Its patch is of a type nobody knows.
    PatchType(String),
}

#[derive(Debug, Default)]
struct Read {
    uid: String,
    allowed: bool,
    patch: Vec<u8>,
    patch_type: Option<String>,
    result: Value,
    warnings: Vec<String>,
    annotations: Vec<(String, String)>,
}

impl Read {
    fn check_patch(&self, mutating: bool) -> Result<(), &'static str> {
        match (mutating, self.patch.is_empty(), &self.patch_type) {
            (true, false, None) => Err("webhook returned response.patch but not response.patchType"),
            (true, true, Some(_)) => Err("webhook returned response.patchType but not response.patch"),
            (true, _, Some(ty)) if ty.is_empty() => Err("webhook returned invalid response.patchType of \"\""),
            (false, false, _) => Err("validating webhook may not return response.patch"),
            (false, _, Some(_)) => Err("validating webhook may not return response.patchType"),
            _ => Ok(()),
        }
    }
}

fn mistyped(field: &str, value: &Value, ty: &str) -> Wrong {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let place = format!("AdmissionReview.{field}");
    Wrong::NoReview(format!("json: cannot unmarshal {found} into Go struct field {place} of type {ty}"))
}

fn read(response: &Map<String, Value>) -> Result<Read, Wrong> {
    let mut read = Read::default();
    for (field, value) in response.iter().filter(|(_, value)| !value.is_null()) {
        let wrong = |ty: &str| mistyped(&format!("response.{field}"), value, ty);
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong("string"));
        match field.as_str() {
            "uid" => read.uid = text()?,
            "allowed" => read.allowed = value.as_bool().ok_or_else(|| wrong("bool"))?,
            "patchType" => read.patch_type = Some(text()?),
            "patch" => {
                let encoded = value.as_str().ok_or_else(|| wrong("[]uint8"))?;
                let decoded =
                    STANDARD.decode(encoded).map_err(|why| Wrong::NoReview(format!("illegal base64 data: {why}")));
                read.patch = decoded?;
            }
            "status" if value.is_object() => read.result = value.clone(),
            "status" => return Err(wrong("v1.Status")),
            "warnings" => {
                let list = value.as_array().ok_or_else(|| wrong("[]string"))?;
                read.warnings = list.iter().take(MAX_WARNINGS).filter_map(Value::as_str).map(str::to_owned).collect();
            }
            "auditAnnotations" => {
                let map = value.as_object().ok_or_else(|| wrong("map[string]string"))?;
                let texts = map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
                read.annotations = texts.collect();
            }
            _ => {}
        }
    }
    Ok(read)
}

/// The `Status` that says who denied a request, out of what the webhook said about it (`ToStatusErr`).
pub(super) fn denial(webhook: &str, result: &Value) -> Value {
    let denied = format!("admission webhook {} denied the request", go_quote(webhook));
    let mut status = result.as_object().cloned().unwrap_or_default();
    let text = |field: &str| result.get(field).and_then(Value::as_str).unwrap_or("");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", said) | (said, _) => format!("{denied}: {said}"),
    };
    // Nobody is refused with a code that says yes.
    let code = result.get("code").and_then(Value::as_i64).unwrap_or(0).max(400);
    status.insert("message".to_owned(), message.into());
    status.insert("code".to_owned(), code.into());
    status.insert("status".to_owned(), "Failure".into());
    Value::Object(status)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn answer(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    fn wrong(body: &Value, mutating: bool) -> Wrong {
        verify("v1", "123", mutating, body.to_string().as_bytes()).unwrap_err()
    }

    /// The cases of `admissionreview_test.go`.
    #[test]
    fn answers_are_checked() {
        let patch = STANDARD.encode("[]");
        for (body, mutating, why) in [
            (
                json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}),
                false,
                "webhook response was absent",
            ),
            (answer(json!({"uid": "x"})), false, "expected response.uid=\"123\", got \"x\""),
            (
                json!({"response": {"uid": "123"}}),
                false,
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=",
            ),
            (
                answer(json!({"uid": "123", "patch": patch})),
                true,
                "webhook returned response.patch but not response.patchType",
            ),
            (
                answer(json!({"uid": "123", "patchType": "JSONPatch"})),
                true,
                "webhook returned response.patchType but not response.patch",
            ),
            (
                answer(json!({"uid": "123", "patch": patch, "patchType": ""})),
                true,
                "webhook returned invalid response.patchType of \"\"",
            ),
            (answer(json!({"uid": "123", "patch": patch})), false, "validating webhook may not return response.patch"),
            (
                answer(json!({"uid": "123", "patchType": "JSONPatch"})),
                false,
                "validating webhook may not return response.patchType",
            ),
        ] {
            assert_eq!(wrong(&body, mutating), Wrong::Response(why.to_owned()), "{body}");
        }
        for (body, why) in [
            ("nonsense", "couldn't get version/kind; json parse error: "),
            ("{\"kind\": \"Pod\"}", "no kind \"Pod\" is registered for version \"admission.k8s.io/v1\""),
            ("{\"apiVersion\": \"admission.k8s.io/v1beta1\"}", "no kind \"AdmissionReview\" is registered"),
            (
                "{\"response\": 3}",
                "json: cannot unmarshal number into Go struct field AdmissionReview.response of type",
            ),
            (
                "{\"response\": {\"allowed\": \"yes\"}}",
                "json: cannot unmarshal string into Go struct field AdmissionReview.response.allowed of type bool",
            ),
            ("{\"response\": {\"patch\": \"?\"}}", "illegal base64 data"),
            ("{\"response\": {\"warnings\": {}}}", "json: cannot unmarshal object"),
        ] {
            let Err(Wrong::NoReview(told)) = verify("v1", "123", true, body.as_bytes()) else { panic!("{body}") };
            assert!(told.starts_with(why), "{body}: {told}");
        }
        let other = answer(json!({"uid": "123", "patch": patch, "patchType": "Other"}));
        assert_eq!(wrong(&other, true), Wrong::PatchType("Other".to_owned()));
    }

    #[test]
    fn answers_are_read() {
        let body =
            answer(json!({"uid": "123", "allowed": true, "patch": STANDARD.encode("[1]"), "patchType": "JSONPatch",
            "status": null, "warnings": ["w"], "auditAnnotations": {"a": "b"}, "more": 1}));
        let verdict = verify("v1", "123", true, body.to_string().as_bytes()).unwrap();
        let annotations = vec![("a".to_owned(), "b".to_owned())];
        let warnings = vec!["w".to_owned()];
        assert_eq!(
            verdict,
            Verdict { allowed: true, patch: b"[1]".to_vec(), result: Value::Null, warnings, annotations }
        );
        // An older one need not say what it is, nor whom it answers.
        let old = json!({"response": {"allowed": true, "patch": STANDARD.encode("[1]")}}).to_string();
        assert_eq!(verify("v1beta1", "123", true, old.as_bytes()).unwrap().patch, b"[1]");
        assert!(verify("v1beta1", "123", false, old.as_bytes()).unwrap().patch.is_empty());
    }

    /// The cases of `errors/statuserror_test.go`.
    #[test]
    fn denials_say_who_denies() {
        for (result, message, code) in [
            (json!(null), "admission webhook \"a.b.c\" denied the request without explanation", 400),
            (json!({"message": "m", "reason": "r"}), "admission webhook \"a.b.c\" denied the request: m", 400),
            (json!({"reason": "r", "code": 200}), "admission webhook \"a.b.c\" denied the request: r", 400),
            (
                json!({"message": "m", "code": 403, "status": "Success"}),
                "admission webhook \"a.b.c\" denied the request: m",
                403,
            ),
        ] {
            let status = denial("a.b.c", &result);
            let told = (status["message"].as_str().unwrap(), status["code"].as_i64().unwrap(), &status["status"]);
            assert_eq!(told, (message, code, &json!("Failure")));
        }
    }

    #[test]
    fn questions_read_as_upstreams() {
        let user = UserInfo { username: "jane".into(), groups: vec!["people".into()], ..UserInfo::default() };
        let pods = Named { group: "", version: "v1", name: "pods" };
        let object = json!({"kind": "Pod"});
        let question = Question {
            kind: Named { name: "Pod", ..pods },
            resource: pods,
            request_kind: Named { name: "Pod", ..pods },
            request_resource: pods,
            subresource: "",
            name: "p",
            namespace: "n",
            operation: "CREATE",
            user: &user,
            object: Some(&object),
            old: None,
            dry_run: false,
            options: json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}),
        };
        let text = asked("v1", "u-1", &question.encode()).concat();
        let expect = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u-1","kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},"requestKind":{"group":"","version":"v1","kind":"Pod"},"requestResource":{"group":"","version":"v1","resource":"pods"},"name":"p","namespace":"n","operation":"CREATE","userInfo":{"username":"jane","groups":["people"]},"object":{"kind":"Pod"},"oldObject":null,"dryRun":false,"options":{"apiVersion":"meta.k8s.io/v1","kind":"CreateOptions"}}}"#;
        assert_eq!(String::from_utf8(text).unwrap(), expect);
    }
}
