//! Checks the invariants that ARCHITECTURE.md writes down as absences, and
//! prints the files and functions that want splitting.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/manifests.rs"]
mod manifests;

/// Longest file, in lines before its tests, that needs no reason.
const LONG_FILE: usize = 500;
/// Longest function, in lines, that is not listed.
const LONG_FUNCTION: usize = 60;
/// A file past [`LONG_FILE`] says why in a line that starts so.
const REASON: &str = "// One room because";

/// Modules that decide and convert: a file or a folder each.
const PURE: &[&str] = &[
    "agent/src/bootstrap/plan.rs",
    "agent/src/bootstrap/token.rs",
    "agent/src/cgroup/layout.rs",
    "agent/src/cgroup/limits.rs",
    "agent/src/convert",
    "agent/src/image/access.rs",
    "agent/src/percent.rs",
    "agent/src/plan",
    "agent/src/probe/threshold.rs",
    "agent/src/retention/plan",
    "agent/src/status/generate.rs",
    "agent/src/volume/payload.rs",
    "agent/src/volume/spec.rs",
    "controlplane-lite/apiserver/src/admission/pod_security/checks.rs",
    "controlplane-lite/apiserver/src/admission/pod_security/policy.rs",
    "controlplane-lite/apiserver/src/admission/webhooks/matching.rs",
    "controlplane-lite/apiserver/src/admission/webhooks/review.rs",
    "controlplane-lite/apiserver/src/definitions/kinds.rs",
    "controlplane-lite/apiserver/src/definitions/review.rs",
    "controlplane-lite/apiserver/src/definitions/rules.rs",
    "controlplane-lite/apiserver/src/definitions/status.rs",
    "controlplane-lite/apiserver/src/aggregation/check.rs",
    "controlplane-lite/apiserver/src/priority/rule.rs",
    "controlplane-lite/auth/src/pod.rs",
    "controlplane-lite/controllers/src/bootstrap/plan.rs",
    "controlplane-lite/controllers/src/clusterroles/plan.rs",
    "controlplane-lite/controllers/src/csr/plan.rs",
    "controlplane-lite/controllers/src/csr/recognize.rs",
    "controlplane-lite/controllers/src/disruption/plan.rs",
    "controlplane-lite/controllers/src/mirroring/plan.rs",
    "controlplane-lite/controllers/src/protection/plan.rs",
    "controlplane-lite/controllers/src/resourcequota/plan.rs",
    "controlplane-lite/client/src/tolerations.rs",
    "controlplane-lite/cel/src",
    "controlplane-lite/pki/src/name.rs",
    "controlplane-lite/managedfields/src",
    "controlplane-lite/quota/src",
    "controlplane-lite/scheme/src",
    "controlplane-lite/scheduler/src/cycle.rs",
    "controlplane-lite/structural/src",
    "gojson/src",
    "netproxy/src/cni/hostports/mapping.rs",
    "netproxy/src/cni/hostports/table.rs",
    "netproxy/src/api.rs",
    "netproxy/src/config.rs",
    "netproxy/src/dns/message.rs",
    "netproxy/src/dns/read.rs",
    "netproxy/src/dns/zone.rs",
    "netproxy/src/firewall/plan.rs",
    "netproxy/src/links/model.rs",
    "netproxy/src/links/owner.rs",
    "netproxy/src/network/addresses.rs",
    "netproxy/src/network/cluster.rs",
    "netproxy/src/nft",
    "netproxy/src/routes/peers.rs",
    "netproxy/src/routes/plan.rs",
    "netproxy/src/ruleset",
    "netproxy/src/sync/pod_cidr.rs",
    "netproxy/src/topology.rs",
    "quantity/src",
    "src/cluster/plan.rs",
    "src/resident/rest.rs",
    "src/sys/memory/mappings.rs",
    "src/token.rs",
];

