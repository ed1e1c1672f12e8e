//! Role-based access control, as upstream evaluates it: pure over an
//! [`RbacView`] of roles and bindings. Owns matching, rule resolution with
//! aggregated roles, and the check against privilege escalation.

mod covers;
mod model;

use std::collections::HashSet;
use std::sync::Arc;

use super::{Attributes, Authorizer, Decision};
use crate::authn::UserInfo;
pub use covers::{covers, uncovered};
pub use model::{Binding, LabelSelector, PolicyRule, RbacParseError, Role, RoleRef, Subject};

/// The roles and bindings there are.
pub trait RbacView: Send + Sync + std::fmt::Debug {
    /// A ClusterRole, its aggregated rules included.
    fn cluster_role(&self, name: &str) -> Option<Arc<[PolicyRule]>>;
    /// A Role.
    fn role(&self, namespace: &str, name: &str) -> Option<Arc<[PolicyRule]>>;
    /// All ClusterRoleBindings.
    fn cluster_role_bindings(&self) -> Arc<[Binding]>;
    /// The RoleBindings of a namespace.
    fn role_bindings(&self, namespace: &str) -> Arc<[Binding]>;
    /// A frozen view to decide one question by, if that is cheaper than asking
    /// this one many times.
    fn snapshot(&self) -> Option<Arc<dyn RbacView>> {
        None
    }
}

/// Authorizes by roles and bindings; never denies.
#[derive(Debug)]
pub struct RbacAuthorizer {
    view: Arc<dyn RbacView>,
}

/// Rules that apply to a user, and what could not be resolved.
#[derive(Clone, Debug, Default)]
pub struct ResolvedRules {
    /// Those of each role, once, however many bindings refer to it.
    roles: Vec<Arc<[PolicyRule]>>,
    /// Such as `clusterroles.rbac.authorization.k8s.io "x" not found`.
    pub errors: Unresolved,
}

impl ResolvedRules {
    /// All of them.
    pub fn rules(&self) -> impl Iterator<Item = &PolicyRule> {
        self.roles.iter().flat_map(|rules| rules.iter())
    }
}

/// Roles that are named as missing at most.
const MAX_UNRESOLVED: usize = 100;

/// What could not be resolved, as far as it is told.
#[derive(Clone, Debug, Default)]
pub struct Unresolved(Vec<String>);

impl Unresolved {
    fn push(&mut self, error: &str) {
        if self.0.len() < MAX_UNRESOLVED {
            self.0.push(error.to_owned());
        }
    }

    /// Whether everything was resolved.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Unresolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl RbacAuthorizer {
    /// An authorizer over a view.
    pub fn new(view: Arc<dyn RbacView>) -> Self {
        Self { view }
    }

    /// What it decides by.
    pub fn view(&self) -> &dyn RbacView {
        &*self.view
    }
}

impl Authorizer for RbacAuthorizer {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let mut reason = String::new();
        // Roles that bindings of the user refer to and that do not exist, as upstream names them when it has to say no.
        let mut missing = Unresolved::default();
        visit(&*self.view, &attributes.user, &attributes.namespace, |source, rules| match rules {
            Ok(rules) if rules.iter().any(|rule| rule_allows(attributes, rule)) => {
                reason = format!("RBAC: allowed by {source}");
                false
            }
            Ok(_) => true,
            Err(error) => {
                missing.push(error);
                true
            }
        });
        match reason.is_empty() {
            true if missing.is_empty() => Decision::no_opinion(String::new()),
            true => Decision::no_opinion(format!("RBAC: {missing}")),
            false => Decision::allow(reason),
        }
    }
}

/// All rules a user has in a namespace (empty: cluster-wide ones only).
pub fn rules_for(view: &dyn RbacView, user: &UserInfo, namespace: &str) -> ResolvedRules {
    let mut resolved = ResolvedRules::default();
    let mut seen = HashSet::new();
    visit(view, user, namespace, |_, rules| {
        match rules {
            Ok(rules) if seen.insert(Arc::as_ptr(rules).cast::<PolicyRule>()) => resolved.roles.push(rules.clone()),
            Ok(_) => {}
            Err(error) => resolved.errors.push(error),
        }
        true
    });
    resolved
}

