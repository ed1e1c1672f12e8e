//! Where a node keeps its files: one place that knows every name below the
//! data, run and log directories. Makes none of them.

use std::path::{Path, PathBuf};

/// The directories of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Lives across restarts: store, images, certificates, volumes.
    pub data: PathBuf,
    /// Lives until the next boot: sockets, process ids.
    pub run: PathBuf,
    /// Container logs.
    pub log: PathBuf,
}

impl Paths {
    /// The certificates and keys of the control plane.
    pub fn pki(&self) -> PathBuf {
        self.data.join("server/pki")
    }

    /// The embedded store's file.
    pub fn store(&self) -> PathBuf {
        self.data.join("server/store.redb")
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data.join("admin.kubeconfig")
    }

    /// The node's own kubeconfig.
    pub fn node_kubeconfig(&self) -> PathBuf {
        self.data.join("kubelet.kubeconfig")
    }

    /// The service proxy's kubeconfig.
    pub fn proxy_kubeconfig(&self) -> PathBuf {
        self.data.join("proxy.kubeconfig")
    }

    /// A kubelet's serving certificate that whoever made the node issued, and its key.
    pub fn issued_serving(&self) -> (PathBuf, PathBuf) {
        (self.data.join("kubelet-serving.crt"), self.data.join("kubelet-serving.key"))
    }

    /// What the cluster last said of its networks.
    pub fn cluster_net(&self) -> PathBuf {
        self.data.join("cluster-net.json")
    }

    /// The kubelet's root: pods, volumes, serving certificate.
    pub fn kubelet(&self) -> PathBuf {
        self.data.join("kubelet")
    }

    /// The node's certificates, where it asked for them itself.
    pub fn node_pki(&self) -> PathBuf {
        self.kubelet().join("pki")
    }

    /// The directory of static pods.
    pub fn manifests(&self) -> PathBuf {
        self.data.join("manifests")
    }

    /// The private containerd's root (images, snapshots, metadata).
    pub fn containerd_root(&self) -> PathBuf {
        self.data.join("containerd")
    }

    /// The private containerd's state, socket and configuration.
    pub fn containerd_run(&self) -> PathBuf {
        self.run.join("containerd")
    }

    /// The CNI plugin's address leases.
    pub fn cni_data(&self) -> PathBuf {
        self.run.join("cni")
    }

    /// The directory of CNI configurations.
    pub fn cni_conf(&self) -> PathBuf {
        self.run.join("cni/net.d")
    }

    /// The directory of CNI plugins.
    pub fn cni_bin(&self) -> PathBuf {
        self.run.join("cni/bin")
    }

    /// The process id of the running copepod.
    pub fn pid_file(&self) -> PathBuf {
        self.run.join("copepod.pid")
    }

    /// The note of which cgroups are the node's.
    pub fn cgroups_note(&self) -> PathBuf {
        self.run.join("cgroups.json")
    }

    /// The note of what kernel settings were before.
    pub fn sysctls_note(&self) -> PathBuf {
        self.run.join("sysctls.json")
    }

    /// The note of what settings of connection tracking were before.
    pub fn conntrack_note(&self) -> PathBuf {
        self.run.join("conntrack.json")
    }

    /// The log of a copepod started in the background: on disk, whatever the run directory is on.
    pub fn log_file(&self) -> PathBuf {
        self.data.join("copepod.log")
    }

    /// How far the running copepod is.
    pub fn status_file(&self) -> PathBuf {
        self.run.join("status.json")
    }

    /// The mark that says whose the data directory is.
    pub fn data_stamp(&self) -> PathBuf {
        self.data.join("instance.json")
    }

    /// The mark that says whose the run directory is.
    pub fn run_stamp(&self) -> PathBuf {
        self.run.join("owner.json")
    }

    /// Everything that copepod keeps in the data directory, but for the mark and for static pods,
    /// which are somebody's own.
    pub fn data_entries(&self) -> Vec<PathBuf> {
        let log = self.log_file();
        vec![
            self.data.join("server"),
            self.admin_kubeconfig(),
            self.node_kubeconfig(),
            self.proxy_kubeconfig(),
            self.kubelet(),
            self.containerd_root(),
            self.cluster_net(),
            crate::log_file::aside(&log),
            log,
        ]
    }

    /// Everything that copepod keeps in the run directory, but for the mark.
    pub fn run_entries(&self) -> Vec<PathBuf> {
        vec![
            self.containerd_run(),
            self.cni_data(),
            self.cgroups_note(),
            self.sysctls_note(),
            self.conntrack_note(),
            self.status_file(),
            self.pid_file(),
        ]
    }
}

/// Where the clusters of this machine are kept, below a node's data directory.
pub fn clusters_dir(data: &Path) -> PathBuf {
    data.join("clusters")
}
