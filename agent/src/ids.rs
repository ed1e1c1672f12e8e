//! Identifiers of pods, so that two strings are never confused, and names of objects where they are parts of a request.

use std::borrow::{Borrow, Cow};
use std::fmt::{self, Write as _};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

/// The UID of a pod as the kubelet uses it: for a static pod the hash of its
/// file, for any other pod `metadata.uid`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(Arc<str>);

impl PodUid {
    /// Wraps a UID.
    pub fn new(uid: impl Into<Arc<str>>) -> Self {
        Self(uid.into())
    }

    /// The UID of `pod`; empty when it has none.
    pub fn of(pod: &Pod) -> Self {
        Self::new(pod.metadata.uid.as_deref().unwrap_or_default())
    }

    /// The UID as a file name; `None` when it could lead elsewhere: nobody checks
    /// what a runtime's label or an object says.
    pub fn file_name(&self) -> Option<&str> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (!self.0.is_empty() && self.0.len() <= 253 && self.0.bytes().all(plain)).then_some(&*self.0)
    }

    /// The UID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for PodUid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name that can be one element of a path: it holds no `/`, is neither `.` nor `..`, and fits a directory. Whatever a
/// pod calls itself or its containers becomes part of a path only as one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName<'a>(&'a str);

/// A name that would lead elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be the name of a file")]
pub struct NoFileName(String);

impl<'a> FileName<'a> {
    /// Longest name of a directory entry.
    const LONGEST: usize = 255;

    /// Takes a name that leads nowhere else.
    pub fn new(name: &'a str) -> Result<Self, NoFileName> {
        let dots = matches!(name, "" | "." | "..");
        if dots || name.len() > Self::LONGEST || name.bytes().any(|b| b == b'/' || b.is_ascii_control()) {
            // A text for logs and events, whatever its length.
            return Err(NoFileName(name.chars().take(80).collect()));
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl AsRef<std::path::Path> for FileName<'_> {
    fn as_ref(&self) -> &std::path::Path {
        std::path::Path::new(self.0)
    }
}

/// Namespace and name of a namespaced object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectName {
    /// A name in a namespace.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The name of `pod`.
    pub fn of_pod(pod: &Pod) -> Self {
        Self::new(
            pod.metadata.namespace.as_deref().unwrap_or("default"),
            pod.metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

/// A name as one segment of a request's path: it is an object's, and not part of the way to another one. No object is
/// called what stands for those that none can be called (k8s.io/apimachinery/pkg/api/validation/path/name.go), so that
/// the server says it is not there.
pub fn segment(name: &str) -> Cow<'_, str> {
    let impossible = matches!(name, "" | "." | "..") || name.contains(['/', '%']);
    let name = if impossible { "%" } else { name };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':');
    if name.bytes().all(plain) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.bytes().fold(String::with_capacity(3 * name.len()), |mut out, byte| {
        // Writing to a String cannot fail.
        _ = if plain(byte) { out.write_char(char::from(byte)) } else { write!(out, "%{byte:02X}") };
        out
    }))
}

/// The field selector of the object of that name (k8s.io/apimachinery/pkg/fields: `EscapeValue`).
pub fn selector_of(name: &str) -> String {
    let mut out = "metadata.name=".to_owned();
    for c in name.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether a name is a DNS subdomain as upstream defines it (RFC 1123): what most objects, nodes among them, are
/// called.
pub fn is_subdomain(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(legal) && !part.starts_with('-') && !part.ends_with('-');
    name.len() <= 253 && name.split('.').all(is_part)
}

/// Whether a name is a DNS label: one part of a subdomain, as namespaces and containers are called.
pub fn is_dns_label(name: &str) -> bool {
    is_subdomain(name) && name.len() <= 63 && !name.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_segment() {
        for (name, expected) in [
            ("web-0.a_b~c:d", "web-0.a_b~c:d"),
            ("a?watch=true", "a%3Fwatch%3Dtrue"),
            ("a#b c", "a%23b%20c"),
            ("\u{e9}", "%C3%A9"),
            ("../secrets/token", "%25"),
            ("a%2fb", "%25"),
            ("..", "%25"),
            (".", "%25"),
            ("", "%25"),
            ("...", "..."),
        ] {
            assert_eq!(segment(name), expected, "{name:?}");
        }
        assert_eq!(selector_of("a,metadata.namespace=b\\"), "metadata.name=a\\,metadata.namespace\\=b\\\\");
    }

    #[test]
    fn file_names_lead_nowhere() {
        assert_eq!(PodUid::new("a1-b_2").file_name(), Some("a1-b_2"));
        for bad in ["", ".", "..", "../x", "a/b", "a\0", &"a".repeat(254)] {
            assert_eq!(PodUid::new(bad).file_name(), None, "{bad:?}");
        }
        for good in ["c", "my-name", "a_b", "...", "0.log"] {
            assert_eq!(FileName::new(good).map(FileName::as_str), Ok(good));
        }
        for bad in ["", ".", "..", "../x", "../../../tmp/x", "/x", "a/b", "a/", "a\0", "a\n", &"a".repeat(256)] {
            assert!(FileName::new(bad).is_err(), "{bad:?}");
        }
    }
}
