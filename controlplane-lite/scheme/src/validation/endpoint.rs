//! Where a webhook is: what definitions of custom resources and configurations of admission have in common
//! (k8s.io/apiserver/pkg/util/webhook/validation.go).

use serde_json::Value;

use crate::access::{int_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::meta;

mod url;

pub(super) use url::Url;

const FORM: &str = "; desired format: https://host[/path]";

/// The address of a webhook (`ValidateWebhookURL`).
pub(super) fn address(text: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(why) => return errors.required(path, format!("url must be a valid URL: {why}{FORM}")),
    };
    if url.scheme != "https" {
        errors.invalid(path, &url.scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if url.host.is_empty() {
        errors.invalid(path, "", format!("host must be specified{FORM}"));
    }
    if let Some(user) = &url.user {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    if !url.fragment.is_empty() {
        errors.invalid(path, &url.fragment, "fragments are not permitted in the URL");
    }
    if !url.query.is_empty() {
        errors.invalid(path, &url.query, "query parameters are not permitted in the URL");
    }
}

/// A reference to the Service of a webhook (`ValidateWebhookService`).
pub(super) fn service(webhook: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for field in ["name", "namespace"] {
        if str_at(webhook, &[field]).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    let port = int_at(webhook, &["port"]).unwrap_or(0);
    if !(1..=65535).contains(&port) {
        errors.invalid(&path.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    let (text, path) = (str_at(webhook, &["path"]), path.child("path"));
    if text.is_empty() || text == "/" {
        return;
    }
    if text == "//" {
        return errors.invalid(&path, text, "segment[0] may not be empty");
    }
    let below = match text.strip_prefix('/') {
        Some(below) => below,
        None => {
            errors.invalid(&path, text, "must start with a '/'");
            // As upstream: the first letter is passed over, whatever it is.
            let mut rest = text.chars();
            rest.next();
            rest.as_str()
        }
    };
    for (place, step) in below.strip_suffix('/').unwrap_or(below).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&path, text, format!("segment[{place}] may not be empty"));
            continue;
        }
        for problem in meta::dns1123_subdomain(step) {
            errors.invalid(&path, text, format!("segment[{place}]: {problem}"));
        }
    }
}
