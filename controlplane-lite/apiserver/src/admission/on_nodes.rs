//! PodTopologyLabels: pods bear the zone and region of their node. PodResizeValidator: no pod grows beyond its node.
//! Follow `plugin/pkg/admission/{podtopologylabels,podresize}`.

use quota::{Amounts, asked, read};
use serde_json::Value;

use super::{Mutated, Operation, Refusal, Request, View};
use scheme::access::{at, ensure_map, str_at};

const PREFIX: &str = "topology.kubernetes.io/";
const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

pub(super) fn label(request: &Request<'_>, object: Option<&mut Value>, view: &dyn View) -> Result<Mutated, Refusal> {
    let new = request.is("", "pods") && request.operation == Operation::Create;
    let Some(object) = object.filter(|_| new) else { return Ok(Mutated::No) };
    let node = match request.subresource {
        "" => str_at(object, &["spec", "nodeName"]),
        // What a binding is labelled with, its pod gets.
        "binding" if str_at(object, &["target", "kind"]) == "Node" => str_at(object, &["target", "name"]),
        _ => "",
    };
    // A node's object is large, and most have none: it is read only where there is something to find.
    if node.is_empty() || view.mentions("", "nodes", "", node, PREFIX) != Some(true) {
        return Ok(Mutated::No);
    }
    let Some(node) = view.get("", "nodes", "", node) else { return Ok(Mutated::No) };
    let mut mutated = Mutated::No;
    for label in LABELS {
        let value = at(&node, &["metadata", "labels", label]);
        if !value.is_null() && at(object, &["metadata", "labels", label]).is_null() {
            ensure_map(object, &["metadata", "labels"]).insert(label.to_owned(), value.clone());
            mutated = Mutated::Whole;
        }
    }
    Ok(mutated)
}

pub(super) fn resize(request: &Request<'_>, object: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    let resizes = request.is("", "pods") && request.operation == Operation::Update && request.subresource == "resize";
    let (Some(pod), Some(old)) = (object.filter(|_| resizes), request.old) else { return Ok(()) };
    let name = str_at(pod, &["spec", "nodeName"]);
    if name.is_empty() || at(pod, &["metadata", "generation"]) == at(old, &["metadata", "generation"]) {
        return Ok(());
    }
    let Some(node) = view.get("", "nodes", "", name) else {
        return Err(request.forbidden(format!("node {name:?} not found")));
    };
    let mut wanted = asked(pod).requests;
    quota::add(&mut wanted, &read(&pod["spec"]["overhead"]));
    let allocatable = read(&node["status"]["allocatable"]);
    let milli = |amounts: &Amounts| amounts.get("cpu").map_or(0, quantity::Quantity::milli_value);
    let bytes = |amounts: &Amounts| amounts.get("memory").map_or(0, quantity::Quantity::value);
    let sizes =
        [("cpu", milli(&wanted), milli(&allocatable)), ("memory", bytes(&wanted), bytes(&allocatable))].into_iter();
    let beyond = sizes.filter(|(_, wanted, has)| wanted > has);
    let beyond: Vec<String> =
        beyond.map(|(what, wanted, has)| format!("{what}, requested: {wanted}, allocatable: {has}")).collect();
    if !beyond.is_empty() {
        let why = format!("Node didn't have enough allocatable resources: {}", beyond.join("; "));
        return Err(request.forbidden(why));
    }
    let os = str_at(&node, &["metadata", "labels", "kubernetes.io/os"]);
    if os != "linux" {
        let why = format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}");
        return Err(request.forbidden(why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Operation;
    use super::super::tests::{Asked, Objects, creating, run};
    use serde_json::{Value, json};

    fn cluster() -> Objects {
        let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "kubernetes.io/os": "linux"});
        Objects::cluster()
            .with(
                "nodes",
                json!({"metadata": {"name": "n", "labels": labels},
                "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}}),
            )
            .with(
                "nodes",
                json!({"metadata": {"name": "w", "labels": {"kubernetes.io/os": "windows"}},
                "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}}),
            )
    }

    #[test]
    fn pods_bear_the_topology_of_their_node() {
        let mut binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
        let asked = Asked { subresource: "binding", ..creating("pods") };
        run(&asked, &mut binding, &cluster()).unwrap();
        assert_eq!(binding["metadata"]["labels"]["topology.kubernetes.io/zone"], "z");
        let mut pod = json!({"metadata": {"name": "p", "labels": {"topology.kubernetes.io/zone": "own"}},
            "spec": {"nodeName": "n", "containers": [{"name": "a"}]}});
        run(&creating("pods"), &mut pod, &cluster()).unwrap();
        let labels = json!({"topology.kubernetes.io/zone": "own", "topology.kubernetes.io/region": "r"});
        assert_eq!(pod["metadata"]["labels"], labels);
        let mut elsewhere = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "gone"}});
        run(&asked, &mut elsewhere, &cluster()).unwrap();
        assert!(elsewhere["metadata"]["labels"].is_null());
    }

    #[test]
    fn a_pod_grows_as_far_as_its_node_goes() {
        let pod = |node: &str, cpu: &str, generation: i64| {
            json!({"metadata": {"name": "p", "generation": generation}, "spec": {"nodeName": node,
                "containers": [{"name": "a", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]}})
        };
        let refused = |mut new: Value| {
            let old = Some(pod("n", "1", 1));
            let asked = Asked { operation: Operation::Update, subresource: "resize", old, ..creating("pods") };
            run(&asked, &mut new, &cluster()).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(refused(pod("n", "2", 2)), "");
        assert_eq!(refused(pod("n", "9", 1)), "", "nothing was asked for");
        let why = refused(pod("n", "2500m", 2));
        assert!(why.ends_with("allocatable resources: cpu, requested: 2500, allocatable: 2000"), "{why}");
        assert!(refused(pod("w", "2", 2)).ends_with("only supported on linux nodes, node \"w\" is \"windows\""));
        assert!(refused(pod("gone", "2", 2)).ends_with("node \"gone\" not found"));
    }
}
