//! Which FlowSchema a request matches, and which priority level that leads to: said in two headers of every answer
//! (k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go). How much of the server a request gets is decided by
//! [`flow`](super::flow) and not by these objects.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::request_info::RequestInfo;
use auth::authn::UserInfo;
use scheme::access::{int_at, list_at, str_at};
use scheme::flowcontrol::{CATCH_ALL, EXEMPT, level_of, mandatory_level, mandatory_schema};

mod keep;
mod rule;

pub(super) use keep::{keep, objects, sync};
use rule::Rule;

/// Names the FlowSchema that a request matched, by its uid.
pub const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
/// Names the PriorityLevelConfiguration that it leads to.
pub const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// What a request is told of itself. Uids are empty of mandatory objects that are not stored just now.
#[derive(Debug, Clone)]
pub struct Class {
    schema: HeaderValue,
    level: HeaderValue,
}

impl Class {
    /// Puts it into an answer's headers.
    pub fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(FLOW_SCHEMA, self.schema.clone());
        headers.insert(PRIORITY_LEVEL, self.level.clone());
    }
}

#[derive(Debug)]
struct Schema {
    rules: Vec<Rule>,
    class: Arc<Class>,
}

/// The FlowSchemas of one moment, in the order in which they are asked.
#[derive(Debug)]
pub struct Schemas(Vec<Schema>);

fn uid(object: &Value) -> HeaderValue {
    HeaderValue::from_str(str_at(object, &["metadata", "uid"])).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn name(object: &Value) -> &str {
    str_at(object, &["metadata", "name"])
}

impl Schemas {
    /// Of the stored objects: by precedence, then by name. A schema without its level is passed over, and mandatory
    /// ones are there even if they are not (`digestFlowSchemasLocked` of
    /// k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go).
    fn new(schemas: &[Value], levels: &[Value]) -> Self {
        let imagined = [EXEMPT, CATCH_ALL].into_iter().filter(|of| !levels.iter().any(|level| name(level) == *of));
        let imagined: Vec<Value> = imagined.filter_map(mandatory_level).collect();
        let find = |wanted: &str| levels.iter().chain(&imagined).find(|level| name(level) == wanted);
        let compile = |schema: &Value| {
            let class = Class { schema: uid(schema), level: uid(find(level_of(schema))?) };
            let rules = list_at(schema, &["spec", "rules"]).iter().map(Rule::new).collect();
            Some(Schema { rules, class: Arc::new(class) })
        };
        // A level that is only imagined is none that a stored schema leads to.
        let mut found: Vec<&Value> =
            schemas.iter().filter(|schema| levels.iter().any(|level| name(level) == level_of(schema))).collect();
        found.sort_by_key(|schema| (int_at(schema, &["spec", "matchingPrecedence"]).unwrap_or(0), name(schema)));
        let has = |wanted: &str| found.iter().any(|schema| name(schema) == wanted);
        let first = if has(EXEMPT) { None } else { mandatory_schema(EXEMPT) };
        let last = if has(CATCH_ALL) { None } else { mandatory_schema(CATCH_ALL) };
        Self(first.iter().chain(found).chain(&last).filter_map(compile).collect())
    }

    /// The class of a request: that of the first schema that matches; whoever is in no group of those who have a name
    /// or have none is of the last.
    pub fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Option<Arc<Class>> {
        let matches = |schema: &&Schema| schema.rules.iter().any(|rule| rule.matches(user, info));
        self.0.iter().find(matches).or(self.0.last()).map(|schema| schema.class.clone())
    }
}

/// The schemas that are in force.
#[derive(Debug)]
pub struct Priority(ArcSwap<Schemas>);

impl Default for Priority {
    /// Nothing is stored yet.
    fn default() -> Self {
        Self(ArcSwap::from_pointee(Schemas::new(&[], &[])))
    }
}

impl Priority {
    /// See [`Schemas::classify`].
    pub fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Option<Arc<Class>> {
        self.0.load().classify(user, info)
    }
}

#[cfg(test)]
mod tests;
