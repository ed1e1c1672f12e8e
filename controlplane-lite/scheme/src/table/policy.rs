//! Events of events.k8s.io, certificates, networking, policy, RBAC, leases, classes, slices.

use jiff::Timestamp;
use serde_json::Value;

use super::core::EVENTS;
use super::duration::human_duration;
use super::format::{int, join_more, none_if_empty, selector};
use super::{Column, Printer, age, name};
use crate::access::{at, int_at, list_at, str_at};

/// Events of events.k8s.io, printed as core events.
pub static EVENTS_V1: Printer = Printer::new(EVENTS.columns, |object, now| {
    super::core::event(&(crate::convert::EVENTS.to_storage)(object.clone()), now)
});

/// CertificateSigningRequests.
pub static CERTIFICATE_SIGNING_REQUESTS: Printer = Printer::new(
    &[
        Column::NAME,
        Column::AGE,
        Column::text("SignerName"),
        Column::text("Requestor"),
        Column::text("RequestedDuration"),
        Column::text("Condition"),
    ],
    |object, now| {
        let duration = int_at(object, &["spec", "expirationSeconds"]).map(human_duration);
        vec![
            name(object),
            age(object, now),
            none_if_empty(str_at(object, &["spec", "signerName"])).into(),
            str_at(object, &["spec", "username"]).into(),
            duration.unwrap_or_else(|| "<none>".to_owned()).into(),
            request_state(object).into(),
        ]
    },
);

fn request_state(object: &Value) -> String {
    let has = |ty: &str| list_at(object, &["status", "conditions"]).iter().any(|c| str_at(c, &["type"]) == ty);
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied".to_owned(),
        (_, true) => "Approved".to_owned(),
        _ => "Pending".to_owned(),
    };
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !str_at(object, &["status", "certificate"]).is_empty() {
        state.push_str(",Issued");
    }
    state
}

/// IngressClasses.
pub static INGRESS_CLASSES: Printer = Printer::new(
    &[Column::NAME, Column::text("Controller"), Column::text("Parameters"), Column::AGE],
    |object, now| {
        let parameters = at(object, &["spec", "parameters"]);
        let text = if parameters.is_null() {
            "<none>".to_owned()
        } else {
            let kind = match str_at(parameters, &["apiGroup"]) {
                "" => str_at(parameters, &["kind"]).to_owned(),
                group => format!("{}.{group}", str_at(parameters, &["kind"])),
            };
            format!("{kind}/{}", str_at(parameters, &["name"]))
        };
        vec![name(object), str_at(object, &["spec", "controller"]).into(), text.into(), age(object, now)]
    },
);

/// Ingresses.
pub static INGRESSES: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Class"),
        Column::text("Hosts"),
        Column::text("Address"),
        Column::text("Ports"),
        Column::AGE,
    ],
    |object, now| {
        let hosts: Vec<String> = list_at(object, &["spec", "rules"])
            .iter()
            .map(|r| str_at(r, &["host"]).to_owned())
            .filter(|h| !h.is_empty())
            .collect();
        let addresses: Vec<&str> = list_at(object, &["status", "loadBalancer", "ingress"])
            .iter()
            .map(|i| match str_at(i, &["ip"]) {
                "" => str_at(i, &["hostname"]),
                ip => ip,
            })
            .collect();
        let tls = !list_at(object, &["spec", "tls"]).is_empty();
        vec![
            name(object),
            none_if_empty(str_at(object, &["spec", "ingressClassName"])).into(),
            if hosts.is_empty() { "*".into() } else { join_more(&hosts, 3).into() },
            addresses.join(",").into(),
            if tls { "80, 443" } else { "80" }.into(),
            age(object, now),
        ]
    },
);

/// IPAddresses.
pub static IP_ADDRESSES: Printer = Printer::new(&[Column::NAME, Column::text("ParentRef")], |object, _| {
    let parent = |key| str_at(object, &["spec", "parentRef", key]);
    let mut text = parent("resource").to_owned();
    for part in [parent("namespace"), parent("name")] {
        if !part.is_empty() {
            text = format!("{text}/{part}");
        }
    }
    vec![name(object), text.into()]
});

/// NetworkPolicies.
pub static NETWORK_POLICIES: Printer =
    Printer::new(&[Column::NAME, Column::text("Pod-Selector"), Column::AGE], |object, now| {
        vec![name(object), selector(at(object, &["spec", "podSelector"])).into(), age(object, now)]
    });

