//! Pure: image names as users write them, in full. The grammar and the defaults are those of the registries' own
//! library (distribution/reference: `regexp.go`, `normalize.go`), by which containerd reads names, too.

/// The registry of names that name none.
const DEFAULT_DOMAIN: &str = "docker.io";

/// The full name that CRI knows an image by: `busybox` is
/// `docker.io/library/busybox:latest`. An error says what is wrong with it.
pub fn normalize(name: &str) -> Result<String, String> {
    let bad = |why: &str| Err(format!("{name:?} is not an image name: {why}"));
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    let is_domain = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.contains(|c: char| c.is_ascii_uppercase())
    };
    let (domain, path) = match rest.split_once('/') {
        Some(("index.docker.io", path)) => (DEFAULT_DOMAIN, path),
        Some((first, path)) if is_domain(first) => (first, path),
        _ => (DEFAULT_DOMAIN, rest),
    };
    // What has no owner is the library's, also where the registry is named.
    let path =
        if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    let (path, tag) = match path.rsplit_once(':') {
        Some((path, tag)) => (path.to_owned(), Some(tag)),
        None => (path, None),
    };
    if !is_registry(domain) {
        return bad("the registry is no host name or address");
    }
    if !path.split('/').all(component) {
        return bad("lower-case letters, digits and single separators are allowed between slashes");
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return bad("the tag has odd characters");
    }
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return bad("the digest is not sha256 and 64 hexadecimal digits");
    }
    Ok(match (tag, digest) {
        (None, None) => format!("{domain}/{path}:latest"),
        (Some(tag), None) => format!("{domain}/{path}:{tag}"),
        (_, Some(digest)) => format!("{domain}/{path}@{digest}"),
    })
}

/// The name without tag and digest.
pub(super) fn repository(full: &str) -> &str {
    let name = full.split('@').next().unwrap_or(full);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// A host name or an address, an IPv6 one in brackets, and perhaps a port.
fn is_registry(domain: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some((address, port)) = domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (host, port) = domain.split_once(':').map_or((domain, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric();
        label.starts_with(fine) && label.ends_with(fine) && label.chars().all(|c| fine(c) || c == '-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

/// Runs of letters and digits, with a period, one or two underscores or any number of dashes between them.
fn component(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separates = |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    text.starts_with(fine) && text.ends_with(fine) && text.split(fine).all(separates)
}

fn is_tag(tag: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(fine) && tag.chars().all(|c| fine(c) || ".-".contains(c))
}

/// `sha256:` and 64 lower-case hexadecimal digits.
pub(super) fn is_digest(digest: &str) -> bool {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_full() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let with_digest = format!("a.b/c:1@{digest}");
        let full = format!("a.b/c@{digest}");
        let table = [
            ("busybox", Some("docker.io/library/busybox:latest")),
            ("busybox:1", Some("docker.io/library/busybox:1")),
            ("user/app", Some("docker.io/user/app:latest")),
            ("localhost/app", Some("localhost/app:latest")),
            ("localhost:5000/app:v1", Some("localhost:5000/app:v1")),
            ("copepod.local/demo:latest", Some("copepod.local/demo:latest")),
            (with_digest.as_str(), Some(full.as_str())),
            ("docker.io/busybox:1", Some("docker.io/library/busybox:1")),
            ("docker.io/user/app", Some("docker.io/user/app:latest")),
            ("index.docker.io/busybox", Some("docker.io/library/busybox:latest")),
            ("Upper/app", Some("Upper/app:latest")),
            ("127.0.0.1:5000/app", Some("127.0.0.1:5000/app:latest")),
            ("[2001:db8::1]:5000/app:1", Some("[2001:db8::1]:5000/app:1")),
            ("a.b/c_d/e__f/g--h/i.j", Some("a.b/c_d/e__f/g--h/i.j:latest")),
            ("", None),
            ("UPPER", None),
            ("a//b", None),
            (":/b", None),
            ("a b.c/d", None),
            ("a.b:c/d", None),
            ("a.b:/d", None),
            ("-a.b/c", None),
            ("a..b/c", None),
            ("[::1/c", None),
            ("[x]/c", None),
            ("a.b/c..d", None),
            ("a.b/c___d", None),
            ("a.b/c-_d", None),
            ("docker.io/", None),
            ("https://a.b/c", None),
            ("a:b c", None),
            ("a@sha256:12", None),
            ("../../etc", None),
        ];
        for (name, expected) in table {
            assert_eq!(normalize(name).ok().as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn repositories() {
        for (full, expected) in [("a.b/c:1", "a.b/c"), ("a.b:80/c", "a.b:80/c"), ("a.b:80/c@sha256:0", "a.b:80/c")] {
            assert_eq!(repository(full), expected);
        }
    }
}
