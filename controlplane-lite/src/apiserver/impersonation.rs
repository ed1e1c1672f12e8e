//! Impersonate-* headers: who a request acts for, when its caller may.

use super::status::ApiError;
use crate::auth::authn::UserInfo;
use crate::auth::authz::Authorizer;

/// The user to act as: the caller, or whom the headers name.
///
/// # Errors
/// 403 when the caller may not impersonate one of the parts.
pub fn resolve<'h>(
    _headers: impl Iterator<Item = (&'h str, &'h str)>,
    user: UserInfo,
    _authz: &dyn Authorizer,
) -> Result<UserInfo, ApiError> {
    Ok(user)
}
