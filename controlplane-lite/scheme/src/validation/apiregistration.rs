//! APIServices (k8s.io/kube-aggregator/pkg/apis/apiregistration/validation/validation.go).

use serde_json::Value;

use super::port_number_detail;
use crate::access::{at, bool_at, int_at, list_at, str_at};
use crate::apiregistration::name_of;
use crate::field::{FieldErrors, Path, go_quote};
use crate::meta;

const SPEC: Path<'static> = Path::new("spec");

/// An APIService. Whose name is no segment of a path is told so before.
pub(crate) fn api_service(object: &Value, errors: &mut FieldErrors) {
    let (name, spec) = (str_at(object, &["metadata", "name"]), at(object, &["spec"]));
    let (group, version) = (str_at(spec, &["group"]), str_at(spec, &["version"]));
    let wanted = name_of(group, version);
    if name != wanted && meta::NameRule::PathSegment.check(name, false).is_empty() {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {}", go_quote(&wanted));
        errors.invalid(&Path::new("metadata").child("name"), name, detail);
    }
    if group.is_empty() && version != "v1" {
        errors.required(&SPEC.child("group"), "only v1 may have an empty group and it better be legacy kube");
    }
    if !group.is_empty() {
        super::dns_subdomain(group, &SPEC.child("group"), errors);
    }
    for problem in meta::dns1035_label(version) {
        errors.invalid(&SPEC.child("version"), version, problem);
    }
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = int_at(spec, &[field]).unwrap_or(0);
        if !(1..=most).contains(&priority) {
            errors.invalid(&SPEC.child(field), priority, format!("must be positive and less than {most}"));
        }
    }
    match at(spec, &["service"]) {
        Value::Null => local(spec, errors),
        service => remote(spec, service, errors),
    }
}

/// One that this server serves itself.
fn local(spec: &Value, errors: &mut FieldErrors) {
    let bundle = bundle_length(spec);
    if bundle > 0 {
        let told = format!("{bundle} bytes");
        errors.invalid(&SPEC.child("caBundle"), told, "local APIServices may not have a caBundle");
    }
    if bool_at(spec, &["insecureSkipTLSVerify"]) {
        let detail = "local APIServices may not have insecureSkipTLSVerify";
        errors.invalid(&SPEC.child("insecureSkipTLSVerify"), true, detail);
    }
}

/// One that a Service serves.
fn remote(spec: &Value, service: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("service");
    for field in ["namespace", "name"] {
        if str_at(service, &[field]).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    let port = int_at(service, &["port"]).unwrap_or(0);
    if let Some(problem) = port_number_detail(port) {
        errors.invalid(&path.child("port"), port, format!("port is not valid: {problem}"));
    }
    if bool_at(spec, &["insecureSkipTLSVerify"]) && bundle_length(spec) > 0 {
        errors.invalid(&SPEC.child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present");
    }
}

/// Bytes of the bundle, which objects have in base64.
fn bundle_length(spec: &Value) -> usize {
    let text = str_at(spec, &["caBundle"]);
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// A changed status.
pub(crate) fn status(object: &Value, errors: &mut FieldErrors) {
    let path = Path::new("status");
    let path = path.child("conditions");
    for (place, condition) in list_at(object, &["status", "conditions"]).iter().enumerate() {
        let status = str_at(condition, &["status"]);
        if !matches!(status, "True" | "False" | "Unknown") {
            let known = &["True", "False", "Unknown"];
            errors.not_supported(&path.index(place).child("status"), status, known);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use crate::builtin;
    use crate::patch::merge;

    /// The cases of k8s.io/kube-aggregator/pkg/apis/apiregistration/validation/validation_test.go, and its other rules.
    #[test]
    fn api_services() {
        let kind = builtin().by_gvk("apiregistration.k8s.io", "v1", "APIService").unwrap();
        let service = json!({"namespace": "n", "name": "s"});
        let remote = json!({"spec": {"service": service}});
        let port = "port is not valid: must be between 1 and 65535, inclusive";
        let label = crate::meta::dns1035_label("V1").remove(0);
        let rows = [
            (json!({}), vec![]),
            (remote.clone(), vec![]),
            (
                json!({"metadata": {"name": "v2.g"}}),
                vec![
                    r#"metadata.name: Invalid value: "v2.g": must be `spec.version+"."+spec.group`: "v1.g""#.to_owned(),
                ],
            ),
            (json!({"metadata": {"name": "v1."}, "spec": {"group": null}}), vec![]),
            (
                json!({"metadata": {"name": "v2."}, "spec": {"group": null, "version": "v2"}}),
                vec!["spec.group: Required value: only v1 may have an empty group and it better be legacy kube".into()],
            ),
            (
                json!({"metadata": {"name": "V1.g"}, "spec": {"version": "V1"}}),
                vec![format!("spec.version: Invalid value: \"V1\": {label}")],
            ),
            (
                json!({"spec": {"groupPriorityMinimum": null, "versionPriority": 1001}}),
                vec![
                    "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000".into(),
                    "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000".into(),
                ],
            ),
            (
                json!({"spec": {"caBundle": "YWI=", "insecureSkipTLSVerify": true}}),
                vec![
                    "spec.caBundle: Invalid value: \"2 bytes\": local APIServices may not have a caBundle".into(),
                    "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have \
                     insecureSkipTLSVerify"
                        .into(),
                ],
            ),
            (
                json!({"spec": {"service": {"port": 70_000}}}),
                vec![
                    "spec.service.namespace: Required value".into(),
                    "spec.service.name: Required value".into(),
                    format!("spec.service.port: Invalid value: 70000: {port}"),
                ],
            ),
            (
                json!({"spec": {"service": service, "caBundle": "YWI=", "insecureSkipTLSVerify": true}}),
                vec!["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present".into()],
            ),
        ];
        for (changes, expect) in rows {
            let base = json!({
                "metadata": {"name": "v1.g"},
                "spec": {"group": "g", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1},
            });
            let mut object = merge::apply(&base, &changes);
            kind.default(&mut object);
            let texts: Vec<String> = kind.validate_create(&object).0.iter().map(ToString::to_string).collect();
            assert_eq!(texts, expect, "{changes}");
        }
        let mut defaulted = remote;
        kind.default(&mut defaulted);
        assert_eq!(defaulted["spec"]["service"]["port"], 443);
    }

    #[test]
    fn what_is_local_is_available_at_once() {
        let kind = builtin().by_gvk("apiregistration.k8s.io", "v1", "APIService").unwrap();
        let made = |spec| {
            let mut object = json!({"metadata": {"name": "v1.g"}, "spec": spec, "status": {"conditions": [1]}});
            kind.prepare_create(&mut object, &crate::tests::context());
            object["status"].take()
        };
        assert_eq!(
            made(json!({})),
            json!({"conditions": [{"type": "Available", "status": "True", "reason": "Local",
                "lastTransitionTime": crate::tests::context().now,
                "message": "Local APIServices are always available"}]})
        );
        assert_eq!(made(json!({"service": {"name": "s"}})), json!({}));
        let mut object = json!({"status": {"conditions": [{"type": "Available", "status": "Maybe"}]}});
        object["metadata"] = json!({"name": "v1.g"});
        let problems = kind.validate_update("status", &object, &object);
        assert_eq!(
            problems.0[0].to_string(),
            "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\""
        );
    }
}
