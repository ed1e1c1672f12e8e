//! Paths: what clients look for in them (which verbs there are, which kind they
//! speak of, which query parameters they take), not a full description.

use serde_json::{Map, Value, json};

use super::Dialect;
use super::schemas::{Names, list_name};
use crate::kind::Kind;

/// Group, version and kind of a body.
type Body<'a> = (&'a str, &'a str, &'a str);

/// Adds all paths of a kind and its subresources.
pub(super) fn of_kind(kind: &Kind, names: &Names<'_>, dialect: Dialect, paths: &mut Map<String, Value>) {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let collection = if kind.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        format!("{root}/{}", kind.plural)
    };
    let item = format!("{collection}/{{name}}");
    let own: Body<'_> = (&kind.group, &kind.version, &kind.kind);
    let make = |verbs: &[&str], body: Body<'_>, named: bool, sub: &str| {
        let wanted: Vec<Method> =
            METHODS.iter().filter(|m| m.named == named && verbs.contains(&m.verb)).copied().collect();
        path_item(kind, names, dialect, &wanted, body, named, sub)
    };
    paths.insert(collection, make(kind.verbs, own, false, ""));
    if kind.verbs.contains(&"get") {
        paths.insert(item.clone(), make(kind.verbs, own, true, ""));
    }
    if kind.namespaced && kind.verbs.contains(&"list") {
        paths.insert(format!("{root}/{}", kind.plural), make(&["list"], own, false, ""));
    }
    for sub in &kind.subresources {
        let body = sub.body.unwrap_or(own);
        let verbs: Vec<&str> = sub.verbs.to_vec();
        let wanted: Vec<Method> = SUB_METHODS.iter().filter(|m| verbs.contains(&m.verb)).copied().collect();
        let value = path_item(kind, names, dialect, &wanted, body, true, sub.name);
        paths.insert(format!("{item}/{}", sub.name), value);
    }
}

/// An HTTP method and the verb it serves.
#[derive(Clone, Copy)]
struct Method {
    http: &'static str,
    verb: &'static str,
    action: &'static str,
    named: bool,
}

const fn method(http: &'static str, verb: &'static str, action: &'static str, named: bool) -> Method {
    Method { http, verb, action, named }
}

const METHODS: [Method; 7] = [
    method("get", "list", "list", false),
    method("post", "create", "post", false),
    method("delete", "deletecollection", "deletecollection", false),
    method("get", "get", "get", true),
    method("put", "update", "put", true),
    method("patch", "patch", "patch", true),
    method("delete", "delete", "delete", true),
];

const SUB_METHODS: [Method; 5] = [
    method("get", "get", "get", true),
    method("post", "create", "post", true),
    method("put", "update", "put", true),
    method("patch", "patch", "patch", true),
    method("delete", "delete", "delete", true),
];

fn parameter(name: &str, place: &str, ty: &str, dialect: Dialect) -> Value {
    let mut value = json!({ "name": name, "in": place, "uniqueItems": true });
    match dialect {
        Dialect::V2 => value["type"] = ty.into(),
        Dialect::V3 => value["schema"] = json!({ "type": ty, "uniqueItems": true }),
    }
    if place == "path" {
        value["required"] = true.into();
    }
    value
}

fn query_parameters(verb: &str) -> &'static [(&'static str, &'static str)] {
    match verb {
        "create" | "update" => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")],
        "patch" => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")]
        }
        "delete" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ],
        "list" | "deletecollection" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        _ => &[],
    }
}

fn path_item(
    kind: &Kind,
    names: &Names<'_>,
    dialect: Dialect,
    methods: &[Method],
    body: Body<'_>,
    named: bool,
    sub: &str,
) -> Value {
    let mut item = Map::new();
    for method in methods {
        item.insert(method.http.to_owned(), operation(kind, names, dialect, *method, body, sub));
    }
    let mut parameters = Vec::new();
    if named {
        parameters.push(parameter("name", "path", "string", dialect));
    }
    if kind.namespaced {
        parameters.push(parameter("namespace", "path", "string", dialect));
    }
    parameters.push(parameter("pretty", "query", "string", dialect));
    item.insert("parameters".to_owned(), Value::Array(parameters));
    Value::Object(item)
}

fn operation(kind: &Kind, names: &Names<'_>, dialect: Dialect, method: Method, body: Body<'_>, sub: &str) -> Value {
    let (group, version, name) = body;
    let definition = names.get(&body);
    let list = method.verb == "list";
    let schema = definition.map(|name| {
        let name = if list { list_name(kind) } else { (*name).to_owned() };
        json!({ "$ref": format!("{}{name}", dialect.prefix()) })
    });
    let mut parameters: Vec<Value> =
        query_parameters(method.verb).iter().map(|(name, ty)| parameter(name, "query", ty, dialect)).collect();
    let group_words = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or("") };
    let operation_id = format!(
        "{}{}{}{}{}{}",
        method.action,
        capital(group_words),
        capital(&kind.version),
        if kind.namespaced { "Namespaced" } else { "" },
        kind.kind,
        capital(sub)
    );
    let mut operation = json!({
        "tags": [format!("{group_words}_{}", kind.version)],
        "description": describe(method, kind, sub),
        "operationId": operation_id,
        "x-kubernetes-action": method.action,
        "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": name },
    });
    let writes = matches!(method.http, "post" | "put");
    let ok = match (dialect, &schema) {
        (Dialect::V2, Some(schema)) => json!({ "description": "OK", "schema": schema }),
        (Dialect::V3, Some(schema)) => {
            json!({ "description": "OK", "content": { "application/json": { "schema": schema } } })
        }
        (_, None) => json!({ "description": "OK" }),
    };
    operation["responses"] = json!({ "200": ok, "401": { "description": "Unauthorized" } });
    if writes && let Some(schema) = &schema {
        match dialect {
            Dialect::V2 => parameters.push(json!({ "name": "body", "in": "body", "required": true, "schema": schema })),
            Dialect::V3 => {
                operation["requestBody"] = json!({ "required": true, "content": { "*/*": { "schema": schema } } })
            }
        }
    }
    if dialect == Dialect::V2 {
        operation["consumes"] = json!(consumes(method.http, kind.custom));
        operation["produces"] = json!(["application/json", "application/yaml"]);
        operation["schemes"] = json!(["https"]);
    } else if method.http == "patch" {
        let content: Map<String, Value> = consumes("patch", kind.custom)
            .iter()
            .map(|c| ((*c).to_owned(), json!({ "schema": { "type": "object" } })))
            .collect();
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation["parameters"] = Value::Array(parameters);
    operation
}

fn consumes(http: &str, custom: bool) -> &'static [&'static str] {
    match http {
        "patch" if custom => {
            &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"]
        }
        "patch" => {
            &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"]
        }
        _ => &["*/*"],
    }
}

fn describe(method: Method, kind: &Kind, sub: &str) -> String {
    let what = if sub.is_empty() { kind.kind.to_string() } else { format!("{sub} of the specified {}", kind.kind) };
    match method.verb {
        "list" => format!("list or watch objects of kind {what}"),
        "create" => format!("create a {what}"),
        "deletecollection" => format!("delete collection of {what}"),
        "get" => format!("read the specified {what}"),
        "update" => format!("replace the specified {what}"),
        "patch" => format!("partially update the specified {what}"),
        _ => format!("delete a {what}"),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}
