//! What is left of pods on disk, by its name: which directories are of which pod, and which are nobody's any more.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use crate::convert::sandbox::log_directory;
use crate::ids::PodUid;

/// The UID at the end of a log directory's name, `<namespace>_<name>_<uid>`.
pub fn uid_of_log_dir(name: &str) -> Option<PodUid> {
    let mut parts = name.splitn(3, '_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = !namespace.is_empty() && !pod.is_empty() && !uid.is_empty() && !uid.contains('_');
    whole.then(|| PodUid::new(uid))
}

/// The pod's own among the log directories: the one that bears its name, and whatever bears its UID, which may be all
/// that is known of it.
pub fn log_dirs_of<'a>(pod: &Pod, names: &'a [String]) -> Vec<&'a str> {
    let (own, uid) = (log_directory(pod), PodUid::of(pod));
    names
        .iter()
        .map(String::as_str)
        .filter(|name| *name == own || uid_of_log_dir(name).as_ref() == Some(&uid))
        .collect()
}

/// The pods among directories of pods that are not `alive`. What has another name is not the agent's.
pub fn orphans(directories: &[String], alive: impl Fn(&PodUid) -> bool) -> BTreeSet<PodUid> {
    let uids = directories.iter().map(|name| PodUid::new(name.as_str()));
    uids.filter(|uid| uid.file_name().is_some() && !alive(uid)).collect()
}

/// How what lies in a pod's directory may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// With all that is in it, as far as nothing is mounted there.
    Whole,
    /// Only when it is empty: what is in it may be a volume's.
    Empty,
}

/// How the entry of that name may be removed from a pod's directory. As upstream
/// (pkg/kubelet/kubelet_volumes.go: `cleanupOrphanedPodDirs`) whatever is no volume goes, whoever made it.
pub fn way(entry: &str) -> Way {
    match entry {
        "volumes" | "volume-subpaths" => Way::Empty,
        _ => Way::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_directories() {
        assert_eq!(uid_of_log_dir("ns_web-0_a1-b2"), Some(PodUid::new("a1-b2")));
        for name in ["", "a", "a_b", "a_b_", "_b_c", "a_b_c_d"] {
            assert_eq!(uid_of_log_dir(name), None, "{name}");
        }
    }

    #[test]
    fn logs_are_known_by_name_or_uid() {
        let mut pod = Pod::default();
        let names = ["ns_p_u", "ns_other_u", "ns_p_v", "ns_p_u_v", "u", "x_ns_p_u"].map(str::to_owned);
        pod.metadata.uid = Some("u".into());
        assert_eq!(log_dirs_of(&pod, &names), ["ns_p_u", "ns_other_u"]);
        (pod.metadata.namespace, pod.metadata.name) = (Some("ns".into()), Some("p".into()));
        assert_eq!(log_dirs_of(&pod, &names), ["ns_p_u", "ns_other_u"]);
        pod.metadata.uid = Some("u_v".into());
        assert_eq!(log_dirs_of(&pod, &names), ["ns_p_u_v"], "no UID of ours, and yet its own");
    }

    #[test]
    fn only_pods_are_orphans() {
        let names = ["a-1", "b-2", "lost+found", ".hidden", "c_3"].map(str::to_owned);
        let alive = PodUid::new("b-2");
        assert_eq!(orphans(&names, |uid| *uid == alive), BTreeSet::from(["a-1", "c_3"].map(PodUid::new)));
    }
}
