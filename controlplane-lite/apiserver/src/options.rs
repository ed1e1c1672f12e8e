//! Pure: query parameters (and a DeleteOptions body) → typed options, with upstream's validation.

use serde_json::Value;

use super::request_info::Query;
use super::status::{ApiError, Cause, Subject};
use scheme::FieldValidation;
use scheme::field::go_quote;
use scheme::meta::{MANAGER_MAX, unprintable};

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// At least as new as the given version.
    NotOlderThan,
    /// Exactly the given version.
    Exact,
}

/// Options of list, watch and deletecollection.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Raw label selector.
    pub label_selector: String,
    /// Raw field selector.
    pub field_selector: String,
    /// Raw `resourceVersion`; empty when unset.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub version_match: Option<VersionMatch>,
    /// Page size; 0 means everything.
    pub limit: usize,
    /// Continue token; empty when unset.
    pub continue_token: String,
    /// Seconds a watch lasts.
    pub timeout_seconds: Option<u64>,
    /// Whether the watch wants bookmarks.
    pub bookmarks: bool,
    /// `sendInitialEvents`, the streaming list.
    pub send_initial_events: Option<bool>,
    /// Whether this is a watch.
    pub watch: bool,
}

impl ListOptions {
    /// The numeric resourceVersion: `None` when unset.
    ///
    /// # Errors
    /// 400 when it is not a number.
    pub fn version(&self) -> Result<Option<u64>, ApiError> {
        if self.resource_version.is_empty() {
            return Ok(None);
        }
        self.resource_version.parse().map(Some).map_err(|_| {
            let text = &self.resource_version;
            invalid_version(text, "resourceVersion")
        })
    }
}

fn invalid_version(text: &str, field: &str) -> ApiError {
    let message = format!("Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax");
    ApiError::invalid(
        Subject::new("meta.k8s.io", "ListOptions"),
        "",
        &format!("{field}: {message}"),
        vec![Cause { reason: "FieldValueInvalid".into(), message, field: field.into() }],
    )
}

