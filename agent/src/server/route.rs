//! From a request line to what is asked, and to what must be allowed. Pure.

use crate::ids::ObjectName;
use crate::percent;

/// A container of a pod as a path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub pod: ObjectName,
    /// When given, the pod must have this UID.
    pub uid: Option<String>,
    pub container: String,
}

/// Everything this server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Healthz,
    Pods,
    RunningPods,
    ContainerLogs(Target),
    Exec(Target),
    Attach(Target),
    /// `container` is empty.
    PortForward(Target),
    Run(Target),
    /// A file or directory below the node's log directory, "" for the top.
    NodeLogs(String),
    StatsSummary,
    Metrics,
    MetricsCadvisor,
    MetricsResource,
    MetricsProbes,
    Configz,
}

/// Why a request line leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    NotFound,
    MethodNotAllowed,
}

/// Finds the route of a method and a path (percent-encoded, without query).
pub fn route(method: &str, path: &str) -> Result<Route, NoRoute> {
    let decoded: Option<Vec<String>> = path.trim_matches('/').split('/').map(decode).collect();
    let decoded = decoded.ok_or(NoRoute::NotFound)?;
    let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let found = find(&parts).ok_or(NoRoute::NotFound)?;
    let allowed: &[&str] = match &found {
        Route::Exec(_) | Route::Attach(_) | Route::PortForward(_) => &["GET", "POST"],
        Route::StatsSummary => &["GET", "POST"],
        Route::Run(_) => &["POST"],
        _ => &["GET", "HEAD"],
    };
    if allowed.contains(&method) { Ok(found) } else { Err(NoRoute::MethodNotAllowed) }
}

fn find(parts: &[&str]) -> Option<Route> {
    Some(match parts {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => Route::Healthz,
        ["pods"] => Route::Pods,
        ["runningpods"] => Route::RunningPods,
        ["containerLogs", ns, pod, container] => Route::ContainerLogs(target(ns, pod, None, container)?),
        ["exec", rest @ ..] => Route::Exec(streaming(rest)?),
        ["attach", rest @ ..] => Route::Attach(streaming(rest)?),
        ["run", rest @ ..] => Route::Run(streaming(rest)?),
        ["portForward", ns, pod] => Route::PortForward(target(ns, pod, None, "")?),
        ["portForward", ns, pod, uid] => Route::PortForward(target(ns, pod, Some(uid), "")?),
        ["logs", rest @ ..] => {
            // The rest is a path on the node: nothing may step out of its root.
            let inside = rest.iter().all(|part| !matches!(*part, ".." | ".") && !part.contains(['/', '\0']));
            Route::NodeLogs(inside.then(|| rest.join("/"))?)
        }
        ["stats", "summary"] => Route::StatsSummary,
        ["metrics"] => Route::Metrics,
        ["metrics", "cadvisor"] => Route::MetricsCadvisor,
        ["metrics", "resource"] => Route::MetricsResource,
        ["metrics", "probes"] => Route::MetricsProbes,
        ["configz"] => Route::Configz,
        _ => return None,
    })
}

fn streaming(parts: &[&str]) -> Option<Target> {
    match parts {
        [ns, pod, container] => target(ns, pod, None, container),
        [ns, pod, uid, container] => target(ns, pod, Some(uid), container),
        _ => None,
    }
}

fn target(ns: &str, pod: &str, uid: Option<&str>, container: &str) -> Option<Target> {
    let named = !ns.is_empty() && !pod.is_empty();
    named.then(|| Target {
        pod: ObjectName::new(ns, pod),
        uid: uid.filter(|uid| !uid.is_empty()).map(str::to_owned),
        container: container.to_owned(),
    })
}

/// Undoes percent-encoding of one path segment or query part.
fn decode(text: &str) -> Option<String> {
    String::from_utf8(percent::decode(text)?).ok()
}

/// Query pairs, decoded; malformed ones are passed over.
pub fn query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let plus = |text: &str| decode(&text.replace('+', " "));
    pairs.filter_map(|(name, value)| Some((plus(name)?, plus(value)?))).collect()
}

