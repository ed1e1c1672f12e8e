//! Tokens that a kubelet asks for: for its own pods, and for audiences that those pods name.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Restriction;
use crate::admission::Refusal;
use scheme::access::{at, list_at, str_at};

impl Restriction<'_> {
    pub(super) fn token(&self) -> Result<(), Refusal> {
        let Some(review) = self.object else { return Ok(()) };
        let bound = at(review, &["spec", "boundObjectRef"]);
        let text = |field: &str| bound[field].as_str().unwrap_or_default();
        if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
            return self.refuse("node requested token not bound to a pod");
        }
        if text("uid").is_empty() {
            return self.refuse("node requested token with a pod binding without a uid");
        }
        let Some(pod) = self.view.get("", "pods", self.request.namespace, text("name")) else {
            return Err(Refusal::NotFound { resource: super::PODS, name: text("name").to_owned() });
        };
        if str_at(&pod, &["metadata", "uid"]) != text("uid") {
            return self.refuse(format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have \
                 been deleted and then recreated",
                text("uid")
            ));
        }
        if str_at(&pod, &["spec", "nodeName"]) != self.node {
            return self.refuse("node requested token bound to a pod scheduled on a different node");
        }
        self.audiences(review, &pod)
    }

    fn audiences(&self, review: &Value, pod: &Value) -> Result<(), Refusal> {
        let audience = match list_at(review, &["spec", "audiences"]) {
            [] => return Ok(()),
            [one] => one.as_str().unwrap_or_default(),
            _ => return self.refuse("node may only request 0 or 1 audiences"),
        };
        // The API's own is what a token is for when none is named.
        if audience.is_empty() || self.view.is_own_audience(audience) || self.named(pod).contains(audience) {
            return Ok(());
        }
        let (namespace, account) = (self.request.namespace, self.request.name);
        let verb = "request-serviceaccounts-token-audience";
        if self.view.may(self.request.user, verb, "", (audience, namespace), account) {
            return Ok(());
        }
        self.refuse(format!("audience {audience:?} not found in pod spec volume"))
    }

    /// The audiences of the pod's projected tokens, and of the CSI drivers of its volumes.
    fn named(&self, pod: &Value) -> BTreeSet<String> {
        let mut audiences = BTreeSet::new();
        for volume in list_at(pod, &["spec", "volumes"]) {
            for source in list_at(volume, &["projected", "sources"]) {
                if let Some(audience) = source["serviceAccountToken"]["audience"].as_str() {
                    audiences.insert(audience.to_owned());
                }
            }
            if let Some(driver) = self.driver_of(pod, volume)
                && let Some(driver) = self.view.get("storage.k8s.io", "csidrivers", "", &driver)
            {
                let requests = list_at(&driver, &["spec", "tokenRequests"]).iter();
                audiences.extend(requests.map(|r| r["audience"].as_str().unwrap_or_default().to_owned()));
            }
        }
        audiences
    }

    /// The CSI driver behind a volume: its own, or that of the volume its claim is bound to.
    fn driver_of(&self, pod: &Value, volume: &Value) -> Option<String> {
        if let Some(driver) = volume["csi"]["driver"].as_str() {
            return Some(driver.to_owned());
        }
        let claim = match volume["persistentVolumeClaim"]["claimName"].as_str() {
            Some(claim) => claim.to_owned(),
            None if volume["ephemeral"].is_object() => {
                format!("{}-{}", str_at(pod, &["metadata", "name"]), str_at(volume, &["name"]))
            }
            None => return None,
        };
        let claim = self.view.get("", "persistentvolumeclaims", self.request.namespace, &claim)?;
        let bound = self.view.get("", "persistentvolumes", "", str_at(&claim, &["spec", "volumeName"]))?;
        Some(bound["spec"]["csi"]["driver"].as_str()?.to_owned())
    }
}
