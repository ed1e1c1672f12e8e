//! Encodes a list by concatenating its items' bytes.

use std::fmt::Write;

use super::Object;
use crate::storage::store::Revision;

/// What a list says about itself.
#[derive(Clone, Debug, Default)]
pub struct ListMeta<'a> {
    /// Such as `PodList`.
    pub kind: &'a str,
    pub api_version: &'a str,
    pub revision: Revision,
    /// Opaque token for the next page; empty on the last one.
    pub continue_token: &'a str,
    /// Items after this page, where it is known.
    pub remaining: Option<u64>,
}

/// The list as JSON. Items keep the `kind` and `apiVersion` they are stored with.
pub fn encode_list<'o>(meta: &ListMeta<'_>, items: impl IntoIterator<Item = &'o Object> + Clone) -> Vec<u8> {
    let bytes: usize = items.clone().into_iter().map(|item| item.json_bytes().len() + 1).sum();
    let mut head = format!(
        r#"{{"kind":"{}","apiVersion":"{}","metadata":{{"resourceVersion":"{}""#,
        meta.kind, meta.api_version, meta.revision
    );
    if !meta.continue_token.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(head, r#","continue":"{}""#, meta.continue_token);
    }
    if let Some(remaining) = meta.remaining {
        let _ = write!(head, r#","remainingItemCount":{remaining}"#);
    }
    head.push_str(r#"},"items":["#);
    let mut out = Vec::with_capacity(head.len() + bytes + 2);
    out.extend_from_slice(head.as_bytes());
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item.json_bytes());
    }
    out.extend_from_slice(b"]}");
    out
}