/// What pure code must not contain.
const IMPURE: &[&str] =
    &["async fn", ".await", "std::fs", "tokio::", "Instant::now", "SystemTime::now", "Timestamp::now", "tracing::"];

struct Source {
    path: PathBuf,
    /// Path below the repository's root, with '/'.
    name: String,
    text: String,
}

impl Source {
    /// The lines before the tests at the file's end.
    fn code(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod tests {").next().unwrap()
    }

    fn is_test(&self) -> bool {
        self.name.contains("tests/") || self.name.ends_with("/tests.rs") || self.name.contains("/benches/")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for part in ["src", "tests", "harness", "quantity", "gojson", "cri", "netproxy", "agent", "controlplane-lite"] {
        collect(&root().join(part), &mut found);
    }
    assert!(found.len() > 20, "the walk found only {} files", found.len());
    found
}

fn collect(directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push(Source { text: fs::read_to_string(&path).unwrap(), path, name });
        }
    }
}

/// Fails with every offence at once.
fn report(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

/// Lines that are code, with their numbers.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(n, line)| (n + 1, line))
}

#[test]
fn every_file_says_what_it_owns() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//!"));
    report(silent.map(|source| format!("{} does not open with //!", source.name)).collect());
}

#[test]
fn submodules_have_names() {
    let nameless = sources().into_iter().filter(|source| source.path.ends_with("mod.rs"));
    report(nameless.map(|source| format!("{}: name it after its module", source.name)).collect());
}

#[test]
fn pure_modules_only_decide() {
    let mut offences = Vec::new();
    for source in sources() {
        let pure = PURE.iter().any(|pure| {
            source.name == *pure
                || source.name.starts_with(&format!("{}/", pure.trim_end_matches(".rs")))
                || source.name == format!("{pure}.rs")
        });
        if !pure || source.is_test() {
            continue;
        }
        for (number, line) in code_lines(source.code()) {
            if let Some(word) = IMPURE.iter().find(|word| line.contains(*word)) {
                offences.push(format!("{}:{number}: {word} in a pure module", source.name));
            }
        }
    }
    report(offences);
}

/// What tells time, or waits for it to pass.
const CLOCKS: &[&str] = &["Instant::now", ".elapsed()", "sleep(", "SystemTime::now", "timeout(", "yield_now()"];
/// The harness's one limit, and parts of it.
const LIMITS: &[&str] = &["time::limit()", "time::attempt()", "time::kubectl_timeout()"];
/// Tests that are about time itself, and what waits in them when time is paused: all that passes then is a number.
const ABOUT_TIME: &[(&str, &str)] = &[
    ("agent/src/podworker/tests", "paused"),
    ("controlplane-lite/storage/src/watch_cache/history.rs", "a moment to count from"),
    ("controlplane-lite/storage/src/watch_cache/tests/behind.rs", "a moment to count from"),
    ("src/address.rs", "paused"),
    ("agent/src/server/tests/front.rs", "a certificate is made that ends"),
    ("agent/src/status/manager/tests.rs", "paused"),
    ("agent/src/volume/tests.rs", "paused"),
    ("agent/src/volume/tests/lifetime.rs", "paused"),
    ("controlplane-lite/apiserver/src/service.rs", "what a request says of its own time"),
    ("controlplane-lite/apiserver/src/services.rs", "a moment to count from"),
    ("controlplane-lite/apiserver/src/snapshots.rs", "others have their turn while a request is waited for"),
    ("controlplane-lite/apiserver/src/warnings.rs", "what is collected goes with its task"),
    ("controlplane-lite/client/src/reflect/tests.rs", "paused"),
    ("controlplane-lite/client/src/workqueue.rs", "others have their turn inside a worker"),
    ("controlplane-lite/tests/controllers/restarts.rs", "controllers die at arbitrary moments"),
    ("cri/src/client/tests.rs", "a deadline does not come early"),
    ("cri/tests/contract/suite.rs", "a grace period is not cut short"),
    ("netproxy/src/sync/tests.rs", "paused"),
    ("netproxy/tests/netproxy_kernel/main.rs", "affinity ends with its time-out, which the kernel counts"),
    ("netproxy/tests/netproxy_kernel/net.rs", "where packets are dropped, nothing comes"),
];

