//! The `authorizer` of expressions.

use auth::authn::UserInfo;
use auth::authz::Attributes;
use cel::{Authorizer, Check, Decision};

use crate::admission::View;

/// Asks on behalf of who makes the request.
pub(crate) struct Asker<'a> {
    pub user: &'a UserInfo,
    pub view: &'a dyn View,
}

impl std::fmt::Debug for Asker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").field("user", &self.user.username).finish_non_exhaustive()
    }
}

impl Authorizer for Asker<'_> {
    fn authorize(&self, check: &Check) -> Decision {
        let user = match &check.service_account {
            Some((namespace, name)) => service_account(namespace, name),
            None => self.user.clone(),
        };
        let attributes = match &check.path {
            Some(path) => Attributes::non_resource(user, &check.verb, path),
            None => Attributes {
                subresource: check.subresource.clone(),
                name: check.name.clone(),
                field_selector: check.field_selector.clone(),
                label_selector: check.label_selector.clone(),
                ..Attributes::resource(user, &check.verb, &check.group, &check.resource, &check.namespace)
            },
        };
        let (allowed, reason) = self.view.authorize(&attributes);
        Decision { allowed, reason, error: None }
    }
}

/// A service account as it would ask itself.
fn service_account(namespace: &str, name: &str) -> UserInfo {
    UserInfo {
        username: format!("system:serviceaccount:{namespace}:{name}"),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ],
        ..UserInfo::default()
    }
}
