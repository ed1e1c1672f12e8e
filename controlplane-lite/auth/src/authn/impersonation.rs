//! Impersonation headers: whom a request wants to act as, and what its real user
//! must be allowed for that. Pure.

use std::collections::BTreeMap;

use scheme::meta::{dns1123_label, dns1123_subdomain};

use super::{AUTHENTICATED, UNAUTHENTICATED, UserInfo};
use crate::authz::Attributes;

const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// What the headers ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    /// Whom to act as, once all is allowed.
    pub user: UserInfo,
    /// What the real user must be allowed, every one of it: verb `impersonate` on
    /// users, groups, service accounts, uids and extras.
    pub required: Vec<Attributes>,
}

/// Headers that contradict themselves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("requested {what} without impersonating a user")]
pub struct ImpersonationError {
    what: String,
}

/// Reads the headers (names in any case). `None` when none of them is there.
pub fn requested<'h>(
    headers: impl IntoIterator<Item = (&'h str, &'h str)>,
    real: &UserInfo,
) -> Result<Option<Impersonation>, ImpersonationError> {
    let asked = Asked::read(headers);
    if asked.user.is_empty() {
        let what = if !asked.groups.is_empty() {
            format!("[{}]", asked.groups.join(" "))
        } else if !asked.extra.is_empty() || !asked.uid.is_empty() {
            "extra or uid".to_owned()
        } else {
            return Ok(None);
        };
        return Err(ImpersonationError { what });
    }
    let required = asked.required(real);
    Ok(Some(Impersonation { user: asked.into_user(), required }))
}

#[derive(Default)]
struct Asked {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Asked {
    fn read<'h>(headers: impl IntoIterator<Item = (&'h str, &'h str)>) -> Self {
        let mut asked = Self::default();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "impersonate-user" => asked.user = value.to_owned(),
                "impersonate-uid" => asked.uid = value.to_owned(),
                "impersonate-group" => asked.groups.push(value.to_owned()),
                _ => {
                    if let Some(key) = name.strip_prefix(EXTRA) {
                        asked.extra.entry(unescape(key)).or_default().push(value.to_owned());
                    }
                }
            }
        }
        asked
    }

    /// Namespace and name of a service account; any other name is a user's.
    fn account(&self) -> Option<(&str, &str)> {
        let account = self.user.strip_prefix("system:serviceaccount:")?.split_once(':');
        account.filter(|(namespace, name)| dns1123_label(namespace).is_empty() && dns1123_subdomain(name).is_empty())
    }

    fn required(&self, real: &UserInfo) -> Vec<Attributes> {
        let ask = |group: &str, resource: &str, name: &str| Attributes {
            name: name.into(),
            version: "v1".into(),
            ..Attributes::resource(real.clone(), "impersonate", group, resource, "")
        };
        let mut required = vec![match self.account() {
            Some((namespace, name)) => Attributes { namespace: namespace.into(), ..ask("", "serviceaccounts", name) },
            None => ask("", "users", &self.user),
        }];
        required.extend(self.groups.iter().map(|group| ask("", "groups", group)));
        for (key, values) in &self.extra {
            required.extend(
                values
                    .iter()
                    .map(|value| Attributes { subresource: key.clone(), ..ask(AUTHENTICATION, "userextras", value) }),
            );
        }
        if !self.uid.is_empty() {
            required.push(ask(AUTHENTICATION, "uids", &self.uid));
        }
        required
    }

    fn into_user(self) -> UserInfo {
        let mut groups = self.groups.clone();
        if let Some((namespace, _)) = self.account()
            && groups.is_empty()
        {
            groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        }
        let marker = if self.user == "system:anonymous" { UNAUTHENTICATED } else { AUTHENTICATED };
        if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
            groups.push(marker.into());
        }
        UserInfo { username: self.user, uid: self.uid, groups, extra: self.extra }
    }
}

/// Undoes percent-encoding; a text that is not encoded properly all through stays as it is (`unescapeExtraKey` in
/// `k8s.io/apiserver/pkg/endpoints/filters/impersonation`).
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        // Digits alone: a number may have a sign, and what is escaped has none.
        let hex = tail.get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let value = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        let Some(value) = value else { return text.to_owned() };
        bytes.push(value);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}
