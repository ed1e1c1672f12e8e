//! The checks: what a node must have been like on a machine with cgroup v2.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::image::Init;
use crate::report::Report;

/// What a check has to go by.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub report: &'a Report,
    pub init: Init,
}

/// A pod of the scenario as far as cgroups go.
struct Pod {
    uid: String,
    /// Id of its only container, without the runtime's name.
    container: String,
    class: String,
}

impl Seen<'_> {
    fn pod(&self, name: &str) -> Result<Pod> {
        let pods = self.report.json("pods")?;
        let items = pods["items"].as_array().context("no items")?;
        let pod = items.iter().find(|pod| pod["metadata"]["name"] == name).with_context(|| format!("no pod {name}"))?;
        let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("{name}: {pod}"));
        let id = text(&pod["status"]["containerStatuses"][0]["containerID"])?;
        Ok(Pod {
            uid: text(&pod["metadata"]["uid"])?,
            container: id.rsplit('/').next().unwrap_or_default().to_owned(),
            class: text(&pod["status"]["qosClass"])?,
        })
    }

    /// The directory of a pod below the hierarchy's top, as each driver names it.
    fn directory(&self, pod: &Pod) -> String {
        let class = Some(pod.class.to_lowercase()).filter(|class| class != "guaranteed");
        let uid = &pod.uid;
        match (self.init, class) {
            (Init::Script, None) => format!("kubepods/pod{uid}"),
            (Init::Script, Some(class)) => format!("kubepods/{class}/pod{uid}"),
            (Init::Systemd, None) => format!("kubepods.slice/kubepods-pod{}.slice", uid.replace('-', "_")),
            (Init::Systemd, Some(class)) => {
                format!("kubepods.slice/kubepods-{class}.slice/kubepods-{class}-pod{}.slice", uid.replace('-', "_"))
            }
        }
    }

    /// The directory of a pod's container.
    fn container_directory(&self, pod: &Pod) -> String {
        let (directory, id) = (self.directory(pod), &pod.container);
        match self.init {
            Init::Script => format!("{directory}/{id}"),
            Init::Systemd => format!("{directory}/cri-containerd-{id}.scope"),
        }
    }

    /// Files of the pods' cgroups by path below the hierarchy's top.
    fn limits(&self) -> Result<BTreeMap<&str, &str>> {
        let lines = self.report.lines("limits")?.into_iter();
        let pairs = lines.filter_map(|line| line.strip_prefix("/sys/fs/cgroup/")?.split_once(':'));
        Ok(pairs.collect())
    }
}

pub fn the_machine_has_cgroup_v2_alone(seen: &Seen<'_>) -> Result<()> {
    let mounts = seen.report.lines("cgroup-mounts")?;
    ensure!(mounts.len() == 1 && mounts[0].contains(" /sys/fs/cgroup cgroup2 "), "{mounts:?}");
    let controllers = seen.report.output("controllers")?;
    for controller in ["cpu", "memory", "pids"] {
        ensure!(controllers.split(' ').any(|name| name == controller), "{controller} is not among {controllers}");
    }
    Ok(())
}

pub fn the_node_becomes_ready(seen: &Seen<'_>) -> Result<()> {
    // Nothing is amiss on this machine, and the doctor says so.
    seen.report.output("doctor")?;
    let said = seen.report.output("up")?;
    ensure!(said.contains("the node is ready"), "{said}");
    for section in ["apply", "ready", "rollout"] {
        seen.report.output(section)?;
    }
    Ok(())
}

pub fn classes_have_their_places(seen: &Seen<'_>) -> Result<()> {
    let limits = seen.limits()?;
    for (name, class) in [("guaranteed", "Guaranteed"), ("burstable", "Burstable"), ("besteffort", "BestEffort")] {
        let pod = seen.pod(name)?;
        ensure!(pod.class == class, "{name} is {}", pod.class);
        for directory in [seen.directory(&pod), seen.container_directory(&pod)] {
            let file = format!("{directory}/cpu.weight");
            ensure!(limits.contains_key(file.as_str()), "{file} is not among {:#?}", limits.keys());
        }
    }
    Ok(())
}

pub fn all_pods_are_held_to_what_is_not_reserved(seen: &Seen<'_>) -> Result<()> {
    let limits = seen.limits()?;
    let kubepods = match seen.init {
        Init::Script => "kubepods",
        Init::Systemd => "kubepods.slice",
    };
    let stats = seen.report.json("stats")?;
    let figure = |name: &str| stats["node"]["memory"][name].as_u64().with_context(|| format!("no {name}: {stats}"));
    let memory = figure("availableBytes")? + figure("usageBytes")? - (16 << 20);
    let found = limits.get(format!("{kubepods}/memory.max").as_str()).copied();
    ensure!(found == Some(memory.to_string().as_str()), "memory.max is {found:?}, not {memory}");
    let found = limits.get(format!("{kubepods}/pids.max").as_str()).copied();
    let pids: u64 = found.unwrap_or_default().parse().with_context(|| format!("pids.max is {found:?}"))?;
    ensure!(pids > 0, "no process ids for pods");
    Ok(())
}

