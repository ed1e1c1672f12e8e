//! Reads a `KubeSchedulerConfiguration` and says everything that is wrong with
//! it at once. Pure.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::framework::Profile;
use super::plugins::resources::{NodeResourcesBalancedAllocation, NodeResourcesFit, Strategy};
use super::profile::{DEFAULT_SCHEDULER_NAME, PluginArgs, default_profile};

/// Profiles of the scheduler.
#[derive(Debug, Clone, Default)]
pub struct SchedulerConfig {
    profiles: Vec<Profile>,
    /// Where informers report what they do.
    pub status: client::Status,
}

impl SchedulerConfig {
    /// With these profiles instead of the default one.
    pub fn with_profiles(profiles: Vec<Profile>) -> Self {
        Self { profiles, ..Self::default() }
    }

    /// The profiles; the default one when none is configured.
    pub fn profiles(&self) -> Vec<Profile> {
        if self.profiles.is_empty() {
            return vec![default_profile(DEFAULT_SCHEDULER_NAME, &PluginArgs::default())];
        }
        self.profiles.clone()
    }
}

/// Fields upstream knows that have no meaning here.
const IGNORED: [&str; 8] = [
    "parallelism",
    "leaderElection",
    "clientConnection",
    "enableProfiling",
    "enableContentionProfiling",
    "podInitialBackoffSeconds",
    "podMaxBackoffSeconds",
    "delayCacheUntilActive",
];
/// Upstream's plugins that are not built yet: may be disabled, enabling is an error.
const ABSENT: [&str; 11] = [
    "VolumeRestrictions",
    "NodeVolumeLimits",
    "VolumeBinding",
    "VolumeZone",
    "PodTopologySpread",
    "InterPodAffinity",
    "DynamicResources",
    "GangScheduling",
    "NodeDeclaredFeatures",
    "EBSLimits",
    "GCEPDLimits",
];
const FIXED: [&str; 3] = ["PrioritySort", "SchedulingGates", "DefaultBinder"];

/// Reads the YAML or JSON text of a `KubeSchedulerConfiguration` (v1).
///
/// # Errors
/// Every problem found, each with the path of the field.
pub fn parse_config(text: &str) -> Result<SchedulerConfig, Vec<String>> {
    let value: Value = serde_norway::from_str(text).map_err(|e| vec![format!("not YAML: {e}")])?;
    let Value::Object(root) = value else { return Err(vec!["not a mapping".to_owned()]) };
    let mut problems = Vec::new();
    expect_text(&root, "apiVersion", "kubescheduler.config.k8s.io/v1", &mut problems);
    expect_text(&root, "kind", "KubeSchedulerConfiguration", &mut problems);
    for key in root.keys().filter(|k| !IGNORED.contains(&k.as_str())) {
        if !["apiVersion", "kind", "profiles", "percentageOfNodesToScore"].contains(&key.as_str()) {
            problems.push(format!("unknown field {key}"));
        }
    }
    let percentage = percentage(&root, "", &mut problems);
    let mut profiles = Vec::new();
    for (i, value) in list(root.get("profiles"), "profiles", &mut problems).iter().enumerate() {
        let path = format!("profiles[{i}]");
        if let Some(mut profile) = profile(value, &path, &mut problems) {
            if profile.percentage_of_nodes_to_score == 0 {
                profile.percentage_of_nodes_to_score = percentage;
            }
            if profiles.iter().any(|p: &Profile| p.scheduler_name == profile.scheduler_name) {
                problems.push(format!("{path}.schedulerName: duplicate {:?}", profile.scheduler_name));
            }
            profiles.push(profile);
        }
    }
    if profiles.is_empty() && problems.is_empty() {
        let mut profile = default_profile(DEFAULT_SCHEDULER_NAME, &PluginArgs::default());
        profile.percentage_of_nodes_to_score = percentage;
        profiles.push(profile);
    }
    if problems.is_empty() { Ok(SchedulerConfig::with_profiles(profiles)) } else { Err(problems) }
}

fn expect_text(root: &Map<String, Value>, key: &str, want: &str, problems: &mut Vec<String>) {
    if root.get(key).and_then(Value::as_str) != Some(want) {
        problems.push(format!("{key}: must be {want}"));
    }
}

