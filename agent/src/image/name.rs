//! Image names: whether they are ones, and with which tag. Pure.

/// Why a name is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name \"{0}\": invalid reference format")]
pub struct BadName(pub String);

/// The name with `:latest` when it has neither tag nor digest.
pub fn with_tag(name: &str) -> Result<String, BadName> {
    let bad = || BadName(name.to_owned());
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    if digest.is_some_and(|d| !is_digest(d)) {
        return Err(bad());
    }
    let slash = rest.rfind('/').map_or(0, |i| i + 1);
    let (path, tag) = match rest[slash..].rfind(':') {
        Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
        None => (rest, None),
    };
    if tag.is_some_and(|t| !is_tag(t)) || !is_path(path) {
        return Err(bad());
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{name}:latest") } else { name.to_owned() })
}

/// The repository of an image in full, without tag and digest: `nginx` is one of `docker.io/library/nginx`.
pub fn repository(name: &str) -> String {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let name = name[last..].find(':').map_or(name, |colon| &name[..last + colon]);
    let (domain, path) = match name.split_once('/') {
        Some((first, path)) if is_domain(first) => (first, path),
        _ => (DOCKER_HUB, name),
    };
    match domain {
        DOCKER_HUB | "index.docker.io" if path.contains('/') => format!("{DOCKER_HUB}/{path}"),
        DOCKER_HUB | "index.docker.io" => format!("{DOCKER_HUB}/library/{path}"),
        _ => format!("{domain}/{path}"),
    }
}

/// The registry of images that name none.
pub const DOCKER_HUB: &str = "docker.io";

/// Whether what stands before the first slash is a registry and not part of the path.
fn is_domain(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first != first.to_lowercase()
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    digest
        .split_once(':')
        .is_some_and(|(kind, hex)| !kind.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_path(path: &str) -> bool {
    let mut parts = path.split('/').peekable();
    let first = path.split('/').next().unwrap_or_default();
    if path.contains('/') && is_domain(first) {
        let host = parts.next().unwrap_or_default();
        let name = host.split_once(':').map_or(host, |(n, _)| n);
        let port_ok = host.split_once(':').is_none_or(|(_, p)| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
        let chars = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        if name.is_empty() || !chars || !port_ok {
            return false;
        }
    }
    let component = |c: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(c.bytes().next())
            && edge(c.bytes().last())
            && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    parts.peek().is_some() && parts.all(component) && path.len() <= 255
}

/// The host of images that come with the binary: there is no such registry.
const BUILT_IN: &str = "copepod.local/";

/// The pull policy in force: given, else by the tag as the API server defaults.
/// What comes with the binary is never looked for elsewhere when it is here.
pub fn policy<'a>(given: Option<&'a str>, name: &str) -> &'a str {
    match given {
        Some("Always") | None if name.starts_with(BUILT_IN) => "IfNotPresent",
        Some(policy) if !policy.is_empty() => policy,
        _ if name.ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_in_full() {
        for (name, full) in [
            ("nginx", "docker.io/library/nginx"),
            ("nginx:1.2", "docker.io/library/nginx"),
            ("docker.io/nginx", "docker.io/library/nginx"),
            ("index.docker.io/team/app:1", "docker.io/team/app"),
            ("team/app@sha256:00", "docker.io/team/app"),
            ("localhost/app", "localhost/app"),
            ("reg.example:5000/app:1@sha256:00", "reg.example:5000/app"),
            ("reg.example:5000/a/b", "reg.example:5000/a/b"),
        ] {
            assert_eq!(repository(name), full, "{name}");
        }
    }

    #[test]
    fn names() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for (name, expect) in [
            ("nginx", "nginx:latest"),
            ("nginx:1.2", "nginx:1.2"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("copepod.local/demo:latest", "copepod.local/demo:latest"),
            (digest.as_str(), digest.as_str()),
        ] {
            assert_eq!(with_tag(name).as_deref(), Ok(expect));
        }
        for name in ["", ":", "A", "a/B", "a b", "a:", "a@sha256:1", "/a", "a/", "a//b", "-a", "x.y:z/a", "ä"] {
            assert!(with_tag(name).is_err(), "{name}");
        }
        assert_eq!(
            [policy(None, "a:latest"), policy(None, "a:1"), policy(Some("Never"), "a")],
            ["Always", "IfNotPresent", "Never"]
        );
    }
}