/// ServiceCIDRs.
pub static SERVICE_CIDRS: Printer = Printer::new(&[Column::NAME, Column::text("CIDRs"), Column::AGE], |object, now| {
    let ranges: Vec<&str> = list_at(object, &["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
    vec![name(object), ranges.join(",").into(), age(object, now)]
});

/// PodDisruptionBudgets.
pub static DISRUPTION_BUDGETS: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Min Available"),
        Column::text("Max Unavailable"),
        Column::int("Allowed Disruptions"),
        Column::AGE,
    ],
    |object, now| {
        let bound = |key| match at(object, &["spec", key]) {
            Value::Null => "N/A".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        vec![
            name(object),
            bound("minAvailable").into(),
            bound("maxUnavailable").into(),
            int(object, &["status", "disruptionsAllowed"]).into(),
            age(object, now),
        ]
    },
);

const BINDING: &[Column<'static>] = &[
    Column::NAME,
    Column::text("Role"),
    Column::AGE,
    Column::wide("Users"),
    Column::wide("Groups"),
    Column::wide("ServiceAccounts"),
];

/// RoleBindings.
pub static ROLE_BINDINGS: Printer = Printer::new(BINDING, binding);
/// ClusterRoleBindings.
pub static CLUSTER_ROLE_BINDINGS: Printer = Printer::new(BINDING, binding);

fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let subjects = |kind: &str| {
        let names: Vec<String> = list_at(object, &["subjects"])
            .iter()
            .filter(|s| str_at(s, &["kind"]) == kind)
            .map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", str_at(s, &["namespace"]), str_at(s, &["name"])),
                _ => str_at(s, &["name"]).to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    let role = format!("{}/{}", str_at(object, &["roleRef", "kind"]), str_at(object, &["roleRef", "name"]));
    vec![name(object), role.into(), age(object, now), subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}

/// Roles.
pub static ROLES: Printer = super::DEFAULT_PRINTER;
/// ClusterRoles.
pub static CLUSTER_ROLES: Printer = super::DEFAULT_PRINTER;

/// PriorityClasses.
pub static PRIORITY_CLASSES: Printer = Printer::new(
    &[
        Column::NAME,
        Column::int("Value"),
        Column { ty: "boolean", ..Column::text("Global-Default") },
        Column::AGE,
        Column::text("PreemptionPolicy"),
    ],
    |object, now| {
        vec![
            name(object),
            int(object, &["value"]).into(),
            at(object, &["globalDefault"]).as_bool().unwrap_or(false).into(),
            age(object, now),
            str_at(object, &["preemptionPolicy"]).into(),
        ]
    },
);

/// Leases.
pub static LEASES: Printer = Printer::new(&[Column::NAME, Column::text("Holder"), Column::AGE], |object, now| {
    vec![name(object), str_at(object, &["spec", "holderIdentity"]).into(), age(object, now)]
});

/// RuntimeClasses.
pub static RUNTIME_CLASSES: Printer =
    Printer::new(&[Column::NAME, Column::text("Handler"), Column::AGE], |object, now| {
        vec![name(object), str_at(object, &["handler"]).into(), age(object, now)]
    });

/// EndpointSlices.
pub static ENDPOINT_SLICES: Printer = Printer::new(
    &[Column::NAME, Column::text("AddressType"), Column::text("Ports"), Column::text("Endpoints"), Column::AGE],
    |object, now| {
        let ports: Vec<String> = list_at(object, &["ports"])
            .iter()
            .map(|p| match int_at(p, &["port"]) {
                Some(number) => number.to_string(),
                None if !str_at(p, &["name"]).is_empty() => str_at(p, &["name"]).to_owned(),
                None => "*".to_owned(),
            })
            .collect();
        let addresses: Vec<String> = list_at(object, &["endpoints"])
            .iter()
            .flat_map(|e| list_at(e, &["addresses"]))
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect();
        let text = |items: &[String]| {
            if items.is_empty() { "<unset>".to_owned() } else { join_more(items, 3) }
        };
        vec![
            name(object),
            str_at(object, &["addressType"]).into(),
            text(&ports).into(),
            text(&addresses).into(),
            age(object, now),
        ]
    },
);

/// SelfSubjectReviews, as `kubectl auth whoami` needs none: name only.
pub static SELF_SUBJECT_REVIEWS: Printer = Printer::new(&[Column::text("Username")], |object, _| {
    vec![str_at(object, &["status", "userInfo", "username"]).into()]
});
