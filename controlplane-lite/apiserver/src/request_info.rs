//! Pure: method, path and query → [`RequestInfo`], the attributes every later stage (authorization, routing,
//! metrics) works with. Follows upstream's RequestInfoFactory.
//!
//! Does not know which resources exist.

use http::Method;
use scheme::selector::FieldSelector;

/// What a request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether this names an API resource (then the fields below are set).
    pub is_resource: bool,
    /// The decoded path.
    pub path: String,
    /// get, list, watch, create, update, patch, delete, deletecollection; lower-case method for other paths.
    pub verb: String,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, empty when cluster-scoped or across all namespaces.
    pub namespace: String,
    /// Plural resource.
    pub resource: String,
    /// Subresource, empty when none.
    pub subresource: String,
    /// Object name, empty for collections.
    pub name: String,
    /// The path after the subresource (proxy requests), without a leading slash.
    pub rest: String,
    /// Whether the path had a slash after the last part.
    pub trailing_slash: bool,
}

/// Query parameters in order of appearance, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a raw query string leniently, as Go does: broken escapes are kept as they are.
    pub fn parse(raw: Option<&str>) -> Self {
        let pairs = raw.unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key, true), decode(value, true))
                })
                .collect(),
        )
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of `key`.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether `key` is there, with or without a value.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// A boolean as Go's query conversion reads it: present and not `false`/`0` means true.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !v.eq_ignore_ascii_case("false") && v != "0")
    }
}

