//! flowcontrol.apiserver.k8s.io and apiregistration.k8s.io.

use serde_json::Value;

use super::format::none_if_empty;
use super::{Column, Printer, age, name};
use crate::access::{at, int_at, list_at, str_at};
use crate::apiregistration::available;

/// FlowSchemas.
pub static FLOW_SCHEMAS: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("PriorityLevel"),
        Column::text("MatchingPrecedence"),
        Column::text("DistinguisherMethod"),
        Column::AGE,
        Column::text("MissingPL"),
    ],
    |object, now| {
        let conditions = list_at(object, &["status", "conditions"]);
        let dangling = conditions.iter().find(|condition| str_at(condition, &["type"]) == "Dangling");
        vec![
            name(object),
            str_at(object, &["spec", "priorityLevelConfiguration", "name"]).into(),
            int_at(object, &["spec", "matchingPrecedence"]).unwrap_or(0).into(),
            none_if_empty(str_at(object, &["spec", "distinguisherMethod", "type"])).into(),
            age(object, now),
            dangling.map_or("?", |condition| str_at(condition, &["status"])).into(),
        ]
    },
);

/// PriorityLevelConfigurations.
pub static PRIORITY_LEVELS: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Type"),
        Column::text("NominalConcurrencyShares"),
        Column::text("Queues"),
        Column::text("HandSize"),
        Column::text("QueueLengthLimit"),
        Column::AGE,
    ],
    |object, now| {
        let limited = at(object, &["spec", "limited"]);
        let number = |path: &[&str]| int_at(limited, path).map_or_else(|| Value::from("<none>"), Value::from);
        let queuing = |field| number(&["limitResponse", "queuing", field]);
        vec![
            name(object),
            str_at(object, &["spec", "type"]).into(),
            number(&["nominalConcurrencyShares"]),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            age(object, now),
        ]
    },
);

/// APIServices.
pub static API_SERVICES: Printer = Printer::new(
    &[
        Column::NAME,
        Column { description: "The reference to the service that hosts this API endpoint.", ..Column::text("Service") },
        Column { description: "Whether this service is available.", ..Column::text("Available") },
        Column::AGE,
    ],
    |object, now| {
        let service = match at(object, &["spec", "service"]) {
            Value::Null => "Local".to_owned(),
            service => format!("{}/{}", str_at(service, &["namespace"]), str_at(service, &["name"])),
        };
        let text = |field| available(object).map_or("", |condition| str_at(condition, &[field]));
        let told = match (text("status"), text("reason")) {
            ("", _) => "Unknown".to_owned(),
            (status, "") => status.to_owned(),
            ("True", _) => "True".to_owned(),
            (status, reason) => format!("{status} ({reason})"),
        };
        vec![name(object), service.into(), told.into(), age(object, now)]
    },
);