/// Reads list options.
///
/// # Errors
/// 400 for parameters that are not numbers, 422 for combinations upstream forbids.
pub fn list(query: &Query, watch: bool) -> Result<ListOptions, ApiError> {
    let text = |key: &str| query.get(key).unwrap_or("").to_owned();
    let options = ListOptions {
        label_selector: text("labelSelector"),
        field_selector: text("fieldSelector"),
        resource_version: text("resourceVersion"),
        version_match: version_match(&text("resourceVersionMatch"))?,
        limit: usize::try_from(number(query, "limit")?.unwrap_or(0).max(0)).unwrap_or(usize::MAX),
        continue_token: text("continue"),
        timeout_seconds: number(query, "timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
        bookmarks: query.flag("allowWatchBookmarks"),
        send_initial_events: query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents")),
        watch,
    };
    check_list(&options)?;
    Ok(options)
}

fn number(query: &Query, key: &str) -> Result<Option<i64>, ApiError> {
    match query.get(key) {
        None | Some("") => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
    }
}

fn version_match(text: &str) -> Result<Option<VersionMatch>, ApiError> {
    match text {
        "" => Ok(None),
        "NotOlderThan" => Ok(Some(VersionMatch::NotOlderThan)),
        "Exact" => Ok(Some(VersionMatch::Exact)),
        other => Err(options_error(
            "ListOptions",
            "FieldValueNotSupported",
            "resourceVersionMatch",
            &format!("Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""),
        )),
    }
}

fn options_error(kind: &str, reason: &str, field: &str, message: &str) -> ApiError {
    let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
    ApiError::invalid(Subject::new("meta.k8s.io", kind), "", &format!("{field}: {message}"), vec![cause])
}

fn forbidden(field: &str, detail: &str) -> ApiError {
    options_error("ListOptions", "FieldValueForbidden", field, &format!("Forbidden: {detail}"))
}

fn check_list(o: &ListOptions) -> Result<(), ApiError> {
    let matching = "resourceVersionMatch";
    if o.watch {
        if o.send_initial_events.is_none() && o.version_match.is_some() {
            return Err(forbidden(
                matching,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        if o.send_initial_events.is_some() && o.version_match != Some(VersionMatch::NotOlderThan) {
            return Err(forbidden(matching, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
        }
        return Ok(());
    }
    if o.send_initial_events.is_some() {
        return Err(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if o.version_match.is_some() && o.resource_version.is_empty() {
        return Err(forbidden(matching, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
    }
    if o.version_match.is_some() && !o.continue_token.is_empty() {
        return Err(forbidden(matching, "resourceVersionMatch is forbidden when continue is provided"));
    }
    if o.version_match == Some(VersionMatch::Exact) && o.resource_version == "0" {
        return Err(forbidden(matching, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
    }
    Ok(())
}

/// Options of create, update and patch.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Run everything but the write.
    pub dry_run: bool,
    /// What to do with fields nobody knows.
    pub field_validation: FieldValidation,
    /// Who writes, for managed fields.
    pub field_manager: String,
    /// Server-side apply's force.
    pub force: bool,
}

/// Reads write options; `kind` names them in errors (`CreateOptions`, …).
///
/// # Errors
/// 422 for values upstream does not support.
pub fn write(query: &Query, kind: &str) -> Result<WriteOptions, ApiError> {
    let text = query.get("fieldValidation").unwrap_or("");
    let field_validation = FieldValidation::from_query(text).ok_or_else(|| {
        let message = format!("Unsupported value: {text:?}: supported values: \"Ignore\", \"Strict\", \"Warn\", \"\"");
        options_error(kind, "FieldValueNotSupported", "fieldValidation", &message)
    })?;
    let field_manager = query.get("fieldManager").unwrap_or("").to_owned();
    check_manager(&field_manager, kind)?;
    Ok(WriteOptions {
        dry_run: dry_run(query.all("dryRun"), kind)?,
        field_validation,
        field_manager,
        force: query.flag("force"),
    })
}

/// Reads the options of a patch, which for one that applies (`apply`) have to name its manager.
///
/// # Errors
/// As [`write()`], and 422 for what such a patch may not say or has to (`ValidatePatchOptions`).
pub fn patch(query: &Query, apply: bool) -> Result<WriteOptions, ApiError> {
    const KIND: &str = "PatchOptions";
    if apply && query.get("fieldManager").unwrap_or("").is_empty() {
        let message = "Required value: is required for apply patch";
        return Err(options_error(KIND, "FieldValueRequired", "fieldManager", message));
    }
    if !apply && query.has("force") {
        let message = "Forbidden: may not be specified for non-apply patch";
        return Err(options_error(KIND, "FieldValueForbidden", "force", message));
    }
    write(query, KIND)
}

/// Refuses a manager's name that is too long or cannot be printed (`ValidateFieldManager`).
fn check_manager(name: &str, kind: &str) -> Result<(), ApiError> {
    const FIELD: &str = "fieldManager";
    if name.len() > MANAGER_MAX {
        let message = format!("Too long: may not be more than {MANAGER_MAX} bytes");
        return Err(options_error(kind, "FieldValueTooLong", FIELD, &message));
    }
    if let Some(problem) = unprintable(name).next() {
        let message = format!("Invalid value: {}: {problem}", go_quote(name));
        return Err(options_error(kind, "FieldValueInvalid", FIELD, &message));
    }
    Ok(())
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, kind: &str) -> Result<bool, ApiError> {
    let mut dry = false;
    for value in values {
        if value != "All" {
            let message = format!("Unsupported value: [{value:?}]: supported values: \"All\"");
            return Err(options_error(kind, "FieldValueNotSupported", "dryRun", &message));
        }
        dry = true;
    }
    Ok(dry)
}

/// `propagationPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents stay, without their owner.
    Orphan,
    /// The owner goes first.
    Background,
    /// The owner goes last.
    Foreground,
}

/// Options of delete and deletecollection.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Seconds; `None` means the kind's default.
    pub grace_period: Option<i64>,
    /// What happens to dependents; `None` means the kind's default.
    pub propagation: Option<Propagation>,
    /// The uid the object must have.
    pub uid: Option<String>,
    /// The resourceVersion the object must have.
    pub resource_version: Option<String>,
    /// Run everything but the write.
    pub dry_run: bool,
}

/// Reads delete options from the body when there is one, from the query otherwise.
///
/// # Errors
/// 400 for malformed bodies, 422 for values upstream does not support.
pub fn delete(query: &Query, body: Option<&Value>) -> Result<DeleteOptions, ApiError> {
    let mut options = DeleteOptions::default();
    let (orphan, policy);
    if let Some(body) = body.filter(|b| b.as_object().is_some_and(|o| !o.is_empty())) {
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).map(str::to_owned);
        options.grace_period = integer(body, "gracePeriodSeconds")?;
        options.uid = text("/preconditions/uid");
        options.resource_version = text("/preconditions/resourceVersion");
        let values: Vec<&str> =
            body["dryRun"].as_array().map(|a| a.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
        options.dry_run = dry_run(values.into_iter(), "DeleteOptions")?;
        orphan = body["orphanDependents"].as_bool();
        policy = text("/propagationPolicy");
    } else {
        options.grace_period = number(query, "gracePeriodSeconds")?;
        options.dry_run = dry_run(query.all("dryRun"), "DeleteOptions")?;
        orphan = query.has("orphanDependents").then(|| query.flag("orphanDependents"));
        policy = query.get("propagationPolicy").filter(|p| !p.is_empty()).map(str::to_owned);
    }
    if orphan.is_some() && policy.is_some() {
        return Err(options_error(
            "DeleteOptions",
            "FieldValueInvalid",
            "propagationPolicy",
            &format!(
                "Invalid value: {:?}: orphanDependents and deletionPropagation cannot be both set",
                policy.unwrap_or_default()
            ),
        ));
    }
    options.propagation = propagation(orphan, policy.as_deref())?;
    Ok(options)
}

fn integer(body: &Value, key: &str) -> Result<Option<i64>, ApiError> {
    match &body[key] {
        Value::Null => Ok(None),
        value => value.as_i64().map(Some).ok_or_else(|| {
            ApiError::bad_request(format!(
                "json: cannot unmarshal {value} into Go struct field DeleteOptions.{key} of type int64"
            ))
        }),
    }
}

fn propagation(orphan: Option<bool>, policy: Option<&str>) -> Result<Option<Propagation>, ApiError> {
    match (orphan, policy) {
        (Some(true), _) => Ok(Some(Propagation::Orphan)),
        (Some(false), _) => Ok(Some(Propagation::Background)),
        (None, None) => Ok(None),
        (None, Some("Orphan")) => Ok(Some(Propagation::Orphan)),
        (None, Some("Background")) => Ok(Some(Propagation::Background)),
        (None, Some("Foreground")) => Ok(Some(Propagation::Foreground)),
        (None, Some(other)) => Err(options_error(
            "DeleteOptions",
            "FieldValueNotSupported",
            "propagationPolicy",
            &format!(
                "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn query(text: &str) -> Query {
        Query::parse(Some(text))
    }

    #[test]
    fn list_options_are_checked_as_upstream() {
        for (text, watch, code) in [
            ("limit=5&continue=abc", false, 0),
            ("limit=x", false, 400),
            ("resourceVersionMatch=Exact", false, 422),
            ("resourceVersionMatch=Exact&resourceVersion=0", false, 422),
            ("resourceVersionMatch=Exact&resourceVersion=5", false, 0),
            ("resourceVersionMatch=Sideways&resourceVersion=5", false, 422),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=5&continue=x", false, 422),
            ("sendInitialEvents=true", false, 422),
            ("sendInitialEvents=true", true, 422),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, 0),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=1", true, 422),
        ] {
            let got = list(&query(text), watch).map_or_else(|e| e.code(), |_| 0);
            assert_eq!(got, code, "{text}");
        }
    }

    #[test]
    fn delete_options_come_from_body_or_query() {
        let body = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Foreground", "preconditions": {"uid": "u"}});
        let options = delete(&query("gracePeriodSeconds=9"), Some(&body)).unwrap();
        assert_eq!(options.grace_period, Some(0));
        assert_eq!(options.propagation, Some(Propagation::Foreground));
        assert_eq!(options.uid.as_deref(), Some("u"));
        assert_eq!(delete(&query("gracePeriodSeconds=9"), None).unwrap().grace_period, Some(9));
        assert_eq!(delete(&query("propagationPolicy=Up"), None).unwrap_err().code(), 422);
        assert_eq!(delete(&query("propagationPolicy=Orphan&orphanDependents=true"), None).unwrap_err().code(), 422);
        assert_eq!(delete(&query(""), Some(&json!({"gracePeriodSeconds": "x"}))).unwrap_err().code(), 400);
    }

    #[test]
    fn write_options_refuse_unknown_values() {
        assert!(write(&query("dryRun=All&fieldManager=me"), "CreateOptions").unwrap().dry_run);
        assert_eq!(write(&query("dryRun=Some"), "CreateOptions").unwrap_err().code(), 422);
        assert_eq!(write(&query("fieldValidation=Maybe"), "CreateOptions").unwrap_err().code(), 422);
        // Cases of upstream's `ValidatePatchOptions` (apimachinery, pkg/apis/meta/v1/validation).
        let long = format!("fieldManager={}", "a".repeat(129));
        for (text, apply, message) in [
            ("", false, None),
            ("", true, Some("fieldManager: Required value: is required for apply patch")),
            ("fieldManager=me&force=true", true, None),
            ("fieldManager=me&force=true", false, Some("force: Forbidden: may not be specified for non-apply patch")),
            (&long, true, Some("fieldManager: Too long: may not be more than 128 bytes")),
            (
                "fieldManager=a%0Ab",
                true,
                Some(r#"fieldManager: Invalid value: "a\nb": invalid character U+000A (at position 1)"#),
            ),
        ] {
            let got = patch(&query(text), apply).map_err(|error| error.to_string()).err();
            let expect = message.map(|message| format!("PatchOptions.meta.k8s.io \"\" is invalid: {message}"));
            assert_eq!(got, expect, "{text}");
        }
    }
}
