//! Image names: whether they are ones, with which tag, and when to pull them. Pure.

use cri::images::Reference;

/// Why a name is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name \"{0}\": invalid reference format")]
pub struct BadName(pub String);

/// The name with `:latest` when it has neither tag nor digest, and otherwise as it is
/// (pkg/kubelet/images/image_manager.go: `applyDefaultImageTag`).
pub fn with_tag(name: &str) -> Result<String, BadName> {
    let reference = Reference::parse(name).map_err(|_| BadName(name.to_owned()))?;
    let whole = reference.tag.is_some() || reference.digest.is_some();
    Ok(if whole { name.to_owned() } else { format!("{name}:latest") })
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
    fn names() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        let long = format!("a:1@sha512:{}", "0".repeat(128));
        for (name, expect) in [
            ("nginx", "nginx:latest"),
            ("nginx:1.2", "nginx:1.2"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("copepod.local/demo:latest", "copepod.local/demo:latest"),
            ("[fd00::1]:5000/app", "[fd00::1]:5000/app:latest"),
            ("[fd00::1]:5000/app:v1", "[fd00::1]:5000/app:v1"),
            (digest.as_str(), digest.as_str()),
            (long.as_str(), long.as_str()),
        ] {
            assert_eq!(with_tag(name).as_deref(), Ok(expect));
        }
        for name in ["", ":", "A", "a/B", "a b", "a:", "a@sha256:1", "/a", "a/", "a//b", "-a", "x.y:z/a", "ä"] {
            assert!(with_tag(name).is_err(), "{name}");
        }
        let odd = [format!("a@md5:{}", "0".repeat(32)), format!("a@sha256:{}", "0".repeat(63))];
        for name in ["a..b", "a.-b", "a_-b", "[fd00::1/app"].into_iter().chain(odd.iter().map(String::as_str)) {
            assert!(with_tag(name).is_err(), "{name}");
        }
        assert_eq!(
            [policy(None, "a:latest"), policy(None, "a:1"), policy(Some("Never"), "a")],
            ["Always", "IfNotPresent", "Never"]
        );
    }
}
