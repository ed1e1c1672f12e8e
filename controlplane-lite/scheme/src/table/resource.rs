//! resource.k8s.io.

use serde_json::Value;

use super::{Column, Printer, age, name};
use crate::access::{at, is_empty, str_at};

/// DeviceClasses and ResourceClaimTemplates.
pub static NAMES: Printer =
    Printer::new(&[Column::NAME, Column::AGE], |object, now| vec![name(object), age(object, now)]);

/// ResourceClaims.
pub static CLAIMS: Printer = Printer::new(
    &[
        Column::NAME,
        Column {
            description: "A summary of the current state (allocated, pending, reserved, etc.).",
            ..Column::text("State")
        },
        Column::AGE,
    ],
    |object, now| vec![name(object), state(object).into(), age(object, now)],
);

fn state(claim: &Value) -> String {
    let deleted = !at(claim, &["metadata", "deletionTimestamp"]).is_null();
    let allocated = !at(claim, &["status", "allocation"]).is_null();
    let reserved = allocated && !is_empty(at(claim, &["status", "reservedFor"]));
    let states =
        [(deleted, "deleted"), (!allocated && !deleted, "pending"), (allocated, "allocated"), (reserved, "reserved")];
    states.into_iter().filter(|(holds, _)| *holds).map(|(_, state)| state).collect::<Vec<_>>().join(",")
}

/// ResourceSlices.
pub static SLICES: Printer = Printer::new(
    &[Column::NAME, Column::text("Node"), Column::text("Driver"), Column::text("Pool"), Column::AGE],
    |object, now| {
        let text = |path: &[&str]| Value::from(str_at(object, path));
        let node = at(object, &["spec", "nodeName"]).as_str().unwrap_or("<unset>");
        vec![name(object), node.into(), text(&["spec", "driver"]), text(&["spec", "pool", "name"]), age(object, now)]
    },
);