fn list<'a>(value: Option<&'a Value>, path: &str, problems: &mut Vec<String>) -> &'a [Value] {
    match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(items)) => items,
        Some(_) => {
            problems.push(format!("{path}: must be a list"));
            &[]
        }
    }
}

fn unknown(map: &Map<String, Value>, known: &[&str], path: &str, problems: &mut Vec<String>) {
    for key in map.keys().filter(|k| !known.contains(&k.as_str())) {
        problems.push(format!("unknown field {path}.{key}"));
    }
}

fn percentage(map: &Map<String, Value>, path: &str, problems: &mut Vec<String>) -> u8 {
    match map.get("percentageOfNodesToScore") {
        None | Some(Value::Null) => 0,
        Some(v) => v.as_u64().and_then(|n| u8::try_from(n).ok()).filter(|n| *n <= 100).unwrap_or_else(|| {
            problems.push(format!("{path}percentageOfNodesToScore: must be 0 to 100"));
            0
        }),
    }
}

fn profile(value: &Value, path: &str, problems: &mut Vec<String>) -> Option<Profile> {
    let Value::Object(map) = value else {
        problems.push(format!("{path}: must be a mapping"));
        return None;
    };
    unknown(map, &["schedulerName", "plugins", "pluginConfig", "percentageOfNodesToScore"], path, problems);
    let name = map.get("schedulerName").and_then(Value::as_str).unwrap_or(DEFAULT_SCHEDULER_NAME);
    let args = plugin_args(map, path, problems);
    let mut profile = default_profile(name, &args);
    profile.percentage_of_nodes_to_score = percentage(map, &format!("{path}."), problems);
    if let Some(plugins) = map.get("plugins").and_then(Value::as_object) {
        for (point, set) in plugins {
            plugin_set(&mut profile, &args, point, set, &format!("{path}.plugins.{point}"), problems);
        }
    }
    Some(profile)
}

const POINTS: [&str; 13] = [
    "queueSort",
    "preEnqueue",
    "preFilter",
    "filter",
    "postFilter",
    "preScore",
    "score",
    "reserve",
    "permit",
    "preBind",
    "bind",
    "postBind",
    "multiPoint",
];

fn plugin_set(
    profile: &mut Profile,
    args: &PluginArgs,
    point: &str,
    set: &Value,
    path: &str,
    problems: &mut Vec<String>,
) {
    if !POINTS.contains(&point) {
        problems.push(format!("unknown field {path}"));
        return;
    }
    let Value::Object(set) = set else {
        problems.push(format!("{path}: must be a mapping"));
        return;
    };
    unknown(set, &["enabled", "disabled"], path, problems);
    let all = default_profile("", args);
    for item in list(set.get("disabled"), &format!("{path}.disabled"), problems) {
        match item.get("name").and_then(Value::as_str) {
            Some(name) if name == "*" || known(&all, name) => disable(profile, point, name),
            Some(name) => problems.push(format!("{path}.disabled: unknown plugin {name:?}")),
            None => problems.push(format!("{path}.disabled: a plugin needs a name")),
        }
    }
    for item in list(set.get("enabled"), &format!("{path}.enabled"), problems) {
        let weight = item.get("weight").and_then(Value::as_i64);
        match item.get("name").and_then(Value::as_str) {
            Some(name) if ABSENT.contains(&name) => {
                problems.push(format!("{path}.enabled: plugin {name:?} is not available"));
            }
            Some(name) if known(&all, name) => enable(profile, &all, point, name, weight),
            Some(name) => problems.push(format!("{path}.enabled: unknown plugin {name:?}")),
            None => problems.push(format!("{path}.enabled: a plugin needs a name")),
        }
    }
}

fn known(all: &Profile, name: &str) -> bool {
    ABSENT.contains(&name)
        || FIXED.contains(&name)
        || all.filters.iter().any(|p| p.name() == name)
        || all.scores.iter().any(|(p, _)| p.name() == name)
        || all.post_filters.iter().any(|p| p.name() == name)
}

fn at(point: &str, points: &[&str]) -> bool {
    point == "multiPoint" || points.contains(&point)
}

