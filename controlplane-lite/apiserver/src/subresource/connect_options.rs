//! The options of a connection as an object, which is what admission sees of it: `PodExecOptions` and its like
//! (`pkg/apis/core/v1/conversion.go`, `rest.Connecter.NewConnectOptions`). Pure.

use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::request_info::Query;

/// The options of a request to exec, attach, portforward or proxy; nothing of other subresources.
pub(super) fn of(call: &Call, path: &str) -> Option<Value> {
    let body = call.kind.subresource(&call.info.subresource)?.body?;
    options(body, &call.query, path)
}

fn options((group, version, kind): (&str, &str, &str), query: &Query, path: &str) -> Option<Value> {
    let mut fields = Map::new();
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    fields.insert("kind".to_owned(), kind.into());
    fields.insert("apiVersion".to_owned(), api_version.into());
    let mut set = |name: &str, value: Option<Value>| fields.extend(value.map(|value| (name.to_owned(), value)));
    match kind {
        "PodExecOptions" | "PodAttachOptions" => {
            for name in ["stdin", "stdout", "stderr", "tty"] {
                set(name, query.flag(name).then_some(json!(true)));
            }
            set("container", query.get("container").filter(|text| !text.is_empty()).map(Value::from));
            let command: Vec<&str> = query.all("command").collect();
            set("command", (kind == "PodExecOptions" && !command.is_empty()).then(|| json!(command)));
        }
        "PodPortForwardOptions" => {
            let ports: Vec<u16> =
                query.all("ports").flat_map(|list| list.split(',')).filter_map(|port| port.parse().ok()).collect();
            set("ports", (!ports.is_empty()).then(|| json!(ports)));
        }
        "PodProxyOptions" | "ServiceProxyOptions" | "NodeProxyOptions" => {
            set("path", (!path.is_empty()).then(|| format!("/{path}").into()));
        }
        _ => return None,
    }
    Some(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_out_of_the_query() {
        let of = |kind: &str, query: &str| options(("", "v1", kind), &Query::parse(Some(query)), "a/b");
        let expect = |kind: &str, more: Value| {
            Some(scheme::patch::merge::apply(&json!({"kind": kind, "apiVersion": "v1"}), &more))
        };
        assert_eq!(
            of("PodExecOptions", "command=sh&command=-c&stdout=1&tty=false&container=c"),
            expect("PodExecOptions", json!({"command": ["sh", "-c"], "stdout": true, "container": "c"}))
        );
        assert_eq!(of("PodAttachOptions", "stdin=true"), expect("PodAttachOptions", json!({"stdin": true})));
        assert_eq!(
            of("PodPortForwardOptions", "ports=80,81"),
            expect("PodPortForwardOptions", json!({"ports": [80, 81]}))
        );
        assert_eq!(of("NodeProxyOptions", ""), expect("NodeProxyOptions", json!({"path": "/a/b"})));
        assert_eq!(of("Eviction", ""), None);
    }
}