/// Looks at a clock in a file's tests, those in paused time apart.
fn clocks(source: &Source) -> Vec<String> {
    let first = if source.is_test() { 0 } else { source.code().lines().count() };
    let told = |(number, line): (usize, &str)| {
        if number <= first {
            return None;
        }
        let word = CLOCKS.iter().find(|word| line.contains(*word))?;
        let allowed = LIMITS.iter().any(|limit| line.contains(limit)) || in_paused_time(&source.text, number);
        (!allowed).then(|| format!("{}:{number}: {word}", source.name))
    };
    code_lines(&source.text).filter_map(told).collect()
}

/// Whatever is tested is judged by what it did, not by how long it took: waits, and their one limit, are the
/// harness's.
#[test]
fn tests_look_at_no_clock() {
    let parts = [
        "agent/",
        "cri/",
        "netproxy/",
        "controlplane-lite/",
        "quantity/",
        "gojson/",
        "src/",
        "tests/e2e/",
        "tests/single_node/",
    ];
    let checked = |source: &Source| {
        let excused = ABOUT_TIME.iter().any(|(name, _)| source.name.starts_with(name));
        let bench = source.name.contains("/benches/");
        !bench && !excused && parts.iter().any(|part| source.name.starts_with(part))
    };
    report(sources().iter().filter(|source| checked(source)).flat_map(clocks).collect());
}

#[test]
fn whoever_is_excused_from_clocks_looks_at_one() {
    let all = sources();
    let looks = |name: &str| all.iter().any(|source| source.name.starts_with(name) && !clocks(source).is_empty());
    let idle = ABOUT_TIME.iter().filter(|(name, _)| !looks(name));
    report(idle.map(|(name, _)| format!("{name}: strike it off the list")).collect());
}

/// What moves a clock on, and panics where the clock does not count so far.
const MOVED_ON: &[&str] = &["now() + ", "now + "];
/// Where the time to add has another name than a constant's, and why it is short.
const SHORT: &[(&str, &str)] = &[
    ("agent/", "times of a configuration"),
    ("controlplane-lite/apiserver/src/aggregation/keep.rs", "a pause with a longest one"),
    ("controlplane-lite/apiserver/src/deadline.rs", "a constant of the caller, or clamped there"),
    ("controlplane-lite/apiserver/src/outbound.rs", "seconds that validation has between 1 and 30"),
    ("controlplane-lite/apiserver/src/verbs/watch.rs", "clamped a line before"),
    ("controlplane-lite/storage/src/redb/writer.rs", "a default of ours"),
    ("cri/src/containerd/process.rs", "a default of ours"),
    ("netproxy/src/cni/modprobe.rs", "a constant of the caller"),
    ("netproxy/src/network.rs", "a pause with a longest one"),
    ("netproxy/src/sync.rs", "Go's durations at most, and pauses with a longest one"),
    ("netproxy/src/tracer.rs", "a number"),
    ("src/cluster/init.rs", "a pause with a longest one"),
    ("src/sys/process.rs", "a constant of the caller"),
];

/// Times that come from elsewhere, added to a clock: neither a constant nor cut down to one.
fn overflows(source: &Source) -> Vec<String> {
    let constant = |word: &str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let first_word =
        |text: &str| text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next().map(str::to_owned);
    let added = |line: &str| {
        let word = MOVED_ON.iter().find_map(|moved| line.split_once(moved))?.1;
        let name = first_word(word)?;
        let argument = word[name.len()..].strip_prefix('(').unwrap_or_default();
        let number = argument.starts_with(|c: char| c.is_ascii_digit());
        let bounded = number || constant(name.rsplit("::").next()?) || word.contains(".min(");
        (!bounded).then_some(name)
    };
    let told = |(number, line): (usize, &str)| Some(format!("{}:{number}: + {}", source.name, added(line)?));
    code_lines(source.code()).filter_map(told).collect()
}

