//! apps, batch and autoscaling.

use jiff::Timestamp;
use serde_json::Value;

use super::duration::{human_duration, since};
use super::format::{CONTAINERS, bool_text, containers, deleting, images, int, labels, none_if_empty, selector};
use super::{Column, Printer, age, name};
use crate::access::{at, bool_at, entries_at, int_at, list_at, str_at};

const TEMPLATE: &[&str] = &["spec", "template", "spec"];

/// ControllerRevisions.
pub static CONTROLLER_REVISIONS: Printer =
    Printer::new(&[Column::NAME, Column::text("Controller"), Column::int("Revision"), Column::AGE], |object, now| {
        let owner = list_at(object, &["metadata", "ownerReferences"]).iter().find(|o| bool_at(o, &["controller"]));
        let owner = owner.map_or_else(
            || "<none>".to_owned(),
            |o| {
                let kind = str_at(o, &["kind"]).to_lowercase();
                let name = str_at(o, &["name"]);
                match str_at(o, &["apiVersion"]).split_once('/') {
                    Some((group, _)) => format!("{kind}.{group}/{name}"),
                    None => format!("{kind}/{name}"),
                }
            },
        );
        vec![name(object), owner.into(), int(object, &["revision"]).into(), age(object, now)]
    });

/// DaemonSets.
pub static DAEMON_SETS: Printer = Printer::new(
    &[
        Column::NAME,
        Column::int("Desired"),
        Column::int("Current"),
        Column::int("Ready"),
        Column::int("Up-to-date"),
        Column::int("Available"),
        Column::text("Node Selector"),
        Column::AGE,
        CONTAINERS[0],
        CONTAINERS[1],
        CONTAINERS[2],
    ],
    |object, now| {
        let status = |key| int(object, &["status", key]).into();
        let spec = at(object, TEMPLATE);
        vec![
            name(object),
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            labels(at(spec, &["nodeSelector"])).into(),
            age(object, now),
            containers(spec).into(),
            images(spec).into(),
            selector(at(object, &["spec", "selector"])).into(),
        ]
    },
);

/// Deployments.
pub static DEPLOYMENTS: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Ready"),
        Column::int("Up-to-date"),
        Column::int("Available"),
        Column::AGE,
        CONTAINERS[0],
        CONTAINERS[1],
        CONTAINERS[2],
    ],
    |object, now| {
        let status = |key| int(object, &["status", key]);
        let spec = at(object, TEMPLATE);
        vec![
            name(object),
            format!("{}/{}", status("readyReplicas"), int(object, &["spec", "replicas"])).into(),
            status("updatedReplicas").into(),
            status("availableReplicas").into(),
            age(object, now),
            containers(spec).into(),
            images(spec).into(),
            selector(at(object, &["spec", "selector"])).into(),
        ]
    },
);

/// Columns of what keeps a number of pods.
const REPLICAS: &[Column<'static>] = &[
    Column::NAME,
    Column::int("Desired"),
    Column::int("Current"),
    Column::int("Ready"),
    Column::AGE,
    CONTAINERS[0],
    CONTAINERS[1],
    CONTAINERS[2],
];

/// Cells of [`REPLICAS`]; `show` prints the selector.
fn replicas(object: &Value, now: Timestamp, show: fn(&Value) -> String) -> Vec<Value> {
    let spec = at(object, TEMPLATE);
    vec![
        name(object),
        int(object, &["spec", "replicas"]).into(),
        int(object, &["status", "replicas"]).into(),
        int(object, &["status", "readyReplicas"]).into(),
        age(object, now),
        containers(spec).into(),
        images(spec).into(),
        show(at(object, &["spec", "selector"])).into(),
    ]
}

/// ReplicaSets.
pub static REPLICA_SETS: Printer = Printer::new(REPLICAS, |object, now| replicas(object, now, selector));

/// ReplicationControllers, whose selector is plain labels.
pub static REPLICATION_CONTROLLERS: Printer = Printer::new(REPLICAS, |object, now| replicas(object, now, labels));

/// StatefulSets.
pub static STATEFUL_SETS: Printer =
    Printer::new(&[Column::NAME, Column::text("Ready"), Column::AGE, CONTAINERS[0], CONTAINERS[1]], |object, now| {
        let spec = at(object, TEMPLATE);
        let ready = format!("{}/{}", int(object, &["status", "readyReplicas"]), int(object, &["spec", "replicas"]));
        vec![name(object), ready.into(), age(object, now), containers(spec).into(), images(spec).into()]
    });

/// Jobs.
pub static JOBS: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Status"),
        Column::text("Completions"),
        Column::text("Duration"),
        Column::AGE,
        CONTAINERS[0],
        CONTAINERS[1],
        CONTAINERS[2],
    ],
    job,
);

fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let done = int(object, &["status", "succeeded"]);
    let completions = match int_at(object, &["spec", "completions"]) {
        Some(wanted) => format!("{done}/{wanted}"),
        None => match int(object, &["spec", "parallelism"]) {
            many @ 2.. => format!("{done}/1 of {many}"),
            _ => format!("{done}/1"),
        },
    };
    let time = |key| str_at(object, &["status", key]).parse::<Timestamp>().ok();
    let duration = time("startTime")
        .map(|start| human_duration(time("completionTime").unwrap_or(now).as_second() - start.as_second()));
    let has = |ty: &str| {
        list_at(object, &["status", "conditions"])
            .iter()
            .any(|c| str_at(c, &["type"]) == ty && str_at(c, &["status"]) == "True")
    };
    let status = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if deleting(object) {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let spec = at(object, TEMPLATE);
    vec![
        name(object),
        status.into(),
        completions.into(),
        duration.unwrap_or_default().into(),
        age(object, now),
        containers(spec).into(),
        images(spec).into(),
        selector(at(object, &["spec", "selector"])).into(),
    ]
}

/// CronJobs.
pub static CRON_JOBS: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Schedule"),
        Column::text("Timezone"),
        Column::text("Suspend"),
        Column::int("Active"),
        Column::text("Last Schedule"),
        Column::AGE,
        CONTAINERS[0],
        CONTAINERS[1],
        CONTAINERS[2],
    ],
    |object, now| {
        let last = match str_at(object, &["status", "lastScheduleTime"]) {
            "" => "<none>".to_owned(),
            time => since(time, now),
        };
        let job = at(object, &["spec", "jobTemplate", "spec"]);
        let spec = at(job, &["template", "spec"]);
        vec![
            name(object),
            str_at(object, &["spec", "schedule"]).into(),
            none_if_empty(str_at(object, &["spec", "timeZone"])).into(),
            bool_text(bool_at(object, &["spec", "suspend"])).into(),
            list_at(object, &["status", "active"]).len().into(),
            last.into(),
            age(object, now),
            containers(spec).into(),
            images(spec).into(),
            selector(at(job, &["selector"])).into(),
        ]
    },
);

/// HorizontalPodAutoscalers.
pub static AUTOSCALERS: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Reference"),
        Column::text("Targets"),
        Column::text("MinPods"),
        Column::int("MaxPods"),
        Column::int("Replicas"),
        Column::AGE,
    ],
    |object, now| {
        let target = |key| str_at(object, &["spec", "scaleTargetRef", key]);
        let min = int_at(object, &["spec", "minReplicas"]).map_or_else(|| "<unset>".to_owned(), |m| m.to_string());
        vec![
            name(object),
            format!("{}/{}", target("kind"), target("name")).into(),
            metrics(object).into(),
            min.into(),
            int(object, &["spec", "maxReplicas"]).into(),
            int(object, &["status", "currentReplicas"]).into(),
            age(object, now),
        ]
    },
);

/// HorizontalPodAutoscalers of autoscaling/v1, printed as v2.
pub static AUTOSCALERS_V1: Printer = Printer::new(AUTOSCALERS.columns, |object, now| {
    (AUTOSCALERS.cells)(&(crate::convert::AUTOSCALERS.to_storage)(object.clone()), now)
});

/// `cpu: 10%/80%`, two metrics at most.
fn metrics(object: &Value) -> String {
    let specs = list_at(object, &["spec", "metrics"]);
    let texts: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(i, metric)| {
            let current = list_at(object, &["status", "currentMetrics"]).get(i);
            let (ty, source) = entries_at(metric, &[])
                .find(|(key, _)| *key != "type")
                .map_or(("", &Value::Null), |(key, value)| (key.as_str(), value));
            let value = |holder: &Value| {
                if let Some(percent) = int_at(holder, &["averageUtilization"]) {
                    return Some(format!("{percent}%"));
                }
                let text = |key| Some(str_at(holder, &[key])).filter(|t| !t.is_empty());
                text("averageValue").map(|v| format!("{v} (avg)")).or_else(|| text("value").map(str::to_owned))
            };
            let target = value(at(source, &["target"])).unwrap_or_else(|| "<auto>".to_owned());
            let now = current.and_then(|c| value(at(c, &[ty, "current"]))).unwrap_or_else(|| "<unknown>".to_owned());
            let label = str_at(source, &["name"]);
            if label.is_empty() { format!("{now}/{target}") } else { format!("{label}: {now}/{target}") }
        })
        .collect();
    match texts.len() {
        0 => "<none>".to_owned(),
        1 | 2 => texts.join(", "),
        many => format!("{} + {} more...", texts[..2].join(", "), many - 2),
    }
}

/// Scales.
pub static SCALES: Printer =
    Printer::new(&[Column::NAME, Column::int("Desired"), Column::int("Available"), Column::AGE], |object, now| {
        vec![
            name(object),
            int(object, &["spec", "replicas"]).into(),
            int(object, &["status", "replicas"]).into(),
            age(object, now),
        ]
    });
