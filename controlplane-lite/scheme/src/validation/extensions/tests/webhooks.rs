//! How webhooks are reached that convert objects.

use super::*;

#[test]
fn webhooks() {
    let service = json!({"name": "n", "namespace": "ns"});
    let webhook = |config: Value, reviews: Value| {
        spec(json!({"conversion": {"strategy": "Webhook",
            "webhook": {"clientConfig": config, "conversionReviewVersions": reviews}}}))
    };
    let to = |changes: Value| webhook(json!({"service": merge::apply(&service, &changes)}), json!(["v1"]));
    let at = |url: &str| webhook(json!({ "url": url }), json!(["v1"]));
    let reviewed = |reviews: Value| webhook(json!({ "service": service }), reviews);
    let path = "spec.conversion.webhookClientConfig";
    let port = "port is not valid: must be between 1 and 65535, inclusive";
    let form = "desired format: https://host[/path]";
    let reviews = "spec.conversion.conversionReviewVersions";
    check(&[
        (to(json!({})), &[]),
        (to(json!({"port": 0})), &[&format!("{path}.service.port: Invalid value: 0: {port}")]),
        (to(json!({"port": 65536})), &[&format!("{path}.service.port: Invalid value: 65536: {port}")]),
        (to(json!({"name": ""})), &[&format!("{path}.service.name: Required value")]),
        (to(json!({"namespace": ""})), &[&format!("{path}.service.namespace: Required value")]),
        (to(json!({"path": "/a/b/"})), &[]),
        (
            to(json!({"path": "//"})),
            &[&format!("{path}.service.path: Invalid value: \"//\": segment[0] may not be empty")],
        ),
        (
            to(json!({"path": "/a//b"})),
            &[&format!("{path}.service.path: Invalid value: \"/a//b\": segment[1] may not be empty")],
        ),
        (to(json!({"path": "xa"})), &[&format!("{path}.service.path: Invalid value: \"xa\": must start with a '/'")]),
        (
            to(json!({"path": "/A"})),
            &[&format!("{path}.service.path: Invalid value: \"/A\": segment[0]: {SUBDOMAIN})")],
        ),
        (
            webhook(json!({"service": service, "url": "https://a"}), json!(["v1"])),
            &[&format!("{path}: Required value: exactly one of url or service is required")],
        ),
        (
            webhook(json!({}), json!(["v1"])),
            &[&format!("{path}: Required value: exactly one of url or service is required")],
        ),
        (
            webhook(json!(null), json!(["v1"])),
            &[&format!("{path}: Required value: required when strategy is set to Webhook")],
        ),
        (at("https://host/path"), &[]),
        (
            at(""),
            &[
                &format!("{path}.url: Invalid value: \"\": 'https' is the only allowed URL scheme; {form}"),
                &format!("{path}.url: Invalid value: \"\": host must be specified; {form}"),
            ],
        ),
        (
            at("http://h"),
            &[&format!("{path}.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; {form}")],
        ),
        (
            at("https://u@h"),
            &[&format!("{path}.url: Invalid value: \"u\": user information is not permitted in the URL")],
        ),
        (at("https://h#f"), &[&format!("{path}.url: Invalid value: \"f\": fragments are not permitted in the URL")]),
        (
            at("https://h?q=1"),
            &[&format!("{path}.url: Invalid value: \"q=1\": query parameters are not permitted in the URL")],
        ),
        (
            at("https://h:x"),
            &[&format!(
                "{path}.url: Required value: url must be a valid URL: parse \"https://h:x\": invalid port \":x\" after host; {form}"
            )],
        ),
        (reviewed(json!([])), &[&format!("{reviews}: Required value")]),
        (reviewed(json!(["invalid-version", "v1beta1"])), &[]),
        (
            reviewed(json!(["invalid-version"])),
            &[&format!("{reviews}: Invalid value: [\"invalid-version\"]: must include at least one of v1, v1beta1")],
        ),
        (
            reviewed(json!(["0v"])),
            &[
                &format!("{reviews}[0]: Invalid value: \"0v\": {LABEL}"),
                &format!("{reviews}: Invalid value: [\"0v\"]: must include at least one of v1, v1beta1"),
            ],
        ),
        (reviewed(json!(["v1", "v1"])), &[&format!("{reviews}[1]: Invalid value: \"v1\": duplicate version")]),
        // A bundle is looked at once somebody uses it.
        (webhook(json!({"service": service, "caBundle": "Cg=="}), json!(["v1"])), &[]),
        (spec(json!({"conversion": {"strategy": ""}})), &["spec.conversion.strategy: Required value"]),
        (
            spec(json!({"conversion": {"strategy": "Other"}})),
            &["spec.conversion.strategy: Unsupported value: \"Other\": supported values: \"None\", \"Webhook\""],
        ),
        (
            spec(json!({"conversion": {"strategy": "None", "webhook": {"clientConfig": {"service": service}}}})),
            &[&format!("{path}: Forbidden: should not be set when strategy is not set to Webhook")],
        ),
        (
            spec(json!({"conversion": {"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}}})),
            &[&format!("{reviews}: Forbidden: should not be set when strategy is not set to Webhook")],
        ),
    ]);
}