/// What clients and operators write is added with `checked_add`, or cut down to a constant before.
#[test]
fn clocks_are_moved_on_by_short_times() {
    let checked = |source: &Source| {
        let excused = SHORT.iter().any(|(name, _)| source.name.starts_with(name));
        !excused && !source.is_test() && !["tests/", "harness/"].iter().any(|part| source.name.starts_with(part))
    };
    let all = sources();
    report(all.iter().filter(|source| checked(source)).flat_map(overflows).collect());
    let excused_in_vain = SHORT
        .iter()
        .filter(|(name, _)| !all.iter().any(|source| source.name.starts_with(name) && !overflows(source).is_empty()));
    report(excused_in_vain.map(|(name, _)| format!("{name}: strike it off the list")).collect());
}

/// Whether a line is in a test whose time is paused; relies on rustfmt's closing brace at the test's indentation.
fn in_paused_time(text: &str, number: usize) -> bool {
    let before: Vec<&str> = text.lines().take(number).collect();
    let attribute = before.iter().rposition(|line| line.trim_start().starts_with("#[tokio::test"));
    let Some(at) = attribute.filter(|at| before[*at].contains("start_paused")) else { return false };
    let indent = before[at].len() - before[at].trim_start().len();
    let closing = format!("{}}}", " ".repeat(indent));
    !before[at..].contains(&closing.as_str())
}

#[test]
fn paused_time_ends_with_its_test() {
    let text = "#[tokio::test(start_paused = true)]\nasync fn a() {\n    b {\n    }\n    c\n}\nfn d() {\n    e\n}\n\
                #[tokio::test]\nasync fn f() {\n    g\n}\n";
    let paused: Vec<usize> = (1..=text.lines().count()).filter(|number| in_paused_time(text, *number)).collect();
    assert_eq!(paused, [1, 2, 3, 4, 5]);
}

/// What asks for the name of a kind where its strategy should be asked.
const NAME_ASKED: &[&str] = &[
    "plural == \"",
    "plural != \"",
    ".plural) ==",
    "match (kind.group",
    ".plural {",
    "matches!(kind.plural",
    "matches!((kind.",
];
/// What is by name upstream, too: admission plugins, and RBAC's escalation check.
const BY_NAME: &[&str] = &["controlplane-lite/apiserver/src/admission", "controlplane-lite/apiserver/src/access.rs"];

/// What a pod wrote is as long as it likes: there is one way to read a file whole.
#[test]
fn the_agent_reads_files_by_one_way() {
    let whole = ["fs::read(", "fs::read_to_string("];
    let agent = |source: &Source| {
        let own = source.name == "agent/src/read.rs" || source.name == "agent/src/testutil.rs";
        source.name.starts_with("agent/src/") && !source.is_test() && !own
    };
    let all = sources();
    let lines = all.iter().filter(|source| agent(source)).flat_map(|source| {
        let found = code_lines(source.code()).filter(|(_, line)| whole.iter().any(|word| line.contains(word)));
        found.map(|(number, _)| format!("{}:{number}: read it by crate::read", source.name))
    });
    report(lines.collect());
}

#[test]
fn kinds_differ_by_their_strategies() {
    let mut offences = Vec::new();
    let parts = ["controlplane-lite/apiserver/src/", "controlplane-lite/scheme/src/"];
    for source in sources() {
        let checked = parts.iter().any(|part| source.name.starts_with(part));
        if !checked || source.is_test() || BY_NAME.iter().any(|name| source.name.starts_with(name)) {
            continue;
        }
        for (number, line) in code_lines(source.code()) {
            if let Some(word) = NAME_ASKED.iter().find(|word| line.contains(*word)) {
                offences.push(format!("{}:{number}: {word:?}: make it a rule of the kind's strategy", source.name));
            }
        }
    }
    report(offences);
}

