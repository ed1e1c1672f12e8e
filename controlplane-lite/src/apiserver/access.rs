//! How authentication and authorization are put together for this server: their views over its own caches, and the
//! tokens it issues.

use serde_json::{Value, json};

/// Tokens and rules.
#[derive(Debug, Default)]
pub struct Access {}

impl Access {
    /// The public keys tokens are signed with.
    pub fn jwks(&self) -> Value {
        json!({"keys": []})
    }

    /// OpenID discovery.
    pub fn openid_configuration(&self) -> Value {
        json!({})
    }
}

impl Access {
    /// The status of a TokenReview.
    pub async fn review_token(&self, server: &super::server::Server, token: &str, _audiences: &[String]) -> Value {
        match super::reviews::authenticate_token(server, token).await {
            Ok(Some(found)) => json!({"authenticated": true, "user": found.user, "audiences": found.audiences}),
            Ok(None) => json!({"authenticated": false}),
            Err(error) => json!({"authenticated": false, "error": error}),
        }
    }

    /// The status of a SelfSubjectRulesReview.
    pub fn rules(&self, _user: &crate::auth::authn::UserInfo, _namespace: &str) -> Value {
        json!({"incomplete": true, "resourceRules": [], "nonResourceRules": []})
    }

    /// A TokenRequest with its token.
    ///
    /// # Errors
    /// See the subresource.
    pub async fn issue(
        &self,
        _call: &super::call::Call,
        _account: &Value,
        request: Value,
        _dry_run: bool,
    ) -> Result<Value, super::status::ApiError> {
        Ok(request)
    }
}

#[derive(Debug)]
struct Nobody;

#[async_trait::async_trait]
impl crate::auth::authn::Authenticator for Nobody {
    async fn authenticate(
        &self,
        credentials: crate::auth::authn::Credentials<'_>,
    ) -> Result<Option<crate::auth::authn::Authenticated>, crate::auth::authn::AuthnError> {
        let user = if credentials.peer_certificates.is_empty() {
            crate::auth::authn::UserInfo::anonymous()
        } else {
            crate::auth::authn::UserInfo::new("certificate", ["system:masters"])
        };
        Ok(Some(crate::auth::authn::Authenticated { user, audiences: Vec::new() }))
    }
}

#[derive(Debug)]
struct Masters;

impl crate::auth::authz::Authorizer for Masters {
    fn authorize(&self, attributes: &crate::auth::authz::Attributes) -> crate::auth::authz::Decision {
        if attributes.user.in_group("system:masters") {
            return crate::auth::authz::Decision::allow("");
        }
        crate::auth::authz::Decision::no_opinion("")
    }
}

/// Builds the two chains.
pub fn build(
    _config: &super::Config,
    _registry: &super::registry::Registry,
) -> (std::sync::Arc<dyn crate::auth::authn::Authenticator>, std::sync::Arc<dyn crate::auth::authz::Authorizer>, Access)
{
    (std::sync::Arc::new(Nobody), std::sync::Arc::new(Masters), Access::default())
}