fn disable(profile: &mut Profile, point: &str, name: &str) {
    let keep = |have: &str| name != "*" && have != name;
    if at(point, &["preFilter", "filter"]) {
        profile.filters.retain(|p| keep(p.name()));
    }
    if at(point, &["preScore", "score"]) {
        profile.scores.retain(|(p, _)| keep(p.name()));
    }
    if at(point, &["postFilter"]) {
        profile.post_filters.retain(|p| keep(p.name()));
    }
    if at(point, &["preEnqueue"]) {
        profile.pre_enqueue.retain(|p| keep(p.name()));
    }
}

fn enable(profile: &mut Profile, all: &Profile, point: &str, name: &str, weight: Option<i64>) {
    if at(point, &["preFilter", "filter"]) && !profile.filters.iter().any(|p| p.name() == name) {
        profile.filters.extend(all.filters.iter().filter(|p| p.name() == name).cloned());
    }
    if at(point, &["postFilter"]) && !profile.post_filters.iter().any(|p| p.name() == name) {
        profile.post_filters.extend(all.post_filters.iter().filter(|p| p.name() == name).cloned());
    }
    if at(point, &["preEnqueue"]) && !profile.pre_enqueue.iter().any(|p| p.name() == name) {
        profile.pre_enqueue.extend(all.pre_enqueue.iter().filter(|p| p.name() == name).cloned());
    }
    if at(point, &["preScore", "score"]) {
        if let Some((_, have)) = profile.scores.iter_mut().find(|(p, _)| p.name() == name) {
            *have = weight.filter(|w| *w > 0).unwrap_or(*have);
        } else if let Some((plugin, default)) = all.scores.iter().find(|(p, _)| p.name() == name) {
            profile.scores.push((Arc::clone(plugin), weight.filter(|w| *w > 0).unwrap_or(*default)));
        }
    }
}

fn plugin_args(map: &Map<String, Value>, path: &str, problems: &mut Vec<String>) -> PluginArgs {
    let mut args = PluginArgs::default();
    for (i, item) in list(map.get("pluginConfig"), &format!("{path}.pluginConfig"), problems).iter().enumerate() {
        let path = format!("{path}.pluginConfig[{i}]");
        let body = item.get("args").unwrap_or(&Value::Null);
        match item.get("name").and_then(Value::as_str) {
            Some("NodeResourcesFit") => args.fit = fit_args(body, &path, problems),
            Some("NodeResourcesBalancedAllocation") => {
                if let Some(resources) = weights(body.get("resources"), &path, problems) {
                    args.balanced = NodeResourcesBalancedAllocation { resources };
                }
            }
            // Arguments of the others have no effect on what is built.
            Some(_) => {}
            None => problems.push(format!("{path}: needs a name")),
        }
    }
    args
}

fn fit_args(body: &Value, path: &str, problems: &mut Vec<String>) -> NodeResourcesFit {
    let mut fit = NodeResourcesFit::default();
    let Some(strategy) = body.get("scoringStrategy") else { return fit };
    let path = format!("{path}.args.scoringStrategy");
    if let Some(resources) = weights(strategy.get("resources"), &path, problems) {
        fit.resources = resources;
    }
    fit.strategy = match strategy.get("type").and_then(Value::as_str) {
        None | Some("LeastAllocated") => Strategy::LeastAllocated,
        Some("MostAllocated") => Strategy::MostAllocated,
        Some("RequestedToCapacityRatio") => {
            let shape = strategy.get("requestedToCapacityRatio").and_then(|r| r.get("shape"));
            Strategy::RequestedToCapacityRatio(curve(shape, &path, problems))
        }
        Some(other) => {
            problems.push(format!("{path}.type: unknown strategy {other:?}"));
            Strategy::LeastAllocated
        }
    };
    fit
}

fn curve(value: Option<&Value>, path: &str, problems: &mut Vec<String>) -> Vec<(i64, i64)> {
    let number = |v: &Value, key: &str| v.get(key).and_then(Value::as_i64).unwrap_or(0);
    let points: Vec<(i64, i64)> = list(value, &format!("{path}.shape"), problems)
        .iter()
        .map(|p| (number(p, "utilization"), number(p, "score")))
        .collect();
    let in_range = points.iter().all(|(u, s)| (0..=100).contains(u) && (0..=10).contains(s));
    if points.is_empty() || !in_range || !points.is_sorted_by(|a, b| a.0 < b.0) {
        problems.push(format!("{path}.shape: needs points of rising utilization (0 to 100) and score (0 to 10)"));
    }
    points
}