/// Subresources of the node that a request may be allowed by; any one suffices.
pub fn subresources(path: &str) -> Vec<&'static str> {
    let below = |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    if below("/stats") {
        vec!["stats"]
    } else if below("/metrics") {
        vec!["metrics"]
    } else if below("/logs") {
        vec!["log"]
    } else if below("/checkpoint") {
        vec!["checkpoint"]
    } else if below("/pods") || below("/runningpods") {
        vec!["pods", "proxy"]
    } else if below("/healthz") {
        vec!["healthz", "proxy"]
    } else if below("/configz") {
        vec!["configz", "proxy"]
    } else {
        vec!["proxy"]
    }
}

/// The API verb of an HTTP method.
pub fn verb(method: &str) -> &'static str {
    match method {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn aimed(uid: Option<&str>, container: &str) -> Target {
        Target { pod: ObjectName::new("ns", "p"), uid: uid.map(str::to_owned), container: container.into() }
    }

    #[test]
    fn routes() {
        for (method, path, expect) in [
            ("GET", "/healthz", Ok(Route::Healthz)),
            ("GET", "/healthz/ping", Ok(Route::Healthz)),
            ("GET", "/pods/", Ok(Route::Pods)),
            ("POST", "/pods", Err(NoRoute::MethodNotAllowed)),
            ("GET", "/runningpods/", Ok(Route::RunningPods)),
            ("GET", "/containerLogs/ns/p/c", Ok(Route::ContainerLogs(aimed(None, "c")))),
            ("GET", "/containerLogs/ns/p", Err(NoRoute::NotFound)),
            ("POST", "/exec/ns/p/c", Ok(Route::Exec(aimed(None, "c")))),
            ("GET", "/exec/ns/p/u/c", Ok(Route::Exec(aimed(Some("u"), "c")))),
            ("DELETE", "/exec/ns/p/c", Err(NoRoute::MethodNotAllowed)),
            ("POST", "/attach/ns/p/c%31", Ok(Route::Attach(aimed(None, "c1")))),
            ("POST", "/portForward/ns/p", Ok(Route::PortForward(aimed(None, "")))),
            ("GET", "/portForward/ns/p/u", Ok(Route::PortForward(aimed(Some("u"), "")))),
            ("POST", "/run/ns/p/c", Ok(Route::Run(aimed(None, "c")))),
            ("GET", "/run/ns/p/c", Err(NoRoute::MethodNotAllowed)),
            ("GET", "/logs/", Ok(Route::NodeLogs(String::new()))),
            ("GET", "/logs/a/b.log", Ok(Route::NodeLogs("a/b.log".into()))),
            ("GET", "/logs/../etc/passwd", Err(NoRoute::NotFound)),
            ("GET", "/logs/%2e%2e/etc/passwd", Err(NoRoute::NotFound)),
            ("GET", "/logs/a%2f..%2f..%2fetc", Err(NoRoute::NotFound)),
            ("GET", "/metrics/resource", Ok(Route::MetricsResource)),
            ("GET", "/", Err(NoRoute::NotFound)),
            ("GET", "/exec/%zz/p/c", Err(NoRoute::NotFound)),
        ] {
            assert_eq!(route(method, path), expect, "{method} {path}");
        }
    }

    #[test]
    fn what_must_be_allowed() {
        for (path, expect) in [
            ("/stats/summary", &["stats"][..]),
            ("/metrics", &["metrics"]),
            ("/metricsX", &["proxy"]),
            ("/logs/x", &["log"]),
            ("/pods", &["pods", "proxy"]),
            ("/exec/a/b/c", &["proxy"]),
        ] {
            assert_eq!(subresources(path), expect, "{path}");
        }
        assert_eq!(verb("POST"), "create");
        assert_eq!(verb("HEAD"), "get");
    }

    #[test]
    fn queries() {
        let expect = [("a", "1"), ("a", "b c"), ("x", "=&"), ("flag", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(query("a=1&a=b+c&x=%3D%26&flag&bad=%zz&"), expect);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(path in ".{0,80}", text in ".{0,80}") {
            let _ = route("GET", &path);
            let _ = query(&text);
            let _ = subresources(&path);
        }
    }
}
