//! Pure: what keeps a Service from serving an API, as far as its objects say
//! (`sync` of k8s.io/kube-aggregator/pkg/controllers/status/remote/remote_available_controller.go).

use serde_json::{Value, json};

use crate::outbound::ServicePort;
use scheme::access::{int_at, list_at, str_at};
use scheme::field::go_quote;

/// Why requests are not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unavailable {
    pub reason: &'static str,
    pub message: String,
}

/// The condition that says whether requests are sent.
pub(super) fn condition(found: Result<(), &Unavailable>, now: &str) -> Value {
    let (status, reason, message) = match found {
        Ok(()) => ("True", "Passed", "all checks passed"),
        Err(because) => ("False", because.reason, because.message.as_str()),
    };
    json!({
        "type": "Available", "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
    })
}

/// Looks at a Service and its EndpointSlices. Only of one with a cluster IP is it known what has to be there.
pub(super) fn look(wanted: &ServicePort, service: Option<&Value>, slices: &[Value]) -> Result<(), Unavailable> {
    let ServicePort { namespace, name, port } = wanted;
    let namespace = go_quote(namespace);
    let because = |reason, message| Err(Unavailable { reason, message });
    let Some(service) = service else {
        return because("ServiceNotFound", format!("service/{name} in {namespace} is not present"));
    };
    if str_at(service, &["spec", "type"]) != "ClusterIP" {
        return Ok(());
    }
    let mut ports = list_at(service, &["spec", "ports"]).iter();
    let Some(found) = ports.find(|found| int_at(found, &["port"]) == Some(i64::from(*port))) else {
        let message = format!("service/{name} in {namespace} is not listening on port {port}");
        return because("ServicePortError", message);
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace}");
        return because("EndpointsNotFound", message);
    }
    let port_name = str_at(found, &["name"]);
    if slices.iter().any(|slice| has_endpoint(slice, port_name)) {
        return Ok(());
    }
    let message = format!(
        "endpointslices for service/{name} in {namespace} have no addresses with port name {}",
        go_quote(port_name)
    );
    because("MissingEndpoints", message)
}

fn has_endpoint(slice: &Value, port_name: &str) -> bool {
    let ready = |endpoint: &Value| endpoint["conditions"]["ready"] != false;
    let port = |port: &Value| str_at(port, &["name"]) == port_name && int_at(port, &["port"]).is_some();
    list_at(slice, &["endpoints"]).iter().any(ready) && list_at(slice, &["ports"]).iter().any(port)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The cases of remote_available_controller_test.go, `TestSync`, that ask no server.
    #[test]
    fn what_objects_say() {
        let wanted = ServicePort { namespace: "foo".into(), name: "bar".into(), port: 1234 };
        let service =
            |ty: &str, port: i64| json!({"spec": {"type": ty, "ports": [{"port": port, "name": "testPort"}]}});
        let slice = |ready: Value, port: &str| {
            json!({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
                "ports": [{"name": port, "port": 6443}]})
        };
        let (ours, good) = (service("ClusterIP", 1234), slice(json!(true), "testPort"));
        let external = service("ExternalName", 1);
        type Row<'a> = (Option<&'a Value>, Vec<Value>, Option<(&'a str, &'a str)>);
        let rows: [Row<'_>; 9] = [
            (None, vec![], Some(("ServiceNotFound", "service/bar in \"foo\" is not present"))),
            (
                Some(&service("ClusterIP", 6443)),
                vec![good.clone()],
                Some(("ServicePortError", "service/bar in \"foo\" is not listening on port 1234")),
            ),
            (Some(&ours), vec![], Some(("EndpointsNotFound", "cannot find endpointslices for service/bar in \"foo\""))),
            (
                Some(&ours),
                vec![json!({"endpoints": [], "ports": []})],
                Some((
                    "MissingEndpoints",
                    "endpointslices for service/bar in \"foo\" have no addresses with port name \"testPort\"",
                )),
            ),
            (
                Some(&ours),
                vec![slice(json!(true), "wrongName")],
                Some((
                    "MissingEndpoints",
                    "endpointslices for service/bar in \"foo\" have no addresses with port name \"testPort\"",
                )),
            ),
            (
                Some(&ours),
                vec![slice(json!(false), "testPort")],
                Some((
                    "MissingEndpoints",
                    "endpointslices for service/bar in \"foo\" have no addresses with port name \"testPort\"",
                )),
            ),
            (Some(&ours), vec![slice(json!(false), "testPort"), good.clone()], None),
            (Some(&ours), vec![slice(json!(null), "testPort")], None),
            (Some(&external), vec![], None),
        ];
        for (service, slices, expect) in rows {
            let found = look(&wanted, service, &slices).err();
            let found = found.as_ref().map(|because| (because.reason, because.message.as_str()));
            assert_eq!(found, expect, "{service:?} {slices:?}");
        }
    }
}
