//! Rules for `metadata`: names, labels, annotations, owners, and what the
//! system sets on create and keeps on update.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::access::{at, ensure_map, entries_at, list_at, str_at};
use super::field::{FieldErrors, Path, is_print};

mod owners;

pub use owners::dedup_owners;
use owners::validate_owners;

/// Longest DNS-1123 subdomain.
pub const SUBDOMAIN_MAX: usize = 253;
/// Longest DNS label.
pub const LABEL_MAX: usize = 63;
/// Total size of all annotations, bytes.
pub const ANNOTATIONS_MAX: usize = 256 * 1024;
/// Length of the random part that replaces a `generateName`'s end.
pub const SUFFIX_LEN: usize = 5;

/// Upstream's alphabet for random names: no vowels, no look-alikes.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Which object names are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// Dot separated DNS-1123 labels, at most 253 bytes.
    Dns1123Subdomain,
    /// One DNS-1123 label, at most 63 bytes.
    Dns1123Label,
    /// One DNS-1035 label: starts with a letter.
    Dns1035Label,
    /// Anything that is one segment of a path (RBAC objects).
    PathSegment,
    /// An IP address in canonical form.
    IpAddress,
    /// Kinds without a stored name.
    Any,
}

/// Upstream's messages for a text that is no IP address as Go prints it.
pub(crate) fn canonical_ip(text: &str) -> Vec<String> {
    match text.parse::<std::net::IpAddr>() {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
        Ok(address) if address.to_string() != text => {
            vec![format!("must be in canonical form ({:?})", address.to_string())]
        }
        Ok(_) => Vec::new(),
    }
}

impl NameRule {
    /// Upstream's messages for a name that breaks the rule; `prefix` for a `generateName`.
    #[must_use]
    pub fn check(self, name: &str, prefix: bool) -> Vec<String> {
        // A generateName may end in '-': upstream checks it with the last dash masked.
        let masked;
        let name = if prefix && name.ends_with('-') && name.len() > 1 {
            masked = format!("{}a", &name[..name.len() - 1]);
            masked.as_str()
        } else {
            name
        };
        match self {
            Self::IpAddress => canonical_ip(name),
            Self::Dns1123Subdomain => dns1123_subdomain(name),
            Self::Dns1123Label => dns1123_label(name),
            Self::Dns1035Label => dns1035_label(name),
            Self::PathSegment => path_segment(name, prefix),
            Self::Any => Vec::new(),
        }
    }
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(alnum) && bytes.last().is_some_and(alnum) && bytes.iter().all(|b| alnum(b) || *b == b'-')
}

pub(crate) fn regex_message(text: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}'")).collect();
    format!("{text} (e.g. {}, regex used for validation is '{regex}')", examples.join(",  or "))
}

/// Problems of a DNS-1123 label.
#[must_use]
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > LABEL_MAX {
        problems.push(format!("must be no more than {LABEL_MAX} bytes"));
    }
    if !is_label(text) {
        problems.push(regex_message(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
            "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "123-abc"],
        ));
    }
    problems
}

/// Problems of a DNS-1035 label.
#[must_use]
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > LABEL_MAX {
        problems.push(format!("must be no more than {LABEL_MAX} bytes"));
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        problems.push(regex_message(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    problems
}

/// Problems of a DNS-1123 subdomain.
#[must_use]
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        problems.push(format!("must be no more than {SUBDOMAIN_MAX} bytes"));
    }
    if !text.split('.').all(is_label) {
        problems.push(regex_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    problems
}

fn path_segment(text: &str, prefix: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if !prefix && (text == "." || text == "..") {
        problems.push(format!("may not be '{text}'"));
    }
    for bad in ['/', '%'] {
        if text.contains(bad) {
            problems.push(format!("may not contain '{bad}'"));
        }
    }
    problems
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Problems of a qualified name (`[prefix/]name`), as label keys and annotation keys are.
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    const REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    const TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let mut problems = Vec::new();
    let mut parts = text.split('/');
    let first = parts.next().unwrap_or("");
    let name = match (parts.next(), parts.next()) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(dns1123_subdomain(first).into_iter().map(|p| format!("prefix part {p}")));
            }
            name
        }
        _ => {
            problems.push(format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_message(TEXT, REGEX, &["MyName", "my.name", "123-abc"])
            ));
            return problems;
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        problems.push(format!("name part must be no more than {LABEL_MAX} bytes"));
    }
    if !is_qualified_part(name) {
        problems.push(format!("name part {}", regex_message(TEXT, REGEX, &["MyName", "my.name", "123-abc"])));
    }
    problems
}