pub fn limits_reach_the_kernel(seen: &Seen<'_>) -> Result<()> {
    let limits = seen.limits()?;
    // cpu.weight is upstream's 1 + (shares - 2) * 9999 / 262142; a limit of all
    // containers is the pod's; group kills and swap are the containers' business.
    let expected: [(&str, [(&str, &str); 4]); 3] = [
        (
            "guaranteed",
            [("cpu.max", "50000 100000"), ("cpu.weight", "20"), ("memory.max", "67108864"), ("pids.max", "100")],
        ),
        (
            "burstable",
            [("cpu.max", "25000 100000"), ("cpu.weight", "4"), ("memory.max", "50331648"), ("pids.max", "100")],
        ),
        ("besteffort", [("cpu.max", "max 100000"), ("cpu.weight", "1"), ("memory.max", "max"), ("pids.max", "100")]),
    ];
    let mut wrong = Vec::new();
    let mut check = |file: String, value: &str| {
        let found = limits.get(file.as_str()).copied();
        if found != Some(value) {
            wrong.push(format!("{file} is {found:?}, not {value:?}"));
        }
    };
    for (name, files) in expected {
        let pod = seen.pod(name)?;
        for (file, value) in files {
            check(format!("{}/{file}", seen.directory(&pod)), value);
            if file != "pids.max" {
                check(format!("{}/{file}", seen.container_directory(&pod)), value);
            }
        }
        check(format!("{}/memory.oom.group", seen.container_directory(&pod)), "1");
        check(format!("{}/memory.swap.max", seen.container_directory(&pod)), "0");
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

pub fn hogs_die_as_a_whole(seen: &Seen<'_>) -> Result<()> {
    // What asked for too much in `nursery` was not its first process, but all
    // of a container goes: memory.oom.group.
    let said = seen.report.output("nursery")?;
    ensure!(said.contains("exit code 137"), "{said}");
    seen.report.output("killed")?;
    let pods = seen.report.json("hogs")?;
    let pods = pods["items"].as_array().context("no items")?;
    ensure!(pods.len() == 2, "{} pods", pods.len());
    for pod in pods {
        let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        // containerd 1.6 may say `Error`, since its shim hears of a lack of memory and of an end from two
        // sides; the kernel's log has the last word.
        let killed = end["reason"] == "OOMKilled" && end["exitCode"] == 137;
        ensure!(killed, "{}: {end}", pod["metadata"]["name"]);
    }
    Ok(())
}

pub fn hello_is_served_in_exact_turn(seen: &Seen<'_>) -> Result<()> {
    let lines = seen.report.lines("hello")?;
    // The last line counts them.
    let answers: Vec<_> = lines.iter().filter(|line| line.starts_with("hello-")).collect();
    let names: BTreeSet<_> = answers.iter().collect();
    ensure!(answers.len() == 6 && names.len() == 3 && answers[..3] == answers[3..], "{lines:#?}");
    Ok(())
}

pub fn exec_logs_and_stats_answer(seen: &Seen<'_>) -> Result<()> {
    ensure!(seen.report.output("exec")? == "guaranteed", "{}", seen.report.output("exec")?);
    let log = seen.report.output("logs")?;
    ensure!(log.contains("demo: guaranteed serves"), "{log}");
    let stats = seen.report.json("stats")?;
    let pods = stats["pods"].as_array().context("no pods")?;
    let pod = pods.iter().find(|pod| pod["podRef"]["name"] == "guaranteed").context("guaranteed has no figures")?;
    for figure in ["/containers/0/cpu/usageCoreNanoSeconds", "/containers/0/memory/workingSetBytes"] {
        let value = pod.pointer(figure).and_then(Value::as_u64).unwrap_or(0);
        ensure!(value > 0, "{figure} of {pod}");
    }
    Ok(())
}

pub fn a_deleted_pods_cgroup_goes(seen: &Seen<'_>) -> Result<()> {
    seen.report.output("delete")?;
    let cgroups = seen.report.output("cgroups")?;
    let (gone, kept) = (seen.pod("burstable")?, seen.pod("guaranteed")?);
    ensure!(!cgroups.contains(&seen.directory(&gone)), "{} is left", seen.directory(&gone));
    ensure!(cgroups.contains(&seen.container_directory(&kept)), "{} is gone", seen.container_directory(&kept));
    Ok(())
}

pub fn down_leaves_nothing(seen: &Seen<'_>) -> Result<()> {
    seen.report.output("down")?;
    let (before, after) = (seen.report.lines("before")?, seen.report.lines("after")?);
    let left: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    ensure!(lost.is_empty(), "taken away: {lost:#?}");
    Ok(())
}
