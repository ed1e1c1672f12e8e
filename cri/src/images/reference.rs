//! Pure: image names as users write them, in full.

/// The full name that CRI knows an image by: `busybox` is
/// `docker.io/library/busybox:latest`. An error says what is wrong with it.
pub fn normalize(name: &str) -> Result<String, String> {
    let bad = |why: &str| Err(format!("{name:?} is not an image name: {why}"));
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    let (domain, path) = match rest.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path.to_owned()),
        Some(_) => ("docker.io", rest.to_owned()),
        None => ("docker.io", format!("library/{rest}")),
    };
    let (path, tag) = match path.rsplit_once(':') {
        Some((path, tag)) => (path.to_owned(), Some(tag)),
        None => (path, None),
    };
    if domain.is_empty() || !path.split('/').all(component) {
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

fn component(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(fine) && text.ends_with(fine) && text.chars().all(|c| fine(c) || "._-".contains(c))
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
            ("", None),
            ("UPPER", None),
            ("a//b", None),
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