fn weights(value: Option<&Value>, path: &str, problems: &mut Vec<String>) -> Option<Vec<(String, i64)>> {
    value?;
    let mut out = Vec::new();
    for item in list(value, &format!("{path}.resources"), problems) {
        let weight = item.get("weight").and_then(Value::as_i64).unwrap_or(1);
        match item.get("name").and_then(Value::as_str) {
            Some(name) if (1..=100).contains(&weight) => out.push((name.to_owned(), weight)),
            _ => problems.push(format!("{path}.resources: needs a name and a weight of 1 to 100")),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";

    fn names(profile: &Profile) -> (Vec<&str>, Vec<(&str, i64)>) {
        (
            profile.filters.iter().map(|p| p.name()).collect(),
            profile.scores.iter().map(|(p, w)| (p.name(), *w)).collect(),
        )
    }

    #[test]
    fn the_default_profile_has_upstreams_plugins_and_weights() {
        let profiles = parse_config(HEAD).unwrap().profiles();
        let (filters, scores) = names(&profiles[0]);
        assert_eq!(
            filters,
            ["NodeUnschedulable", "NodeName", "TaintToleration", "NodeAffinity", "NodePorts", "NodeResourcesFit"]
        );
        assert_eq!(
            scores,
            [
                ("TaintToleration", 3),
                ("NodeAffinity", 2),
                ("NodeResourcesFit", 1),
                ("NodeResourcesBalancedAllocation", 1),
                ("ImageLocality", 1)
            ]
        );
    }

    #[test]
    fn profiles_change_plugins_weights_and_strategy() {
        let text = format!(
            "{HEAD}percentageOfNodesToScore: 70\nprofiles:\n- schedulerName: packer\n  plugins:\n    multiPoint:\n      \
             disabled: [{{name: ImageLocality}}, {{name: PodTopologySpread}}]\n    score:\n      enabled: [{{name: \
             NodeResourcesFit, weight: 5}}]\n    filter:\n      disabled: [{{name: NodePorts}}]\n  pluginConfig:\n  - \
             name: NodeResourcesFit\n    args:\n      scoringStrategy:\n        type: MostAllocated\n        resources: \
             [{{name: cpu, weight: 3}}]\n- schedulerName: default-scheduler\n  percentageOfNodesToScore: 10\n"
        );
        let profiles = parse_config(&text).unwrap().profiles();
        let (filters, scores) = names(&profiles[0]);
        assert!(!filters.contains(&"NodePorts") && scores.contains(&("NodeResourcesFit", 5)));
        assert!(!scores.iter().any(|(n, _)| *n == "ImageLocality"));
        assert_eq!((profiles[0].percentage_of_nodes_to_score, profiles[1].percentage_of_nodes_to_score), (70, 10));
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let text = "apiVersion: v1\nfoo: 1\npercentageOfNodesToScore: 101\nprofiles:\n- bar: 1\n  plugins:\n    baz: {}\n    \
                    filter:\n      enabled: [{name: Nope}, {}, {name: VolumeBinding}]\n  pluginConfig:\n  - name: \
                    NodeResourcesFit\n    args: {scoringStrategy: {type: Wrong}}\n- schedulerName: default-scheduler\n- 7\n";
        let problems = parse_config(text).unwrap_err();
        for want in [
            "apiVersion: must be",
            "kind: must be",
            "unknown field foo",
            "percentageOfNodesToScore: must be 0 to 100",
            "unknown field profiles[0].bar",
            "unknown field profiles[0].plugins.baz",
            "unknown plugin \"Nope\"",
            "needs a name",
            "\"VolumeBinding\" is not available",
            "unknown strategy \"Wrong\"",
            "duplicate \"default-scheduler\"",
            "profiles[2]: must be a mapping",
        ] {
            assert!(problems.iter().any(|p| p.contains(want)), "{want} in {problems:?}");
        }
        for garbage in ["", "[]", "{", "7", "\u{0}"] {
            assert!(parse_config(garbage).is_err(), "{garbage:?}");
        }
    }
}
