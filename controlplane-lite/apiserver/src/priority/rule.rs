//! Pure: whether a request is one of those that a rule of a FlowSchema means
//! (k8s.io/apiserver/pkg/util/flowcontrol/rule.go).

use serde_json::Value;

use crate::request_info::RequestInfo;
use auth::authn::UserInfo;
use scheme::access::{bool_at, list_at, str_at};

/// Some names, or every name.
#[derive(Debug)]
enum Names {
    Every,
    These(Box<[Box<str>]>),
}

impl Names {
    /// An asterisk that stands alone is every name.
    fn new(rule: &Value, field: &str) -> Self {
        match list_at(rule, &[field]) {
            [one] if one == "*" => Self::Every,
            list => Self::These(list.iter().filter_map(Value::as_str).map(Box::from).collect()),
        }
    }

    fn has(&self, is: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Every => true,
            Self::These(names) => names.iter().any(|name| is(name)),
        }
    }
}

#[derive(Debug)]
enum Subject {
    /// Everybody, for a user or group of all names.
    Anybody,
    User(Box<str>),
    Group(Box<str>),
    /// An account of a namespace, or all of them.
    Account {
        namespace: Box<str>,
        name: Option<Box<str>>,
    },
    Nobody,
}

impl Subject {
    fn new(subject: &Value) -> Self {
        let name = |field| str_at(subject, &[field, "name"]);
        match str_at(subject, &["kind"]) {
            "User" if name("user") == "*" => Self::Anybody,
            "User" if subject["user"].is_object() => Self::User(name("user").into()),
            "Group" if name("group") == "*" => Self::Anybody,
            "Group" if subject["group"].is_object() => Self::Group(name("group").into()),
            "ServiceAccount" if subject["serviceAccount"].is_object() => Self::Account {
                namespace: str_at(subject, &["serviceAccount", "namespace"]).into(),
                name: Some(name("serviceAccount")).filter(|name| *name != "*").map(Box::from),
            },
            _ => Self::Nobody,
        }
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::Anybody => true,
            Self::User(name) => user.username == **name,
            Self::Group(group) => user.in_group(group),
            Self::Account { namespace, name } => {
                let account = user.username.strip_prefix("system:serviceaccount:");
                let account = account.and_then(|rest| rest.strip_prefix(&**namespace)?.strip_prefix(':'));
                account.is_some_and(|account| name.as_ref().is_none_or(|name| account == &**name))
            }
            Self::Nobody => false,
        }
    }
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Names,
    groups: Names,
    resources: Names,
    cluster_scope: bool,
    namespaces: Names,
}

impl ResourceRule {
    fn new(rule: &Value) -> Self {
        Self {
            verbs: Names::new(rule, "verbs"),
            groups: Names::new(rule, "apiGroups"),
            resources: Names::new(rule, "resources"),
            cluster_scope: bool_at(rule, &["clusterScope"]),
            namespaces: Names::new(rule, "namespaces"),
        }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = |name: &str| match info.subresource.as_str() {
            "" => name == info.resource,
            subresource => name.split_once('/') == Some((&info.resource, subresource)),
        };
        self.verbs.has(|verb| verb == info.verb)
            && self.resources.has(resource)
            && self.groups.has(|group| group == info.group)
            && if info.namespace.is_empty() {
                self.cluster_scope
            } else {
                self.namespaces.has(|namespace| namespace == info.namespace)
            }
    }
}

#[derive(Debug)]
struct NonResourceRule {
    verbs: Names,
    paths: Box<[Box<str>]>,
}

impl NonResourceRule {
    fn new(rule: &Value) -> Self {
        let paths = list_at(rule, &["nonResourceURLs"]).iter().filter_map(Value::as_str).map(Box::from).collect();
        Self { verbs: Names::new(rule, "verbs"), paths }
    }

    /// A path is meant by itself, and by all above it.
    fn matches(&self, info: &RequestInfo) -> bool {
        let path = |known: &str| {
            let prefix = known.strip_suffix('*').unwrap_or(known);
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            known == "*" || known == info.path || info.path.strip_prefix(prefix).is_some_and(|r| r.starts_with('/'))
        };
        self.verbs.has(|verb| verb == info.verb) && self.paths.iter().any(|known| path(known))
    }
}

/// Subjects, and what of theirs is meant.
#[derive(Debug)]
pub(super) struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    others: Vec<NonResourceRule>,
}

impl Rule {
    pub(super) fn new(rule: &Value) -> Self {
        Self {
            subjects: list_at(rule, &["subjects"]).iter().map(Subject::new).collect(),
            resources: list_at(rule, &["resourceRules"]).iter().map(ResourceRule::new).collect(),
            others: list_at(rule, &["nonResourceRules"]).iter().map(NonResourceRule::new).collect(),
        }
    }

    pub(super) fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.subjects.iter().any(|subject| subject.is(user))
            && if info.is_resource {
                self.resources.iter().any(|rule| rule.matches(info))
            } else {
                self.others.iter().any(|rule| rule.matches(info))
            }
    }
}
