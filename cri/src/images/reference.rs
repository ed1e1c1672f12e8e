//! Pure: image names as users write them, in parts and in full. The grammar and the defaults are those of the
//! registries' own library (distribution/reference: `regexp.go`, `normalize.go`), by which containerd and the kubelet
//! read names, too.

/// The registry of names that name none.
pub const DEFAULT_DOMAIN: &str = "docker.io";

/// How long a path may be, in bytes.
const MAX_PATH: usize = 255;

/// An image name in parts, with the registry and path that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// A host name or address, and perhaps a port: `docker.io`, `localhost:5000`, `[2001:db8::1]:5000`.
    pub domain: String,
    /// As in the registry: `library/busybox`.
    pub path: String,
    pub tag: Option<String>,
    /// For example `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
}

impl Reference {
    /// Reads a name. An error says what is wrong with it.
    ///
    /// # Errors
    /// When the grammar has no such name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("{name:?} is not an image name: {why}"));
        if name.len() == 64 && is_hex(name) {
            return bad("it may be meant for the image's id");
        }
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (name, None),
        };
        let (domain, path) = split_domain(rest);
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        // What has no owner is the library's, also where the registry is named.
        let library = if domain == DEFAULT_DOMAIN && !path.contains('/') { "library/" } else { "" };
        let path = format!("{library}{path}");
        // What is no registry may be the beginning of a path all the same.
        if !is_registry(domain) && !component(domain) {
            return bad("the registry is no host name or address");
        }
        if !path.split('/').all(component) {
            return bad("lower-case letters, digits and single separators are allowed between slashes");
        }
        if path.len() > MAX_PATH {
            return bad("it is too long");
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return bad("the tag has odd characters");
        }
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return bad("the digest is not an algorithm and its number of hexadecimal digits");
        }
        let (tag, digest) = (tag.map(str::to_owned), digest.map(str::to_owned));
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }

    /// The name in full without tag and digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
}

/// The registry that a name without digest is of, and the rest.
fn split_domain(name: &str) -> (&str, &str) {
    let is_domain = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.contains(|c: char| c.is_ascii_uppercase())
    };
    match name.split_once('/') {
        Some(("index.docker.io", path)) => (DEFAULT_DOMAIN, path),
        Some((first, path)) if is_domain(first) => (first, path),
        _ => (DEFAULT_DOMAIN, name),
    }
}

/// The full name that CRI knows an image by: `busybox` is
/// `docker.io/library/busybox:latest`. An error says what is wrong with it.
pub fn normalize(name: &str) -> Result<String, String> {
    let reference = Reference::parse(name)?;
    let repository = reference.repository();
    Ok(match (reference.tag, reference.digest) {
        (None, None) => format!("{repository}:latest"),
        (Some(tag), None) => format!("{repository}:{tag}"),
        (_, Some(digest)) => format!("{repository}@{digest}"),
    })
}

/// The name without tag and digest.
pub(crate) fn repository(full: &str) -> &str {
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
        return port && !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
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

/// An algorithm that there is, and as many lower-case hexadecimal digits as it has (opencontainers/go-digest:
/// `algorithm.go`).
pub(crate) fn is_digest(digest: &str) -> bool {
    let lengths = [("sha256", 64), ("sha384", 96), ("sha512", 128)];
    let (algorithm, hex) = digest.split_once(':').unwrap_or_default();
    is_hex(hex) && lengths.contains(&(algorithm, hex.len()))
}

/// The same of the one algorithm that archives are checked by.
pub(super) fn is_sha256(digest: &str) -> bool {
    digest.starts_with("sha256:") && is_digest(digest)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
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
            ("[fd00::1]/app", Some("[fd00::1]/app:latest")),
            ("a.b/c_d/e__f/g--h/i.j", Some("a.b/c_d/e__f/g--h/i.j:latest")),
            ("a_b.c/d", Some("a_b.c/d:latest")),
            ("", None),
            ("UPPER", None),
            ("a//b", None),
            (":/b", None),
            ("a b.c/d", None),
            ("a.b:c/d", None),
            ("a.b:/d", None),
            ("-a.b/c", None),
            ("a..b/c", None),
            ("a..b", None),
            ("a.-b", None),
            ("[::1/c", None),
            ("[x]/c", None),
            ("[]/c", None),
            ("[::1]5000/c", None),
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
    fn digests_by_their_algorithms() {
        for (algorithm, digits, good) in [
            ("sha256", "a".repeat(64), true),
            ("sha384", "0".repeat(96), true),
            ("sha512", "f".repeat(128), true),
            ("sha256", "A".repeat(64), false),
            ("sha256", "a".repeat(63), false),
            ("sha256", "a".repeat(65), false),
            ("sha512", "a".repeat(64), false),
            ("md5", "a".repeat(32), false),
            ("", "a".repeat(64), false),
        ] {
            let name = format!("a.b/c@{algorithm}:{digits}");
            assert_eq!(Reference::parse(&name).is_ok(), good, "{name}");
            assert_eq!(is_sha256(&format!("{algorithm}:{digits}")), good && algorithm == "sha256", "{name}");
        }
    }

    #[test]
    fn lengths_have_ends() {
        let of = |length: usize| Reference::parse(&format!("a.b/{}", "c".repeat(length))).is_ok();
        assert!(of(MAX_PATH) && !of(MAX_PATH + 1));
        let tagged = |length: usize| Reference::parse(&format!("a:{}", "t".repeat(length))).is_ok();
        assert!(tagged(128) && !tagged(129) && !tagged(0));
        assert!(Reference::parse(&"a".repeat(64)).is_err(), "that is an id");
        assert!(Reference::parse(&"g".repeat(64)).is_ok());
    }

    #[test]
    fn repositories() {
        for (full, expected) in [("a.b/c:1", "a.b/c"), ("a.b:80/c", "a.b:80/c"), ("a.b:80/c@sha256:0", "a.b:80/c")] {
            assert_eq!(repository(full), expected);
        }
    }
}
