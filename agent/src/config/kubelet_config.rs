//! An upstream `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`) file:
//! read strictly, laid over an [`AgentConfig`], all problems at once.
//!
//! Every field upstream has is known. Fields that mean nothing here are taken
//! and named in [`Applied::ignored`], so that a file made for upstream works
//! and its reader is told what does not count.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;
use serde_json::Value;

use super::{AgentConfig, Authorization, CgroupDriver, TlsMinVersion, eviction};
use crate::convert::quantity::nanos;
use crate::image::access::{Verification, check_listed};

/// What is wrong with a configuration file; every problem, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid KubeletConfiguration:\n  {}", problems.join("\n  "))]
pub struct ConfigError {
    pub problems: Vec<String>,
}

/// What a file did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Fields that are set and have no effect here.
    pub ignored: Vec<String>,
    /// Those of them that ask for a protection, which there is none of here.
    pub unprotected: Vec<String>,
}

/// Fields of upstream's type that have no effect here.
const IGNORED: &[&str] = &[
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "containerRuntimeEndpoint",
    "contentType",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebugFlagsHandler",
    "enableDebuggingHandlers",
    "enableProfilingHandler",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "evictionMinimumReclaim",
    "featureGates",
    "hairpinMode",
    "healthzBindAddress",
    "healthzPort",
    "imageMaximumGCAge",
    "imageServiceEndpoint",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "memoryManagerPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "nodeStatusMaxImages",
    "oomScoreAdj",
    "podCIDR",
    "podsPerCore",
    "protectKernelDefaults",
    "qosReserved",
    "readOnlyPort",
    "registryBurst",
    "registryPullQPS",
    "reservedMemory",
    "reservedSystemCPUs",
    "rotateCertificates",
    "runOnce",
    "showHiddenMetricsForVersion",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "streamingConnectionIdleTimeout",
    "systemCgroups",
    "systemReservedCgroup",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
    "runtimeRequestTimeout",
];

/// Whether a value of a field asks for the protection.
type Asks = fn(&Value) -> bool;

/// Fields of [`IGNORED`] that protect something.
const PROTECTIONS: &[(&str, Asks)] = &[
    ("podsPerCore", |v| v.as_i64() != Some(0)),
    ("protectKernelDefaults", |v| v.as_bool() != Some(false)),
    ("qosReserved", |v| v.as_object().is_none_or(|map| !map.is_empty())),
    ("streamingConnectionIdleTimeout", |v| v.as_str() != Some("0")),
];

