//! Values of Kubernetes' libraries, and of types that expressions make.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use quantity::Quantity;

use super::Value;
use crate::library::format::Format;
use crate::library::semver::Version;
use crate::types::Type;

/// Decides for the `authorizer` of expressions.
pub trait Authorizer: fmt::Debug + Sync {
    /// Whether a check passes, for the service account that the check names, or else for the request's user.
    fn authorize(&self, check: &Check) -> Decision;
}

/// What an expression asks an authorizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Namespace and name of the service account that is asked for, instead of the request's user.
    pub service_account: Option<(String, String)>,
    /// The path of a check that is of no resource.
    pub path: Option<String>,
    /// The resource's group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// A field selector.
    pub field_selector: String,
    /// A label selector.
    pub label_selector: String,
    /// The verb.
    pub verb: String,
}

/// An authorizer's word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

/// The parts of a URL that expressions ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub(crate) text: String,
    pub(crate) scheme: String,
    /// With port.
    pub(crate) host: String,
    pub(crate) escaped_path: String,
    pub(crate) query: BTreeMap<String, Vec<String>>,
}

/// A value of a type that an expression made: `Object{spec: …}`.
#[derive(Debug, Clone)]
pub struct StructValue<'a> {
    /// The type's name.
    pub name: Arc<str>,
    /// The fields that were set.
    pub fields: BTreeMap<Arc<str>, Value<'a>>,
}

/// A value of a library.
#[derive(Debug, Clone)]
pub enum Object<'a> {
    /// `url(…)`.
    Url(Arc<Url>),
    /// `quantity(…)`.
    Quantity(Quantity),
    /// `ip(…)`.
    Ip(IpAddr),
    /// `cidr(…)`: the address as written, and the prefix's length.
    Cidr(IpAddr, u8),
    /// `semver(…)`.
    Semver(Arc<Version>),
    /// `format.dns1123Label()`.
    Format(&'static Format),
    /// `authorizer`.
    Authorizer(&'a dyn Authorizer, Arc<Check>),
    /// `authorizer.path(…)`.
    PathCheck(&'a dyn Authorizer, Arc<Check>),
    /// `authorizer.group(…)`.
    GroupCheck(&'a dyn Authorizer, Arc<Check>),
    /// `authorizer.group(…).resource(…)`.
    ResourceCheck(&'a dyn Authorizer, Arc<Check>),
    /// `….check(…)`.
    Decision(Arc<Decision>),
}

impl Object<'_> {
    pub(super) fn type_of(&self) -> Type {
        match self {
            Self::Ip(_) => Type::Opaque("net.IP".into(), [].into()),
            Self::Cidr(..) => Type::Opaque("net.CIDR".into(), [].into()),
            Self::Url(_) => Type::named("kubernetes.URL"),
            Self::Quantity(_) => Type::named("kubernetes.Quantity"),
            Self::Semver(_) => Type::named("kubernetes.Semver"),
            Self::Format(_) => Type::named("kubernetes.NamedFormat"),
            Self::Authorizer(..) => Type::named("kubernetes.authorization.Authorizer"),
            Self::PathCheck(..) => Type::named("kubernetes.authorization.PathCheck"),
            Self::GroupCheck(..) => Type::named("kubernetes.authorization.GroupCheck"),
            Self::ResourceCheck(..) => Type::named("kubernetes.authorization.ResourceCheck"),
            Self::Decision(_) => Type::named("kubernetes.authorization.Decision"),
        }
    }

    /// The size in bytes that costs are counted by.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Self::Ip(IpAddr::V4(_)) => Some(4),
            Self::Ip(IpAddr::V6(_)) => Some(16),
            Self::Cidr(_, length) => Some(usize::from(length.div_ceil(8))),
            _ => None,
        }
    }

    /// Whether two values are equal. `None` if they are of different kinds.
    pub(super) fn equals(&self, other: &Self) -> Option<bool> {
        Some(match (self, other) {
            (Self::Url(a), Self::Url(b)) => a.text == b.text,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, n), Self::Cidr(b, m)) => a == b && n == m,
            (Self::Semver(a), Self::Semver(b)) => a.precedence(b).is_eq(),
            (Self::Format(a), Self::Format(b)) => a.name == b.name,
            (Self::Decision(a), Self::Decision(b)) => a == b,
            (Self::Authorizer(_, a), Self::Authorizer(_, b))
            | (Self::PathCheck(_, a), Self::PathCheck(_, b))
            | (Self::GroupCheck(_, a), Self::GroupCheck(_, b))
            | (Self::ResourceCheck(_, a), Self::ResourceCheck(_, b)) => a == b,
            _ => return None,
        })
    }

    pub(super) fn to_json(&self) -> Option<serde_json::Value> {
        match self {
            Self::Url(_) | Self::Quantity(_) | Self::Ip(_) | Self::Cidr(..) | Self::Semver(_) => {
                Some(self.to_string().into())
            }
            _ => None,
        }
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&url.text),
            Self::Quantity(quantity) => quantity.fmt(f),
            Self::Ip(address) => address.fmt(f),
            Self::Cidr(address, length) => write!(f, "{address}/{length}"),
            Self::Semver(version) => version.fmt(f),
            Self::Format(format) => f.write_str(format.name),
            other => f.write_str(other.type_of().runtime_name()),
        }
    }
}
