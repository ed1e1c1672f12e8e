//! Impersonate-* headers: who a request acts for, when its caller may. A header that cannot be read is an error:
//! without it the request would run with the caller's own rights.

use http::HeaderMap;

use super::status::ApiError;
use auth::authn::UserInfo;
use auth::authn::impersonation::requested;
use auth::authz::Authorizer;

const PREFIX: &str = "impersonate-";
/// Headers that are there once at most, and never empty.
const SINGLE: [&str; 2] = ["impersonate-user", "impersonate-uid"];

/// The user to act as: the caller, or whom the headers name.
///
/// # Errors
/// 400 for headers that cannot be read or say two things, 403 when the caller may not impersonate one of the parts, 500
/// (as upstream) for headers that contradict themselves.
pub fn resolve(headers: &HeaderMap, user: UserInfo, authz: &dyn Authorizer) -> Result<UserInfo, ApiError> {
    let pairs = read(headers)?;
    let Some(asked) = requested(pairs, &user).map_err(|e| ApiError::plain(500, e.to_string()))? else {
        return Ok(user);
    };
    for attributes in &asked.required {
        let decision = authz.authorize(attributes);
        if !decision.allowed() {
            return Err(super::service::forbidden(attributes, &decision.reason));
        }
    }
    Ok(asked.user)
}

/// Takes the headers away.
pub fn strip(headers: &mut HeaderMap) {
    let names: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn read(headers: &HeaderMap) -> Result<Vec<(&str, &str)>, ApiError> {
    for name in SINGLE {
        let mut values = headers.get_all(name).iter();
        if values.next().is_some_and(http::HeaderValue::is_empty) {
            return Err(ApiError::bad_request(format!("the {name} header is empty")));
        }
        if values.next().is_some() {
            return Err(ApiError::bad_request(format!("several {name} headers")));
        }
    }
    let ours = headers.iter().filter(|(name, _)| name.as_str().starts_with(PREFIX));
    ours.map(|(name, value)| match std::str::from_utf8(value.as_bytes()) {
        Ok(text) if !text.chars().any(char::is_control) => Ok((name.as_str(), text)),
        _ => Err(ApiError::bad_request(format!("the {name} header cannot be read"))),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::{HeaderName, HeaderValue};

    use super::*;
    use auth::authz::AlwaysAllow;

    fn acts_as(pairs: &[(&str, &[u8])]) -> Result<String, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        let proxy = UserInfo::new("proxy", ["system:masters"]);
        resolve(&headers, proxy, &AlwaysAllow).map(|user| user.username).map_err(|error| error.code())
    }

    #[test]
    fn what_cannot_be_read_is_never_the_callers_own_rights() {
        let jane: &[u8] = b"jane";
        assert_eq!(acts_as(&[]), Ok("proxy".into()));
        assert_eq!(acts_as(&[("impersonate-user", jane)]), Ok("jane".into()));
        assert_eq!(acts_as(&[("impersonate-user", "jos\u{e9}".as_bytes())]), Ok("jos\u{e9}".into()));
        let cases: &[&[(&str, &[u8])]] = &[
            &[("impersonate-user", b"jos\xe9")],
            &[("impersonate-user", b"")],
            &[("impersonate-user", b"jane"), ("impersonate-user", b"root")],
            &[("impersonate-user", b"jane"), ("impersonate-uid", b"1"), ("impersonate-uid", b"2")],
            &[("impersonate-user", b"jane"), ("impersonate-group", b"\xff")],
            &[("impersonate-user", b"jane"), ("impersonate-extra-scopes", b"\xff")],
            &[("impersonate-user", b"jane\tx")],
            &[("impersonate-group", b"\xff")],
        ];
        for case in cases {
            assert_eq!(acts_as(case), Err(400), "{case:?}");
        }
        for alone in ["impersonate-group", "impersonate-uid", "impersonate-extra-scopes"] {
            assert_eq!(acts_as(&[(alone, jane)]), Err(500), "{alone}");
        }
    }

    #[test]
    fn nothing_is_left_for_others_to_read() {
        let mut headers = HeaderMap::new();
        for name in ["impersonate-user", "impersonate-group", "impersonate-extra-a", "accept"] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