/// What a tenant stores is decoded one object at a time, and dropped: all of it at once may be gigabytes, whoever asks.
#[test]
fn stored_objects_are_not_decoded_into_lists() {
    let parts = ["controlplane-lite/apiserver/src/", "controlplane-lite/auth/src/"];
    let mut offences = Vec::new();
    for source in sources() {
        if source.is_test() || !parts.iter().any(|part| source.name.starts_with(part)) {
            continue;
        }
        for (number, line) in code_lines(source.code()) {
            if line.contains(".push(") && line.contains(".value())") {
                offences.push(format!("{}:{number}: keep what is needed of it, or the object undecoded", source.name));
            }
        }
    }
    report(offences);
}

#[test]
fn unsafe_stays_in_sys() {
    let mut offences = Vec::new();
    for source in sources() {
        let in_sys = source.name.ends_with("/sys.rs") || source.name.contains("/sys/");
        // The embedded programs are freestanding: they have no library to hide behind.
        let embedded = source.name.starts_with("cri/programs/");
        for (number, line) in code_lines(&source.text) {
            if line.contains("unsafe {") && !in_sys && !embedded && !source.name.starts_with("tests/tidy") {
                offences.push(format!("{}:{number}: unsafe outside a sys module", source.name));
            }
        }
    }
    report(offences);
}

#[test]
fn crates_do_not_know_what_they_must_not() {
    let rules: &[(&str, &[&str])] = &[
        ("quantity/", &["k8s_openapi", "kube::"]),
        ("gojson/", &["kube::"]),
        ("cri/", &["k8s_openapi", "kube::"]),
        ("netproxy/", &["containerd_client", "k8s_cri", "cri::", "controlplane_lite"]),
        ("agent/", &["containerd_client", "k8s_cri", "controlplane_lite"]),
        ("controlplane-lite/", &["containerd_client", "k8s_cri", "agent::", "netproxy::"]),
        ("src/", &["containerd_client", "k8s_cri"]),
    ];
    let mut offences = Vec::new();
    for source in sources() {
        for (_, banned) in rules.iter().filter(|(part, _)| source.name.starts_with(part)) {
            if source.is_test() {
                continue;
            }
            for (number, line) in code_lines(source.code()) {
                if let Some(word) = banned.iter().find(|word| mentions(line, word)) {
                    offences.push(format!("{}:{number}: {word}", source.name));
                }
            }
        }
    }
    report(offences);
}

/// Whether `line` uses the path `word`, not merely a longer name that ends so.
fn mentions(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at]
            .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':' || before == '"')
    })
}

#[test]
fn long_files_have_a_reason() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines = source.code().lines().count();
        if lines > LONG_FILE && !source.text.lines().any(|line| line.starts_with(REASON)) {
            offences.push(format!("{}: {lines} lines; split it, or say \"{REASON} …\"", source.name));
        }
        for (start, length) in long_functions(source.code()) {
            println!("{}:{start}: a function of {length} lines", source.name);
        }
    }
    report(offences);
}

/// Starts and lengths of functions past [`LONG_FUNCTION`]; relies on rustfmt's
/// closing brace at the indentation of its `fn`.
fn long_functions(code: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let head = line.trim_start();
        let is_fn = head.starts_with("fn ")
            || head.starts_with("pub") && head.contains(" fn ")
            || head.starts_with("async fn ");
        if !is_fn {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        let Some(length) = lines[start..].iter().position(|line| *line == closing) else { continue };
        if length + 1 > LONG_FUNCTION {
            long.push((start + 1, length + 1));
        }
    }
    long
}