/// Problems of a label value.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text.len() > LABEL_MAX {
        problems.push(format!("must be no more than {LABEL_MAX} bytes"));
    }
    if !text.is_empty() && !is_qualified_part(text) {
        problems.push(regex_message(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// Checks a map of labels.
pub fn validate_labels(labels: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for (key, value) in entries_at(labels, &[]) {
        for problem in qualified_name(key) {
            errors.invalid(path, key.as_str(), problem);
        }
        for problem in label_value(value.as_str().unwrap_or("")) {
            errors.invalid(&path.key(key), value, problem);
        }
    }
}

/// Checks a map of annotations: keys and total size.
pub fn validate_annotations(annotations: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut total = 0;
    for (key, value) in entries_at(annotations, &[]) {
        for problem in qualified_name(&key.to_lowercase()) {
            errors.invalid(path, key.as_str(), problem);
        }
        total += key.len() + value.as_str().unwrap_or("").len();
    }
    if total > ANNOTATIONS_MAX {
        errors.too_long(path, ANNOTATIONS_MAX);
    }
}

/// Checks metadata of a new object: name, namespace, labels, annotations, owners, finalizers.
pub fn validate(object: &Value, namespaced: bool, rule: NameRule, path: &Path<'_>, errors: &mut FieldErrors) {
    let meta = at(object, &["metadata"]);
    let generate = str_at(meta, &["generateName"]);
    if !generate.is_empty() {
        for problem in rule.check(generate, true) {
            errors.invalid(&path.child("generateName"), generate, problem);
        }
    }
    let name = str_at(meta, &["name"]);
    if name.is_empty() && rule != NameRule::Any {
        errors.required(&path.child("name"), "name or generateName is required");
    } else {
        for problem in rule.check(name, false) {
            errors.invalid(&path.child("name"), name, problem);
        }
    }
    let namespace = str_at(meta, &["namespace"]);
    if namespaced {
        if namespace.is_empty() {
            errors.required(&path.child("namespace"), "");
        } else {
            for problem in dns1123_label(namespace) {
                errors.invalid(&path.child("namespace"), namespace, problem);
            }
        }
    } else if !namespace.is_empty() {
        errors.forbidden(&path.child("namespace"), "not allowed on this type");
    }
    if let Some(generation) = meta.get("generation").and_then(Value::as_i64)
        && generation < 0
    {
        errors.invalid(&path.child("generation"), generation, "must be greater than or equal to 0");
    }
    validate_common(meta, path, errors);
}

fn validate_common(meta: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    validate_labels(at(meta, &["labels"]), &path.child("labels"), errors);
    validate_annotations(at(meta, &["annotations"]), &path.child("annotations"), errors);
    validate_owners(list_at(meta, &["ownerReferences"]), &path.child("ownerReferences"), errors);
    validate_managers(list_at(meta, &["managedFields"]), &path.child("managedFields"), errors);
    let finalizers = path.child("finalizers");
    let mut both = (false, false);
    for finalizer in list_at(meta, &["finalizers"]) {
        let text = finalizer.as_str().unwrap_or("");
        for problem in qualified_name(text) {
            errors.invalid(&finalizers, text, problem);
        }
        both.0 |= text == "orphan";
        both.1 |= text == "foregroundDeletion";
    }
    if both == (true, true) {
        errors.invalid(&finalizers, &meta["finalizers"], "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// Longest name of a field manager (`FieldManagerMaxLength` in apimachinery's `pkg/apis/meta/v1/validation`), in bytes.
pub const MANAGER_MAX: usize = 128;
/// Longest name of a subresource in an entry of managed fields (`MaxSubresourceNameLength`), in bytes.
const SUBRESOURCE_MAX: usize = 256;

/// As upstream's `ValidateManagedFields`; whatever else an entry says was read before.
fn validate_managers(entries: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    for (i, entry) in entries.iter().enumerate() {
        let path = path.index(i);
        let (manager, subresource) = (str_at(entry, &["manager"]), str_at(entry, &["subresource"]));
        if manager.len() > MANAGER_MAX {
            errors.too_long(&path.child("manager"), MANAGER_MAX);
        }
        for problem in unprintable(manager) {
            errors.invalid(&path.child("manager"), manager, problem);
        }
        if subresource.len() > SUBRESOURCE_MAX {
            errors.too_long(&path.child("subresource"), SUBRESOURCE_MAX);
        }
    }
}

/// What `ValidateFieldManager` says of each character that cannot be printed (apimachinery,
/// `pkg/apis/meta/v1/validation/validation.go`).
pub fn unprintable(manager: &str) -> impl Iterator<Item = String> {
    let bad = manager.char_indices().filter(|(_, c)| !is_print(*c));
    bad.map(|(at, c)| format!("invalid character U+{:04X} (at position {at})", u32::from(c)))
}

/// Checks what an update may not change in metadata, and the changed metadata itself.
pub fn validate_update(new: &Value, old: &Value, namespaced: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    let (new, old) = (at(new, &["metadata"]), at(old, &["metadata"]));
    for key in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if key == "namespace" && !namespaced {
            continue;
        }
        let (n, o) = (at(new, &[key]), at(old, &[key]));
        if n != o && !(o.is_null() && key == "uid") {
            errors.invalid(&path.child(key), n, "field is immutable");
        }
    }
    let generation = |v: &Value| v.get("generation").and_then(Value::as_i64).unwrap_or(0);
    if generation(new) < generation(old) {
        errors.invalid(&path.child("generation"), generation(new), "must not be decremented");
    }
    if !at(old, &["deletionTimestamp"]).is_null() {
        let had: HashSet<&str> = list_at(old, &["finalizers"]).iter().filter_map(Value::as_str).collect();
        let added: Vec<&str> =
            list_at(new, &["finalizers"]).iter().filter_map(Value::as_str).filter(|f| !had.contains(f)).collect();
        if !added.is_empty() {
            errors.forbidden(
                &path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.iter().map(|f| super::field::go_quote(f)).collect::<Vec<_>>().join(", ")
                ),
            );
        }
    }
    validate_common(new, path, errors);
}

/// A random name end of [`SUFFIX_LEN`] characters of upstream's alphabet, from the caller's randomness.
#[must_use]
pub fn name_suffix(random: [u8; SUFFIX_LEN]) -> String {
    random.iter().map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
}

/// The name for a `generateName`: the base is cut so that the result has at most 63 bytes.
#[must_use]
pub fn generate_name(base: &str, random: [u8; SUFFIX_LEN]) -> String {
    let mut end = base.len().min(LABEL_MAX - SUFFIX_LEN);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], name_suffix(random))
}

/// Sets what the system sets on create: uid, creationTimestamp (RFC 3339, whole seconds, UTC);
/// removes what a client may not choose: resourceVersion, selfLink, deletion marks, generation.
pub fn fill_create(object: &mut Value, uid: &str, now: &str) {
    let meta = ensure_map(object, &["metadata"]);
    for key in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        meta.remove(key);
    }
    meta.insert("uid".to_owned(), uid.into());
    meta.insert("creationTimestamp".to_owned(), now.into());
}

/// Keeps what an update may leave out: uid, creationTimestamp, deletion marks, generation, selfLink.
pub fn keep_system_fields(new: &mut Value, old: &Value) {
    let old_meta = at(old, &["metadata"]);
    let meta = ensure_map(new, &["metadata"]);
    meta.remove("selfLink");
    for key in ["uid", "generateName"] {
        if meta.get(key).is_none_or(Value::is_null)
            && let Some(value) = old_meta.get(key)
        {
            meta.insert(key.to_owned(), value.clone());
        }
    }
    // Whatever a client says of these is ignored.
    for key in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        match old_meta.get(key) {
            Some(value) => meta.insert(key.to_owned(), value.clone()),
            None => meta.remove(key),
        };
    }
}

