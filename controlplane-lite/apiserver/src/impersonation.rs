//! Impersonate-* headers: who a request acts for, when its caller may.

use super::status::ApiError;
use auth::authn::UserInfo;
use auth::authn::impersonation::requested;
use auth::authz::Authorizer;

/// The user to act as: the caller, or whom the headers name.
///
/// # Errors
/// 403 when the caller may not impersonate one of the parts, 500 (as upstream) for headers that contradict themselves.
pub fn resolve<'h>(
    headers: impl Iterator<Item = (&'h str, &'h str)>,
    user: UserInfo,
    authz: &dyn Authorizer,
) -> Result<UserInfo, ApiError> {
    let Some(asked) = requested(headers, &user).map_err(|e| ApiError::plain(500, e.to_string()))? else {
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
