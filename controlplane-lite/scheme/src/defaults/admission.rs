//! admissionregistration.k8s.io (`pkg/apis/admissionregistration/v1/defaults.go`).

use serde_json::{Map, Value, json};

use crate::access::{list_at_mut, map_at_mut, set_default};

/// MutatingWebhookConfiguration.
pub fn mutating_webhooks(object: &mut Value) {
    for webhook in list_at_mut(object, &["webhooks"]).iter_mut().filter_map(Value::as_object_mut) {
        self::webhook(webhook);
        set_default(webhook, "reinvocationPolicy", "Never");
    }
}

/// ValidatingWebhookConfiguration.
pub fn validating_webhooks(object: &mut Value) {
    for webhook in list_at_mut(object, &["webhooks"]).iter_mut().filter_map(Value::as_object_mut) {
        self::webhook(webhook);
    }
}

fn webhook(webhook: &mut Map<String, Value>) {
    set_default(webhook, "failurePolicy", "Fail");
    set_default(webhook, "timeoutSeconds", 10);
    matching(webhook);
    if let Some(rules) = webhook.get_mut("rules") {
        self::rules(rules);
    }
    let service = webhook.get_mut("clientConfig").and_then(|config| map_at_mut(config, &["service"]));
    if let Some(service) = service {
        set_default(service, "port", 443);
    }
}

/// A policy's part of both kinds.
pub fn policy(object: &mut Value) {
    if let Some(spec) = map_at_mut(object, &["spec"]) {
        set_default(spec, "failurePolicy", "Fail");
    }
    match_resources(object, "matchConstraints");
}

/// A binding's part of both kinds.
pub fn binding(object: &mut Value) {
    match_resources(object, "matchResources");
}

fn match_resources(object: &mut Value, field: &str) {
    let Some(resources) = map_at_mut(object, &["spec", field]) else { return };
    matching(resources);
    for field in ["resourceRules", "excludeResourceRules"] {
        if let Some(rules) = resources.get_mut(field) {
            self::rules(rules);
        }
    }
}

fn matching(map: &mut Map<String, Value>) {
    set_default(map, "matchPolicy", "Equivalent");
    set_default(map, "namespaceSelector", json!({}));
    set_default(map, "objectSelector", json!({}));
}

fn rules(rules: &mut Value) {
    for rule in rules.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        set_default(rule, "scope", "*");
    }
}
