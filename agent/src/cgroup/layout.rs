//! Names of cgroups by driver. Pure.

use std::path::PathBuf;

use crate::config::CgroupDriver;
use crate::convert::qos::QosClass;
use crate::ids::PodUid;

/// Where the tree hangs and how its parts are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    driver: CgroupDriver,
    /// Components of the cgroup above `kubepods`.
    root: Vec<String>,
}

impl Layout {
    /// A layout below `root`, "/" or "" for the top.
    pub fn new(driver: CgroupDriver, root: &str) -> Self {
        let root = root.split('/').filter(|p| !p.is_empty() && *p != "." && *p != "..").map(str::to_owned).collect();
        Self { driver, root }
    }

    /// The driver in use.
    pub fn driver(&self) -> CgroupDriver {
        self.driver
    }

    fn names(&self, class: Option<QosClass>, pod: Option<&PodUid>) -> Vec<String> {
        let mut parts = vec!["kubepods".to_owned()];
        match class {
            Some(QosClass::Burstable) => parts.push("burstable".to_owned()),
            Some(QosClass::BestEffort) => parts.push("besteffort".to_owned()),
            Some(QosClass::Guaranteed) | None => {}
        }
        parts.extend(pod.map(|uid| format!("pod{uid}")));
        parts
    }

    /// The path below a hierarchy's mount point.
    pub fn path(&self, class: Option<QosClass>, pod: Option<&PodUid>) -> PathBuf {
        let names = self.names(class, pod);
        match self.driver {
            CgroupDriver::Cgroupfs => self.root.iter().chain(&names).collect(),
            CgroupDriver::Systemd => self.slices(&names).into_iter().collect(),
        }
    }

    /// What the runtime is told as cgroup parent.
    pub fn parent(&self, class: QosClass, pod: &PodUid) -> String {
        let names = self.names(Some(class), Some(pod));
        match self.driver {
            CgroupDriver::Cgroupfs => format!("/{}", self.path(Some(class), Some(pod)).display()),
            CgroupDriver::Systemd => self.slices(&names).pop().unwrap_or_default(),
        }
    }

    /// `a.slice`, `a-b.slice`, … ; a dash inside a name would mean a level, so
    /// it becomes an underscore.
    fn slices(&self, names: &[String]) -> Vec<String> {
        let clean = |n: &String| n.strip_suffix(".slice").unwrap_or(n).replace('-', "_");
        let mut out = Vec::new();
        let mut name = String::new();
        for part in self.root.iter().chain(names).map(clean) {
            if !name.is_empty() {
                name.push('-');
            }
            name.push_str(&part);
            out.push(format!("{name}.slice"));
        }
        out
    }

    /// The pod a directory of the tree belongs to.
    pub fn pod_of(&self, directory: &str) -> Option<PodUid> {
        match self.driver {
            CgroupDriver::Cgroupfs => directory.strip_prefix("pod").filter(|u| !u.is_empty()).map(PodUid::new),
            CgroupDriver::Systemd => {
                let name = directory.strip_suffix(".slice")?.rsplit('-').next()?;
                let uid = name.strip_prefix("pod").filter(|u| !u.is_empty())?;
                Some(PodUid::new(uid.replace('_', "-")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_driver() {
        let uid = PodUid::new("a1-b2");
        let plain = Layout::new(CgroupDriver::Cgroupfs, "/");
        assert_eq!(plain.parent(QosClass::Burstable, &uid), "/kubepods/burstable/poda1-b2");
        assert_eq!(plain.parent(QosClass::Guaranteed, &uid), "/kubepods/poda1-b2");
        assert_eq!(Layout::new(CgroupDriver::Cgroupfs, "/n1/../x").path(None, None), PathBuf::from("n1/x/kubepods"));
        let systemd = Layout::new(CgroupDriver::Systemd, "/");
        assert_eq!(systemd.parent(QosClass::BestEffort, &uid), "kubepods-besteffort-poda1_b2.slice");
        assert_eq!(
            systemd.path(Some(QosClass::BestEffort), Some(&uid)),
            PathBuf::from("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-poda1_b2.slice")
        );
        assert_eq!(systemd.pod_of("kubepods-besteffort-poda1_b2.slice"), Some(uid.clone()));
        assert_eq!(plain.pod_of("poda1-b2"), Some(uid));
        for other in ["pod", "burstable", "x.slice", ""] {
            assert_eq!((plain.pod_of(other), systemd.pod_of(other)), (None, None), "{other}");
        }
    }
}
