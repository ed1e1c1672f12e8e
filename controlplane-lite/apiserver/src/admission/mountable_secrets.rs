//! Service accounts that say which Secrets their pods may use: the annotation of upstream's
//! plugin/pkg/admission/serviceaccount/admission.go, over every way in which a pod can name a Secret. Pure.

use serde_json::{Value, json};

use auth::pod::{self, Reference};
use scheme::access::{list_at, str_at};

/// The annotation, without which an account keeps nothing from its pods.
pub(super) const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

/// Why a pod may not use a Secret that it names, if there is one.
pub(super) fn refusal(account: &Value, pod: &Value) -> Option<String> {
    if str_at(account, &["metadata", "annotations", ENFORCE]) != "true" {
        return None;
    }
    let name = str_at(account, &["metadata", "name"]);
    let lists = |field: &str, secret: &str| list_at(account, &[field]).iter().any(|entry| entry["name"] == secret);
    let pulls = list_at(pod, &["spec", "imagePullSecrets"]).iter().filter_map(|entry| entry["name"].as_str());
    if let Some((at, secret)) = pulls.enumerate().find(|(_, secret)| !lists("imagePullSecrets", secret)) {
        return Some(format!(
            "imagePullSecrets[{at}].name=\"{secret}\" is not allowed because service account {name} does not reference \
             that imagePullSecret"
        ));
    }
    // What pulls images is judged above.
    let mut rest = json!({"spec": pod["spec"]});
    rest["spec"]["imagePullSecrets"] = Value::Null;
    let mut refused = None;
    pod::references(&rest, &mut |what, secret| {
        if what == Reference::Secret && refused.is_none() && !lists("secrets", secret) {
            refused = Some(format!(
                "secret \"{secret}\" is not allowed because service account {name} does not reference that secret"
            ));
        }
    });
    refused
}

/// The same for containers that are added to a running pod; what it names already is not judged again.
pub(super) fn refusal_of_ephemeral(account: &Value, pod: &Value) -> Option<String> {
    refusal(account, &json!({"spec": {"ephemeralContainers": pod["spec"]["ephemeralContainers"]}}))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn account(enforce: &str) -> Value {
        json!({"metadata": {"name": "app", "annotations": {ENFORCE: enforce}},
            "secrets": [{"name": "mine"}], "imagePullSecrets": [{"name": "pull"}]})
    }

    #[test]
    fn every_way_to_a_secret_is_closed() {
        for (spec, secret) in [
            (json!({"volumes": [{"secret": {"secretName": "S"}}]}), "S"),
            (json!({"volumes": [{"projected": {"sources": [{"secret": {"name": "S"}}]}}]}), "S"),
            (json!({"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "S"}}}]}]}), "S"),
            (json!({"initContainers": [{"envFrom": [{"secretRef": {"name": "S"}}]}]}), "S"),
            (json!({"ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "S"}}]}]}), "S"),
            (json!({"imagePullSecrets": [{"name": "pull"}, {"name": "S"}]}), "imagePullSecrets[1]"),
            (json!({"imagePullSecrets": [{"name": "mine"}]}), "imagePullSecrets[0]"),
        ] {
            let pod = json!({"spec": spec});
            let refused = refusal(&account("true"), &pod).unwrap_or_else(|| panic!("{pod}"));
            assert!(refused.contains(secret) && refused.contains("service account app"), "{refused}");
            assert_eq!(refusal(&account("false"), &pod), None);
            let allowed = pod.to_string().replace("\"S\"", "\"mine\"");
            if !allowed.contains("imagePull") {
                assert_eq!(refusal(&account("true"), &serde_json::from_str(&allowed).unwrap()), None, "{allowed}");
            }
        }
    }

    #[test]
    fn of_a_running_pod_only_what_is_added_counts() {
        let pod = json!({"spec": {"volumes": [{"secret": {"secretName": "old"}}],
            "ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "mine"}}]}]}});
        assert_eq!(refusal_of_ephemeral(&account("true"), &pod), None);
        let added = json!({"spec": {"ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "new"}}]}]}});
        assert!(refusal_of_ephemeral(&account("true"), &added).is_some());
    }
}