/// What an update through `/status` keeps of the stored metadata: the system's and the owners' part.
/// Labels and annotations may change, as upstream allows for most kinds.
pub fn keep_on_status_update(new: &mut Value, old: &Value) {
    let old_meta = at(old, &["metadata"]).clone();
    if let Some(meta) = new.get_mut("metadata") {
        for key in ["ownerReferences", "finalizers", "generation"] {
            super::access::copy_field(meta, &old_meta, key);
        }
    }
}

/// The same where upstream lets nothing of the metadata change (`ResetObjectMetaForStatus`) but who owns which field.
pub fn keep_all_on_status_update(new: &mut Value, old: &Value) {
    keep_on_status_update(new, old);
    let old_meta = at(old, &["metadata"]).clone();
    if let Some(meta) = new.get_mut("metadata") {
        for key in ["labels", "annotations"] {
            super::access::copy_field(meta, &old_meta, key);
        }
    }
}

/// Sets `metadata.generation`.
pub fn set_generation(object: &mut Value, generation: i64) {
    ensure_map(object, &["metadata"]).insert("generation".to_owned(), generation.into());
}

/// Counts the generation when anything besides metadata and status differs.
pub fn bump_generation(new: &mut Value, old: &Value) {
    count(new, old, &["metadata", "status", "kind", "apiVersion"]);
}

/// The same where status is a field like others.
pub fn bump_generation_with_status(new: &mut Value, old: &Value) {
    count(new, old, &["metadata", "kind", "apiVersion"]);
}

/// Counts the generation when anything besides these fields differs.
fn count(new: &mut Value, old: &Value, passed: &[&str]) {
    let changed = {
        let (Some(a), Some(b)) = (new.as_object(), old.as_object()) else { return };
        let relevant = |(key, value): &(&String, &Value)| !passed.contains(&key.as_str()) && !value.is_null();
        !a.iter().filter(relevant).eq(b.iter().filter(relevant))
    };
    let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
    if changed {
        set_generation(new, generation + 1);
    } else if generation != 0 {
        set_generation(new, generation);
    }
}

/// Marks an object as being deleted: `deletionTimestamp` (`at`, the moment the grace ends) and the grace period.
/// Counts the generation as upstream does.
pub fn mark_deleted(object: &mut Value, at: &str, grace_seconds: i64) {
    let meta = ensure_map(object, &["metadata"]);
    meta.insert("deletionTimestamp".to_owned(), at.into());
    meta.insert("deletionGracePeriodSeconds".to_owned(), grace_seconds.into());
    if let Some(generation) = meta.get("generation").and_then(Value::as_i64)
        && generation > 0
    {
        meta.insert("generation".to_owned(), json!(generation + 1));
    }
}

#[cfg(test)]
mod tests;