/// Decodes percent escapes; `plus` also turns `+` into a space. Broken escapes stay as they are; bytes that are not
/// UTF-8 become replacement characters.
pub fn decode(raw: &str, plus: bool) -> String {
    let escaped = raw.contains('%') || (plus && raw.contains('+'));
    if !escaped {
        return raw.to_owned();
    }
    let bytes = raw.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex =
            |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match bytes[i] {
            b'%' => match (hex(i + 1), hex(i + 2)) {
                (Some(high), Some(low)) => {
                    out.push(high * 16 + low);
                    i += 2;
                }
                _ => out.push(b'%'),
            },
            b'+' if plus => out.push(b' '),
            other => out.push(other),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Reads the attributes of a request.
pub fn parse(method: &Method, raw_path: &str, query: &Query) -> RequestInfo {
    let path = decode(raw_path, false);
    let mut info = RequestInfo {
        verb: method.as_str().to_ascii_lowercase(),
        trailing_slash: path.len() > 1 && path.ends_with('/'),
        path: path.clone(),
        ..RequestInfo::default()
    };
    let trimmed = path.trim_matches('/');
    let mut parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
    if parts.len() < 3 || !matches!(parts[0], "api" | "apis") {
        return info;
    }
    if parts.remove(0) == "apis" {
        if parts.len() < 3 {
            return info;
        }
        info.group = parts.remove(0).to_owned();
    }
    info.version = parts.remove(0).to_owned();
    info.is_resource = true;
    let legacy_watch = parts[0] == "watch" && parts.len() > 1;
    info.verb = if legacy_watch { "watch" } else { method_verb(method) }.to_owned();
    if legacy_watch {
        parts.remove(0);
    }
    if parts[0] == "namespaces" && parts.len() > 1 {
        info.namespace = parts[1].to_owned();
        if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
            parts.drain(..2);
        }
    }
    info.resource = parts[0].to_owned();
    info.name = parts.get(1).map(|s| (*s).to_owned()).unwrap_or_default();
    info.subresource = parts.get(2).map(|s| (*s).to_owned()).unwrap_or_default();
    info.rest = parts.get(3..).map(|rest| rest.join("/")).unwrap_or_default();
    refine_verb(&mut info, query);
    info
}

fn method_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// Collections turn get into list or watch and delete into deletecollection; a `metadata.name` field selector names
/// the object for authorization.
fn refine_verb(info: &mut RequestInfo, query: &Query) {
    if !info.name.is_empty() {
        return;
    }
    match info.verb.as_str() {
        "get" => info.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned(),
        "delete" => info.verb = "deletecollection".to_owned(),
        _ => {}
    }
}

impl RequestInfo {
    /// The name for authorization: the path's, or the one a `metadata.name=` field selector pins for list and watch,
    /// and for them alone: who may delete one object may not delete collections, whatever they select.
    pub fn authorization_name(&self, query: &Query) -> String {
        if !self.name.is_empty() || !matches!(self.verb.as_str(), "list" | "watch") {
            return self.name.clone();
        }
        // As whoever lists will read it: a comma in a value begins no term.
        let selector = FieldSelector::parse_any(query.get("fieldSelector").unwrap_or("")).unwrap_or_default();
        selector.exact("metadata.name").unwrap_or("").to_owned()
    }

    /// Whether the namespace of the path is the object itself: a namespace is asked for in itself.
    pub fn is_own_namespace(&self) -> bool {
        self.resource == "namespaces" && self.group.is_empty()
    }

    /// Whether the request may last: watches, logs, tunnels and proxies are exempt from deadlines and limits.
    pub fn long_running(&self) -> bool {
        self.is_resource
            && (self.verb == "watch"
                || matches!(self.subresource.as_str(), "proxy" | "attach" | "exec" | "portforward" | "log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, url: &str, expect: &str) {
        let (path, query) = url.split_once('?').map_or((url, None), |(p, q)| (p, Some(q)));
        let info = parse(&Method::from_bytes(method.as_bytes()).expect("a method"), path, &Query::parse(query));
        let got = format!(
            "{} {}/{} ns={} {} {} {} {}",
            info.verb, info.group, info.version, info.namespace, info.resource, info.name, info.subresource, info.rest
        );
        assert_eq!(got.split_whitespace().collect::<Vec<_>>().join(" "), expect, "{method} {url}");
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        check("GET", "/api/v1/pods", "list /v1 ns= pods");
        check("GET", "/api/v1/pods?watch=true", "watch /v1 ns= pods");
        check("GET", "/api/v1/pods?watch=1", "watch /v1 ns= pods");
        check("GET", "/api/v1/pods?watch=false", "list /v1 ns= pods");
        check("GET", "/api/v1/watch/namespaces/a/pods/x", "watch /v1 ns=a pods x");
        check("GET", "/api/v1/watch/pods", "watch /v1 ns= pods");
        check("GET", "/api/v1/namespaces", "list /v1 ns= namespaces");
        check("GET", "/api/v1/namespaces/a", "get /v1 ns=a namespaces a");
        check("PUT", "/api/v1/namespaces/a/finalize", "update /v1 ns=a namespaces a finalize");
        check("POST", "/api/v1/namespaces/a/pods", "create /v1 ns=a pods");
        check("GET", "/api/v1/namespaces/a/pods/x/log", "get /v1 ns=a pods x log");
        check("GET", "/api/v1/namespaces/a/pods/x/proxy/b/c", "get /v1 ns=a pods x proxy b/c");
        check("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1 ns=a deployments");
        check("PATCH", "/apis/apps/v1/namespaces/a/deployments/x/scale", "patch apps/v1 ns=a deployments x scale");
        check("GET", "/apis/apps/v1", "get / ns=");
        check("GET", "/healthz", "get / ns=");
        check("GET", "/", "get / ns=");
        check("HEAD", "/api/v1/nodes/n%2f", "get /v1 ns= nodes n");
    }

    #[test]
    fn field_selectors_name_the_object() {
        let query = Query::parse(Some("fieldSelector=a%3Db%2Cmetadata.name%3Dx"));
        let watch = Query::parse(Some("watch=true&fieldSelector=metadata.name%3Dx"));
        for (method, query, expect) in [
            (Method::GET, &query, "x"),
            (Method::GET, &watch, "x"),
            (Method::DELETE, &query, ""),
            (Method::POST, &query, ""),
        ] {
            let info = parse(&method, "/api/v1/secrets", query);
            assert_eq!(info.authorization_name(query), expect, "{method}");
        }
    }

    /// What a list may show is decided by the selector as it is read when the list is made, not by a part of its text.
    #[test]
    fn only_a_term_of_its_own_names_the_object() {
        for selector in [
            r"type!=a\,metadata.name=x",
            r"type!=a\\\,metadata.name=x",
            "metadata.name!=x",
            "type=a,metadata.name",
            r"metadata.name=x\",
        ] {
            let query = form_urlencoded(selector);
            let info = parse(&Method::GET, "/api/v1/secrets", &query);
            assert_eq!(info.authorization_name(&query), "", "{selector}");
        }
        let query = form_urlencoded("metadata.name==x,metadata.name=x");
        assert_eq!(parse(&Method::GET, "/api/v1/secrets", &query).authorization_name(&query), "x");
    }

    fn form_urlencoded(selector: &str) -> Query {
        Query(vec![("fieldSelector".to_owned(), selector.to_owned())])
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(path in ".{0,80}", query in ".{0,80}") {
            let query = Query::parse(Some(&query));
            let info = parse(&Method::GET, &path, &query);
            let _ = info.authorization_name(&query);
            let _ = info.long_running();
        }
    }
}