/// The rules a role reference stands for in a namespace.
pub fn referenced_rules(view: &dyn RbacView, role: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, String> {
    let found = match role.kind.as_str() {
        "Role" => view.role(namespace, &role.name),
        "ClusterRole" => view.cluster_role(&role.name),
        kind => return Err(format!("unsupported role reference kind: {kind:?}")),
    };
    let plural = if role.kind == "Role" { "roles" } else { "clusterroles" };
    found.ok_or_else(|| format!("{plural}.rbac.authorization.k8s.io {:?} not found", role.name))
}

/// What a creator or updater of rules lacks: the rules they would grant without
/// having them. Empty when they may. (Who may `escalate` the role, or is in
/// `system:masters`, need not be asked.)
pub fn escalation(view: &dyn RbacView, user: &UserInfo, namespace: &str, granted: &[PolicyRule]) -> Vec<PolicyRule> {
    uncovered(rules_for(view, user, namespace).rules(), granted)
}

/// Where a rule came from.
struct Source<'b> {
    binding: &'b Binding,
    subject: &'b Subject,
}

impl std::fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Binding { namespace, name, role_ref, .. } = self.binding;
        if namespace.is_empty() {
            write!(f, "ClusterRoleBinding {name:?} of ")?;
        } else {
            write!(f, "RoleBinding {:?} of ", format!("{name}/{namespace}"))?;
        }
        write!(f, "{} {:?} to ", role_ref.kind, role_ref.name)?;
        let Subject { kind, name, namespace: own, .. } = self.subject;
        match kind.as_str() {
            "ServiceAccount" => {
                let namespace = if own.is_empty() { namespace } else { own };
                write!(f, "ServiceAccount {:?}", format!("{name}/{namespace}"))
            }
            kind => write!(f, "{kind} {name:?}"),
        }
    }
}

/// Shows each binding of the user with its rules until the visitor has enough.
fn visit(
    view: &dyn RbacView,
    user: &UserInfo,
    namespace: &str,
    mut visitor: impl FnMut(&Source<'_>, Result<&Arc<[PolicyRule]>, &str>) -> bool,
) {
    let snapshot = view.snapshot();
    let view = snapshot.as_deref().unwrap_or(view);
    let mut show = |bindings: &[Binding]| {
        for binding in bindings {
            let Some(subject) = binding.subjects.iter().find(|subject| applies(subject, user, &binding.namespace))
            else {
                continue;
            };
            let source = Source { binding, subject };
            let enough = match referenced_rules(view, &binding.role_ref, &binding.namespace) {
                Ok(rules) => !visitor(&source, Ok(&rules)),
                Err(error) => !visitor(&source, Err(&error)),
            };
            if enough {
                return true;
            }
        }
        false
    };
    if !show(&view.cluster_role_bindings()) && !namespace.is_empty() {
        show(&view.role_bindings(namespace));
    }
}

/// True when a subject of a binding (of a namespace, or none) means the user.
fn applies(subject: &Subject, user: &UserInfo, namespace: &str) -> bool {
    match subject.kind.as_str() {
        "User" => user.username == subject.name,
        "Group" => user.in_group(&subject.name),
        "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
            let account = user.username.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
            !namespace.is_empty() && account == Some((namespace, subject.name.as_str()))
        }
        _ => false,
    }
}

/// True when one rule allows the request.
pub fn rule_allows(attributes: &Attributes, rule: &PolicyRule) -> bool {
    let any = |list: &[String], wanted: &str| list.iter().any(|have| have == "*" || have == wanted);
    if !any(&rule.verbs, &attributes.verb) {
        return false;
    }
    if !attributes.resource_request {
        return rule.non_resource_urls.iter().any(|pattern| path_matches(pattern, &attributes.path));
    }
    any(&rule.api_groups, &attributes.group)
        && resource_matches(&rule.resources, &attributes.resource, &attributes.subresource)
        && (rule.resource_names.is_empty() || rule.resource_names.contains(&attributes.name))
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

fn resource_matches(resources: &[String], resource: &str, subresource: &str) -> bool {
    resources.iter().any(|have| match have.split_once('/') {
        _ if have == "*" => true,
        Some(("*", any)) => !subresource.is_empty() && any == subresource,
        Some((have, sub)) => have == resource && sub == subresource && !subresource.is_empty(),
        None => have == resource && subresource.is_empty(),
    })
}

#[cfg(test)]
mod tests;
