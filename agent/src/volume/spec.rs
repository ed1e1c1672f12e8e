//! What is checked of volumes as they are written, and what a pod's spec says for all of them. Pure.

use k8s_openapi::api::core::v1::{KeyToPath, Pod, Volume};

/// Whether a text can be one path component: names come from objects, and a
/// static pod's file passes no validation upstream of here.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The mode bits of a file, where some are given.
pub(super) fn mode(mode: Option<i32>) -> Result<Option<u32>, String> {
    match mode {
        None => Ok(None),
        Some(mode) => match u32::try_from(mode) {
            Ok(mode) if mode <= 0o777 => Ok(Some(mode)),
            _ => Err(format!("mode {mode} is not between 0 and 0777")),
        },
    }
}

/// Checks a file's path: relative, without `..`, not in the writer's way.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    let inside = !path.is_empty()
        && path.len() <= 4096
        && !path.starts_with('/')
        && !path.starts_with("..")
        && !path.contains('\0')
        && path.split('/').all(|part| part != ".." && part.len() <= 255);
    let names_a_file = path.split('/').any(|part| !part.is_empty() && part != ".");
    if inside && names_a_file && !path.ends_with('/') {
        Ok(())
    } else {
        Err(format!("invalid path {path:?}: must be relative and stay inside the volume"))
    }
}

/// One key of an object, its path and its mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub key: String,
    pub path: String,
    pub mode: Option<u32>,
}

/// The keys that are asked for; none asks for all.
pub(super) fn items(items: Option<&[KeyToPath]>) -> Result<Vec<Item>, String> {
    let item = |item: &KeyToPath| {
        check_path(&item.path)?;
        Ok(Item { key: item.key.clone(), path: item.path.clone(), mode: mode(item.mode)? })
    };
    items.unwrap_or_default().iter().map(item).collect()
}

/// The field of a volume that no kind here knows.
pub(super) fn other_kind(volume: &Volume) -> &'static str {
    let kinds = [
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.csi.is_some(), "csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.image.is_some(), "image"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.fc.is_some(), "fc"),
    ];
    kinds.iter().find(|(present, _)| *present).map_or("such", |(_, name)| name)
}

/// `securityContext.fsGroup` of the pod.
pub(super) fn fs_group(pod: &Pod) -> Option<u32> {
    pod.spec.as_ref()?.security_context.as_ref()?.fs_group.and_then(|id| u32::try_from(id).ok())
}

/// The user all containers run as, if it is one and set: the owner of tokens. Upstream's `FsUserFrom`
/// (pkg/securitycontext/util.go).
pub(super) fn fs_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let pod_user = spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = containers.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(pod_user));
    let first = users.next()??;
    if users.all(|user| user == Some(first)) { u32::try_from(first).ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_stay_inside() {
        for good in ["a", "a/b", "./a", "a/./b", "a..b"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "/a", "../a", "x/../../a", "a/", "..data", "a\0b", &"x".repeat(300)] {
            assert!(check_path(bad).unwrap_err().contains("invalid path"), "{bad}");
        }
        assert_eq!((mode(None), mode(Some(0o400))), (Ok(None), Ok(Some(0o400))));
        for bad in [-1, 0o1000] {
            assert!(mode(Some(bad)).unwrap_err().contains("not between"), "{bad}");
        }
    }

    #[test]
    fn tokens_belong_to_the_one_user_of_all_containers() {
        let check = |spec: serde_json::Value, expect| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            assert_eq!(fs_user(&pod), expect);
        };
        let container = |user: i64| json!({"name": "a", "securityContext": {"runAsUser": user}});
        check(json!({"containers": [container(5), container(5)]}), Some(5));
        check(json!({"containers": [container(5), container(6)]}), None);
        check(json!({"containers": [container(5), {"name": "b"}]}), None);
        check(json!({"containers": [container(5), {"name": "b"}], "securityContext": {"runAsUser": 5}}), Some(5));
        check(json!({"containers": [{"name": "b"}]}), None);
    }
}