/// Fields that close a door which cannot be closed here: to go on would leave it
/// open unnoticed.
const DOORS: &[(&str, bool)] = &[("enableDebuggingHandlers", false), ("enableSystemLogHandler", false)];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Anonymous {
    enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Webhook {
    enabled: Option<bool>,
    #[serde(rename = "cacheTTL")]
    cache_ttl: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct X509 {
    #[serde(rename = "clientCAFile")]
    client_ca_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Authentication {
    anonymous: Anonymous,
    webhook: Webhook,
    x509: X509,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct AuthorizationSection {
    mode: Option<String>,
    webhook: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct CrashLoop {
    max_container_restart_period: Option<String>,
}

/// One field: its name, and how it is laid over the configuration.
type Setter = fn(&mut AgentConfig, Value) -> Result<(), String>;

pub(super) fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|e| e.to_string())
}

/// A duration as Go writes it: `1h2m3.5s`, `100ms`. None below zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = gojson::duration::parse(text).ok().and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(|| format!("{text:?} is not a duration"))
}

fn time(value: Value) -> Result<Duration, String> {
    duration(&parse::<String>(value)?)
}

fn positive_time(value: Value) -> Result<Duration, String> {
    time(value).and_then(|d| if d.is_zero() { Err("must be longer than 0".to_owned()) } else { Ok(d) })
}

fn percent(value: Value) -> Result<u8, String> {
    parse::<u8>(value).and_then(|p| if p <= 100 { Ok(p) } else { Err(format!("{p} is more than 100")) })
}

fn reserve(config: &mut AgentConfig, value: Value) -> Result<(), String> {
    for (name, amount) in parse::<BTreeMap<String, String>>(value)? {
        let add = nanos(&amount).filter(|n| *n >= 0).ok_or_else(|| format!("{name}: {amount:?} is not a quantity"))?;
        let before = config.node.reserved.get(&name).and_then(|b| nanos(b)).unwrap_or(0);
        let sum = crate::convert::quantity::from_nanos(before + add);
        config.node.reserved.insert(name, sum.0);
    }
    Ok(())
}

/// What runs beside pods has no cgroup of ours, so nothing is enforced there.
fn enforce(config: &mut AgentConfig, value: Value) -> Result<(), String> {
    const OTHERS: [&str; 4] =
        ["system-reserved", "kube-reserved", "system-reserved-compressible", "kube-reserved-compressible"];
    let keys: Vec<String> = parse(value)?;
    if let Some(unknown) =
        keys.iter().find(|k| !["none", "pods"].contains(&k.as_str()) && !OTHERS.contains(&k.as_str()))
    {
        return Err(format!("{unknown:?} cannot be enforced"));
    }
    if keys.len() > 1 && keys.iter().any(|k| k == "none") {
        return Err("\"none\" goes alone".to_owned());
    }
    config.cgroups.enforce_node_allocatable = keys.iter().any(|k| k == "pods");
    Ok(())
}

fn authentication(config: &mut AgentConfig, value: Value) -> Result<(), String> {
    let section: Authentication = parse(value)?;
    let server = &mut config.server;
    server.anonymous = section.anonymous.enabled.unwrap_or(server.anonymous);
    server.webhook_authentication = section.webhook.enabled.unwrap_or(server.webhook_authentication);
    if let Some(ttl) = section.webhook.cache_ttl {
        duration(&ttl).map_err(|e| format!("webhook.cacheTTL: {e}"))?;
    }
    server.client_ca_file = section.x509.client_ca_file.or(server.client_ca_file.take());
    Ok(())
}

fn authorization(config: &mut AgentConfig, value: Value) -> Result<(), String> {
    let section: AuthorizationSection = parse(value)?;
    let _ = section.webhook;
    config.server.authorization = match section.mode.as_deref() {
        Some("AlwaysAllow") => Authorization::AlwaysAllow,
        Some("Webhook") | None => Authorization::Webhook,
        Some(other) => return Err(format!("mode: {other:?} is neither AlwaysAllow nor Webhook")),
    };
    Ok(())
}

fn driver(config: &mut AgentConfig, value: Value) -> Result<(), String> {
    config.cgroups.driver = Some(match parse::<String>(value)?.as_str() {
        "cgroupfs" => CgroupDriver::Cgroupfs,
        "systemd" => CgroupDriver::Systemd,
        other => return Err(format!("{other:?} is neither cgroupfs nor systemd")),
    });
    Ok(())
}

fn tls_version(value: Value) -> Result<TlsMinVersion, String> {
    match parse::<String>(value)?.as_str() {
        "VersionTLS13" => Ok(TlsMinVersion::Tls13),
        "VersionTLS12" | "VersionTLS11" | "VersionTLS10" => Ok(TlsMinVersion::Tls12),
        other => Err(format!("{other:?} is no version of TLS")),
    }
}

fn url_headers(config: &mut AgentConfig, value: Value) -> Result<(), String> {
    let map: BTreeMap<String, Vec<String>> = parse(value)?;
    config.static_pods.url_headers =
        map.into_iter().flat_map(|(name, values)| values.into_iter().map(move |v| (name.clone(), v))).collect();
    Ok(())
}

fn bytes(value: Value) -> Result<u64, String> {
    let text: String = parse(value)?;
    let nanos = nanos(&text).filter(|n| *n > 0).ok_or_else(|| format!("{text:?} is not a size"))?;
    u64::try_from(nanos / 1_000_000_000).map_err(|_| format!("{text:?} is too large"))
}

macro_rules! set {
    ($config:ident . $($path:ident).+ = $parse:expr) => {
        |$config, value| {
            $config.$($path).+ = $parse(value)?;
            Ok(())
        }
    };
}

fn some<T: serde::de::DeserializeOwned>(value: Value) -> Result<Option<T>, String> {
    parse(value).map(Some)
}

/// The fields that have an effect.
const FIELDS: &[(&str, Setter)] = &[
    ("address", set!(c.server.address = parse::<IpAddr>)),
    ("allowedUnsafeSysctls", set!(c.allowed_unsafe_sysctls = parse)),
    ("authentication", authentication),
    ("authorization", authorization),
    ("cgroupDriver", driver),
    ("cgroupRoot", set!(c.cgroups.root = parse)),
    ("cgroupsPerQOS", set!(c.cgroups.per_qos = parse)),
    ("clusterDNS", set!(c.dns.servers = parse)),
    ("clusterDomain", set!(c.dns.domain = parse)),
    ("containerLogMaxFiles", set!(c.logs.max_files = parse)),
    ("containerLogMaxSize", set!(c.logs.max_size = bytes)),
    ("cpuCFSQuota", set!(c.cgroups.cfs_quota = parse)),
    ("cpuCFSQuotaPeriod", set!(c.cgroups.cfs_period = positive_time)),
    ("crashLoopBackOff", |c, value| {
        if let Some(max) = parse::<CrashLoop>(value)?.max_container_restart_period {
            c.max_crash_backoff = duration(&max)?;
        }
        Ok(())
    }),
    ("enableServer", set!(c.server.enabled = parse)),
    ("enforceNodeAllocatable", enforce),
    ("eventBurst", set!(c.events.burst = parse)),
    ("eventRecordQPS", set!(c.events.record_qps = parse)),
    ("failCgroupV1", set!(c.cgroups.fail_v1 = parse)),
    ("failSwapOn", set!(c.fail_swap_on = parse)),
    ("fileCheckFrequency", set!(c.static_pods.file_interval = positive_time)),
    ("httpCheckFrequency", set!(c.static_pods.url_interval = positive_time)),
    ("imageGCHighThresholdPercent", set!(c.images.gc_high_percent = percent)),
    ("imageGCLowThresholdPercent", set!(c.images.gc_low_percent = percent)),
    ("imageMinimumGCAge", set!(c.images.min_age = time)),
    ("imagePullCredentialsVerificationPolicy", verification),
    ("kubeReserved", reserve),
    ("maxParallelImagePulls", set!(c.images.max_parallel_pulls = some)),
    ("maxPods", set!(c.node.max_pods = parse)),
    ("nodeLeaseDurationSeconds", |c, value| {
        let seconds = parse::<u32>(value)?;
        if seconds == 0 {
            return Err("must be at least 1".to_owned());
        }
        c.node.lease_duration = Duration::from_secs(u64::from(seconds));
        Ok(())
    }),
    ("nodeStatusReportFrequency", set!(c.node.status_report = positive_time)),
    ("nodeStatusUpdateFrequency", set!(c.node.status_update = positive_time)),
    // What it is without the other is up to `image_allowlist`.
    ("preloadedImagesVerificationAllowlist", |_, value| parse::<Vec<String>>(value).map(drop)),
    ("podLogsDir", set!(c.paths.pod_logs = parse)),
    ("podPidsLimit", |c, value| {
        c.cgroups.pod_pids_limit = Some(parse::<i64>(value)?).filter(|n| *n > 0);
        Ok(())
    }),
    ("port", set!(c.server.port = parse)),
    ("providerID", set!(c.node.provider_id = some)),
    ("registerNode", set!(c.node.register = parse)),
    ("registerWithTaints", set!(c.node.taints = parse::<Vec<Taint>>)),
    ("resolvConf", set!(c.paths.resolv_conf = parse)),
    ("seccompDefault", set!(c.seccomp_default = parse)),
    // What it is without the other is up to `image_pulls`.
    ("serializeImagePulls", |_, value| parse::<bool>(value).map(|_| ())),
    ("serverTLSBootstrap", set!(c.server.tls_bootstrap = parse)),
    ("singleProcessOOMKill", set!(c.cgroups.single_process_oom_kill = some)),
    ("staticPodPath", set!(c.static_pods.directory = some)),
    ("staticPodURL", set!(c.static_pods.url = some)),
    ("staticPodURLHeader", url_headers),
    ("syncFrequency", set!(c.relist = positive_time)),
    ("systemReserved", reserve),
    ("tlsCipherSuites", set!(c.server.cipher_suites = parse)),
    ("tlsMinVersion", set!(c.server.tls_min_version = tls_version)),
    ("tlsCertFile", set!(c.server.cert_file = some)),
    ("tlsPrivateKeyFile", set!(c.server.key_file = some)),
];

/// Lays the file's settings over `config`. Nothing is changed on error.
pub fn apply_kubelet_configuration(config: &mut AgentConfig, yaml: &str) -> Result<Applied, ConfigError> {
    let fail = |problem: String| ConfigError { problems: vec![problem] };
    let value = gojson::yaml::first(yaml).map_err(|e| fail(e.to_string()))?;
    apply_kubelet_document(config, value)
}

/// The same for a document that was read already.
pub fn apply_kubelet_document(config: &mut AgentConfig, document: Value) -> Result<Applied, ConfigError> {
    let fail = |problem: String| ConfigError { problems: vec![problem] };
    let Value::Object(map) = document else { return Err(fail("the file holds no object".to_owned())) };
    let (mut next, mut applied, mut problems) = (config.clone(), Applied::default(), Vec::new());
    for (key, expect) in [("apiVersion", "kubelet.config.k8s.io/v1beta1"), ("kind", "KubeletConfiguration")] {
        if map.get(key).and_then(Value::as_str) != Some(expect) {
            problems.push(format!("{key}: must be {expect}"));
        }
    }
    let (pulls, listed) = (image_pulls(&map), image_allowlist(&map));
    for (key, value) in map.into_iter().filter(|(k, v)| k != "apiVersion" && k != "kind" && !v.is_null()) {
        if let Some((_, set)) = FIELDS.iter().chain(eviction::FIELDS).find(|(name, _)| *name == key) {
            if let Err(problem) = set(&mut next, value) {
                problems.push(format!("{key}: {problem}"));
            }
        } else if DOORS.iter().any(|(name, closed)| *name == key && value.as_bool() == Some(*closed)) {
            problems.push(format!("{key}: {value} is not built: it would have no effect"));
        } else if IGNORED.contains(&key.as_str()) {
            if PROTECTIONS.iter().any(|(name, asks)| *name == key && asks(&value)) {
                applied.unprotected.push(key.clone());
            }
            applied.ignored.push(key);
        } else {
            problems.push(format!("{key}: unknown field"));
        }
    }
    match (listed, &mut next.image_verification) {
        (Ok(listed), Verification::ExceptListed(all)) => *all = listed,
        (Ok(listed), _) if listed.is_empty() => {}
        (Ok(_), _) => problems.push(
            "preloadedImagesVerificationAllowlist: goes together with imagePullCredentialsVerificationPolicy: \
             NeverVerifyAllowlistedImages"
                .to_owned(),
        ),
        (Err(problem), _) => problems.push(problem),
    }
    match pulls {
        Ok(Some(parallel)) => next.images.max_parallel_pulls = parallel,
        Ok(None) => {}
        Err(problem) => problems.push(problem),
    }
    problems.extend(contradictions(&next));
    if problems.is_empty() {
        *config = next;
        return Ok(applied);
    }
    Err(ConfigError { problems })
}

/// How many images are pulled at a time, as far as the file says it: whoever wants them to be pulled at the same time
/// and names no number sets no limit.
fn image_pulls(map: &serde_json::Map<String, Value>) -> Result<Option<Option<usize>>, String> {
    let number = map.get("maxParallelImagePulls").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    match (map.get("serializeImagePulls").and_then(Value::as_bool), number) {
        (_, Some(0)) => Err("maxParallelImagePulls: must be at least 1".to_owned()),
        (Some(true), Some(2..)) => {
            Err("maxParallelImagePulls: goes together with serializeImagePulls: false".to_owned())
        }
        (_, Some(number)) => Ok(Some(Some(number))),
        (Some(true), None) => Ok(Some(Some(1))),
        (Some(false), None) => Ok(Some(None)),
        (None, None) => Ok(None),
    }
}

fn verification(config: &mut AgentConfig, value: Value) -> Result<(), String> {
    config.image_verification = match parse::<String>(value)?.as_str() {
        "NeverVerify" => Verification::Never,
        "NeverVerifyPreloadedImages" => Verification::ExceptPreloaded,
        "NeverVerifyAllowlistedImages" => Verification::ExceptListed(Vec::new()),
        "AlwaysVerify" => Verification::Always,
        other => return Err(format!("{other:?} is no policy")),
    };
    Ok(())
}

/// The images that are for everybody, as far as the file says so. A list that is none is told of beside.
fn image_allowlist(map: &serde_json::Map<String, Value>) -> Result<Vec<String>, String> {
    let listed = map.get("preloadedImagesVerificationAllowlist").and_then(Value::as_array);
    let listed: Vec<String> = listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    match listed.iter().find_map(|pattern| check_listed(pattern).err()) {
        Some(problem) => Err(format!("preloadedImagesVerificationAllowlist: {problem}")),
        None => Ok(listed),
    }
}

/// Settings that cannot be true together.
fn contradictions(config: &AgentConfig) -> Vec<String> {
    let mut out = Vec::new();
    if config.images.gc_low_percent >= config.images.gc_high_percent {
        out.push("imageGCLowThresholdPercent: must be less than imageGCHighThresholdPercent".to_owned());
    }
    if config.server.cert_file.is_some() != config.server.key_file.is_some() {
        out.push("tlsCertFile: goes together with tlsPrivateKeyFile".to_owned());
    }
    if config.logs.max_files < 2 {
        out.push("containerLogMaxFiles: must be at least 2".to_owned());
    }
    let bad_dns = config.dns.servers.iter().filter(|s| s.parse::<IpAddr>().is_err());
    out.extend(bad_dns.map(|s| format!("clusterDNS: {s:?} is not an address")));
    out.extend(config.eviction.contradictions());
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    fn apply(text: &str) -> Result<(AgentConfig, Applied), ConfigError> {
        let mut config = AgentConfig::new("n", "/d");
        apply_kubelet_configuration(&mut config, &format!("{HEAD}{text}")).map(|a| (config, a))
    }

    #[test]
    fn settings_are_laid_over() {
        let (config, applied) = apply(
            "clusterDNS: [10.96.0.10]
maxPods: 50
cgroupDriver: systemd
systemReserved: {cpu: 100m, memory: 1Gi}
kubeReserved: {cpu: 200m}
authentication: {anonymous: {enabled: true}, x509: {clientCAFile: /ca.crt}, webhook: {cacheTTL: 2m0s}}
authorization: {mode: AlwaysAllow}
nodeStatusUpdateFrequency: 1m30s
staticPodPath: /manifests
containerLogMaxSize: 5Mi
podPidsLimit: -1
rotateCertificates: true
serverTLSBootstrap: true
evictionHard: {memory.available: 200Mi, nodefs.available: 15%, imagefs.available: 15%}
shutdownGracePeriod: 30s
enforceNodeAllocatable: [kube-reserved]
",
        )
        .unwrap();
        assert_eq!((config.node.max_pods, config.cgroups.driver), (50, Some(CgroupDriver::Systemd)));
        assert_eq!(config.node.reserved["cpu"], "300m");
        assert!(config.server.anonymous && config.server.authorization == Authorization::AlwaysAllow);
        assert_eq!(config.node.status_update, Duration::from_secs(90));
        assert_eq!((config.logs.max_size, config.cgroups.pod_pids_limit), (5 << 20, None));
        assert_eq!(
            config.eviction.hard(eviction::Signal::MemoryAvailable),
            Some(eviction::ThresholdValue::Amount(200 << 20))
        );
        assert_eq!(config.eviction.hard(eviction::Signal::PidAvailable), None);
        assert!(!config.cgroups.enforce_node_allocatable);
        assert_eq!(applied.ignored, ["rotateCertificates", "shutdownGracePeriod"]);
    }

    #[test]
    fn pulls_at_a_time() {
        let of = |text: &str| apply(text).map(|(config, _)| config.images.max_parallel_pulls);
        for (text, expected) in [
            ("", Some(5)),
            ("serializeImagePulls: true", Some(1)),
            ("serializeImagePulls: true\nmaxParallelImagePulls: 1", Some(1)),
            ("serializeImagePulls: false", None),
            ("serializeImagePulls: false\nmaxParallelImagePulls: 3", Some(3)),
            ("maxParallelImagePulls: 3", Some(3)),
            ("maxParallelImagePulls: null", Some(5)),
        ] {
            assert_eq!(of(text).unwrap(), expected, "{text}");
        }
        for text in [
            "serializeImagePulls: true\nmaxParallelImagePulls: 2",
            "maxParallelImagePulls: 0",
            "maxParallelImagePulls: -1",
        ] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn images_are_verified_as_the_file_says() {
        const POLICY: &str = "imagePullCredentialsVerificationPolicy";
        const LIST: &str = "preloadedImagesVerificationAllowlist";
        for (text, expect) in [
            (String::new(), Some(Verification::ExceptPreloaded)),
            (format!("{POLICY}: NeverVerify"), Some(Verification::Never)),
            (format!("{POLICY}: AlwaysVerify\n{LIST}: []"), Some(Verification::Always)),
            (
                format!("{LIST}: [reg.example/*]\n{POLICY}: NeverVerifyAllowlistedImages"),
                Some(Verification::ExceptListed(vec!["reg.example/*".to_owned()])),
            ),
            (format!("{LIST}: [reg.example/*]"), None),
            (format!("{LIST}: [nginx]\n{POLICY}: NeverVerifyAllowlistedImages"), None),
            (format!("{LIST}: [1]\n{POLICY}: NeverVerifyAllowlistedImages"), None),
            (format!("{POLICY}: Sometimes"), None),
        ] {
            assert_eq!(apply(&text).ok().map(|(config, _)| config.image_verification), expect, "{text}");
        }
    }

    #[test]
    fn protections_are_kept_told_or_refused() {
        let (config, applied) = apply(
            "seccompDefault: true\ntlsMinVersion: VersionTLS13\ntlsCipherSuites: [TLS_X]\nfailCgroupV1: true
protectKernelDefaults: true\npodsPerCore: 0\neventRecordQPS: 5\neventBurst: 7\nenableDebuggingHandlers: true\nhairpinMode: none",
        )
        .unwrap();
        assert!(config.seccomp_default && config.cgroups.fail_v1);
        assert_eq!(config.server.tls_min_version, TlsMinVersion::Tls13);
        assert_eq!(config.server.cipher_suites, ["TLS_X"]);
        assert_eq!((config.events.record_qps, config.events.burst), (5, 7));
        assert_eq!(applied.unprotected, ["protectKernelDefaults"]);
        for door in ["enableDebuggingHandlers", "enableSystemLogHandler"] {
            let error = apply(&format!("{door}: false")).unwrap_err().to_string();
            assert!(error.contains(&format!("{door}: false is not built")), "{error}");
        }
        for (name, _) in PROTECTIONS {
            assert!(IGNORED.contains(name), "{name} has an effect");
        }
    }

    #[test]
    fn all_problems_come_at_once_and_nothing_changes() {
        let text = "maxPods: many\nnoSuchField: 1\ncgroupDriver: dbus\nimageGCHighThresholdPercent: 200\nkubeReserved: {cpu: lots}\nevictionHard: {nodefs.available: some}\ntlsCertFile: /x\nauthentication: {basic: {}}\nenforceNodeAllocatable: [pods, none]\nclusterDNS: [dns.example]\n";
        let mut config = AgentConfig::new("n", "/d");
        let error = apply_kubelet_configuration(&mut config, text).unwrap_err();
        let all = error.to_string();
        let expect = [
            "apiVersion: must be",
            "kind: must be",
            "maxPods:",
            "noSuchField: unknown field",
            "cgroupDriver:",
            "imageGCHighThresholdPercent:",
            "kubeReserved: cpu",
            "evictionHard: nodefs.available",
            "tlsCertFile:",
            "authentication: unknown field `basic`",
            "clusterDNS: \"dns.example\"",
            "enforceNodeAllocatable: \"none\" goes alone",
        ];
        for line in expect {
            assert!(all.contains(line), "{line} is not in {all}");
        }
        assert_eq!(config, AgentConfig::new("n", "/d"));
        assert_eq!(apply("").unwrap().0, config, "a head alone changes nothing");
        for garbage in ["", "[", "3", "\u{0}", "a: b: c"] {
            assert_eq!(apply(garbage).is_err(), !garbage.is_empty(), "{garbage:?}");
            assert!(apply_kubelet_configuration(&mut config, garbage).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1h2m3.5s"), Ok(Duration::from_millis(3_723_500)));
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("+1.5h0.5m"), Ok(Duration::from_secs(5430)));
        assert_eq!(duration("7\u{b5}s2\u{3bc}s"), Ok(Duration::from_micros(9)), "either sign for micro");
        let longest = Duration::from_nanos(9_223_372_036_854_775_807);
        assert_eq!(duration("9223372036854775807ns"), Ok(longest), "to the last digit");
        assert_eq!(duration("2562047h"), Ok(Duration::from_secs(2_562_047 * 3600)));
        // Longer than Go's are those that `time.ParseDuration` refuses, too.
        let longer = ["2562048h", "3000000h", "18000000000000000000s18000000000000000000s"];
        for text in ["", "5", "s", "1x", "-1s", "1..2s"].into_iter().chain(longer) {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
