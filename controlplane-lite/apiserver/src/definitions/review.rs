//! Pure: what a conversion webhook answers, and whether it may
//! (k8s.io/apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go).

use serde_json::{Map, Value};

use scheme::access::{at, list_at, str_at};
use scheme::decode::{self, MediaType};
use scheme::field::{FieldErrors, Path, go_quote};
use scheme::meta;

/// The objects of an answer, each with the metadata that its original has, but for labels and annotations.
///
/// # Errors
/// What is wrong with it, in upstream's words.
pub fn converted(
    version: &str,
    uid: &str,
    api_version: &str,
    originals: &[Value],
    body: &[u8],
) -> Result<Vec<Value>, String> {
    let mut review = decode::parse(MediaType::Json, body).map_err(|why| why.to_string())?.value;
    let expected = format!("apiextensions.k8s.io/{version}");
    let found = (str_at(&review, &["apiVersion"]), str_at(&review, &["kind"]));
    if version == "v1" && found != (&*expected, "ConversionReview") {
        return Err(format!(
            "expected webhook response of {expected}, Kind=ConversionReview, got {}, Kind={}",
            found.0, found.1
        ));
    }
    if at(&review, &["response"]).is_null() {
        return Err("no response provided".to_owned());
    }
    let response = &mut review["response"];
    let said = str_at(response, &["uid"]);
    if version == "v1" && said != uid {
        return Err(format!("expected response.uid={}, got {}", go_quote(uid), go_quote(said)));
    }
    let status = str_at(response, &["result", "status"]);
    if status != "Success" {
        return Err(match str_at(response, &["result", "message"]) {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_owned(),
        });
    }
    let count = list_at(response, &["convertedObjects"]).len();
    if count != originals.len() {
        return Err(format!("returned {count} objects, expected {}", originals.len()));
    }
    let objects = response["convertedObjects"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let each = objects.into_iter().zip(originals).enumerate();
    let checked = each.map(|(place, (object, original))| {
        restored(object, original, api_version)
            .map_err(|why| format!("returned invalid converted object at index {place}: {why}"))
    });
    checked.collect()
}

/// An object of an answer with its original's metadata.
fn restored(mut object: Value, original: &Value, api_version: &str) -> Result<Value, String> {
    let found = str_at(&object, &["apiVersion"]);
    if found != api_version {
        return Err(format!("invalid groupVersion (expected {api_version}, received {found})"));
    }
    let same = |path: &[&str], name: &str| {
        let (before, after) = (str_at(original, path), str_at(&object, path));
        if before == after { Ok(()) } else { Err(format!("must have the same {name}: {before} != {after}")) }
    };
    same(&["kind"], "kind")?;
    same(&["metadata", "name"], "name")?;
    same(&["metadata", "namespace"], "namespace")?;
    same(&["metadata", "uid"], "UID")?;
    let mut metadata = at(original, &["metadata"]).clone();
    let Some(kept) = metadata.as_object_mut() else { return Err("missing metadata in converted object".to_owned()) };
    let Some(sent) = object.get("metadata").and_then(Value::as_object) else {
        return Err("missing metadata in converted object".to_owned());
    };
    for field in ["labels", "annotations"] {
        kept.remove(field);
        let Some(value) = sent.get(field).filter(|value| !value.is_null()) else { continue };
        kept.insert(field.to_owned(), Value::Object(texts(field, value)?));
    }
    object["metadata"] = metadata;
    Ok(object)
}

/// A map of texts that labels or annotations may be.
fn texts(field: &str, value: &Value) -> Result<Map<String, Value>, String> {
    let Some(map) = value.as_object() else { return Err(format!("metadata.{field} is no map")) };
    if let Some((key, _)) = map.iter().find(|(_, value)| !value.is_string()) {
        return Err(format!("metadata.{field}[{key}] is no string"));
    }
    let mut errors = FieldErrors::new();
    let metadata = Path::new("metadata");
    let path = metadata.child(field);
    if field == "labels" {
        meta::validate_labels(value, &path, &mut errors);
    } else {
        meta::validate_annotations(value, &path, &mut errors);
    }
    errors.0.first().map_or_else(|| Ok(map.clone()), |error| Err(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use scheme::patch::merge;

    #[test]
    fn an_answer_is_judged() {
        let original = json!({"apiVersion": "e.com/v1", "kind": "W", "metadata": {"name": "a", "uid": "u",
            "labels": {"old": "x"}, "finalizers": ["f"]}, "spec": {"a": 1}});
        let object = json!({"apiVersion": "e.com/v2", "kind": "W", "metadata": {"name": "a", "uid": "u",
            "labels": {"new": "y"}, "finalizers": []}, "spec": {"b": 1}});
        let review = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response":
            {"uid": "1", "result": {"status": "Success"}, "convertedObjects": [object]}});
        let judge = |changes: Value| {
            let body = merge::apply(&review, &changes).to_string();
            converted("v1", "1", "e.com/v2", std::slice::from_ref(&original), body.as_bytes())
        };
        let good = judge(json!({})).map(|mut objects| objects.pop());
        let expect = merge::apply(&object, &json!({"metadata": {"finalizers": ["f"]}}));
        assert_eq!(good, Ok(Some(expect)));
        let with = |changes: Value| json!({"response": {"convertedObjects": [merge::apply(&object, &changes)]}});
        for (changes, why) in [
            (
                json!({"kind": "X"}),
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got \
                 apiextensions.k8s.io/v1, Kind=X",
            ),
            (json!({"response": null}), "no response provided"),
            (json!({"response": {"uid": "2"}}), "expected response.uid=\"1\", got \"2\""),
            (
                json!({"response": {"result": {"status": "Failure"}}}),
                "response.result.status was 'Failure', not 'Success'",
            ),
            (json!({"response": {"result": {"status": "Failure", "message": "no"}}}), "no"),
            (json!({"response": {"convertedObjects": []}}), "returned 0 objects, expected 1"),
            (
                with(json!({"apiVersion": "e.com/v3"})),
                "returned invalid converted object at index 0: invalid groupVersion (expected e.com/v2, received \
                 e.com/v3)",
            ),
            (
                with(json!({"metadata": {"name": "b"}})),
                "returned invalid converted object at index 0: must have the same name: a != b",
            ),
            (
                with(json!({"metadata": {"labels": {"a": 1}}})),
                "returned invalid converted object at index 0: metadata.labels[a] is no string",
            ),
        ] {
            assert_eq!(judge(changes.clone()), Err(why.to_owned()), "{changes}");
        }
    }
}
