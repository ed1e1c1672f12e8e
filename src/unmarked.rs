//! Nodes of copepods that marked nothing. After a boot their data is data like any other; before it,
//! their containers and links are still there, and what a later copepod makes would meet them.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::cli;
use crate::paths::Paths;

/// Whether such a node is still on the machine: its run directory, which a boot empties, says so.
pub fn is_here(paths: &Paths) -> bool {
    let marked = paths.data_stamp().exists() || paths.run_stamp().exists();
    // A first start that was cut short leaves the file with the process id alone.
    let used = paths.containerd_run().exists() || paths.cni_data().exists();
    !marked && used && paths.pid_file().exists()
}

/// Refuses to start among what such a node left.
///
/// # Errors
/// Says what to do about it.
pub fn refuse(paths: &Paths) -> Result<()> {
    if is_here(paths) {
        bail!(
            "the node of {} is an earlier copepod's, whose containers and links bear no mark: reboot, or end it with \
             copepod down --keep-data{}, and start again",
            paths.run.display(),
            directories(paths)
        );
    }
    Ok(())
}

/// The flags that name the directories, where they are not the usual ones.
fn directories(paths: &Paths) -> String {
    let flags = [("--data-dir", &paths.data, cli::DATA_DIR), ("--run-dir", &paths.run, cli::RUN_DIR)];
    let unusual = flags.into_iter().filter(|(_, path, usual)| path.as_path() != Path::new(usual));
    unusual.map(|(flag, path, _)| format!(" {flag} {}", path.display())).collect()
}

/// Links of such a node, which `down` cannot tell from others': none where there is no such node.
pub fn links(paths: &Paths) -> Vec<String> {
    if !is_here(paths) {
        return Vec::new();
    }
    let files = fs::read_dir(paths.cni_conf()).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| fs::read(file.path()).ok());
    texts.filter_map(|text| bridge(&serde_json::from_slice(&text).ok()?)).collect()
}

/// The bridge that a CNI configuration of ours names.
fn bridge(configuration: &Value) -> Option<String> {
    let plugins = configuration["plugins"].as_array()?;
    let own = plugins.iter().find(|plugin| plugin["type"] == netproxy::cni::PLUGIN_NAMES[0])?;
    Some(own["bridge"].as_str()?.to_owned())
}

/// Says which of the links are still there.
pub fn report_links(links: &[String]) {
    // Asked of the kernel: what is mounted as /sys may show another network namespace.
    for link in links.iter().filter(|link| nix::net::if_::if_nametoindex(link.as_str()).is_ok()) {
        println!("the link {link} was that node's and bears no mark: where nobody else uses it, ip link delete {link}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;

    /// As the copepod before marks left it.
    fn unmarked(root: &Path) -> Paths {
        let paths = Paths { data: root.join("data"), run: root.join("run"), log: root.join("logs") };
        for directory in
            [paths.pki(), paths.kubelet(), paths.containerd_root(), paths.containerd_run(), paths.cni_conf()]
        {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(paths.pid_file(), "1\n").unwrap();
        let plugin = r#"{"type":"copepod-cni","bridge":"cni0","subnet":"10.42.0.0/24"}"#;
        let list = format!(r#"{{"cniVersion":"1.0.0","name":"copepod","plugins":[{plugin}]}}"#);
        fs::write(paths.cni_conf().join("10-copepod.conflist"), list).unwrap();
        paths
    }

    #[test]
    fn a_node_without_marks_is_refused_until_it_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let paths = unmarked(root.path());
        let told = refuse(&paths).unwrap_err().to_string();
        let command = format!("--keep-data --data-dir {0}/data --run-dir {0}/run,", root.path().display());
        assert!(told.contains(&command) && !told.contains('\n'), "{told}");
        assert_eq!(links(&paths), ["cni0"]);
        // As after a reboot: data alone is taken over.
        fs::remove_dir_all(&paths.run).unwrap();
        refuse(&paths).unwrap();
        assert_eq!(links(&paths), [""; 0]);
    }

    #[test]
    fn nodes_with_marks_and_first_starts_are_not_refused() {
        let root = tempfile::tempdir().unwrap();
        let paths = unmarked(root.path());
        fs::write(paths.data_stamp(), "{}").unwrap();
        refuse(&paths).unwrap();
        assert_eq!(links(&paths), [""; 0]);
        let fresh = Paths { data: root.path().join("d"), run: root.path().join("r"), log: PathBuf::new() };
        refuse(&fresh).unwrap();
        // The file comes first, the mark afterwards.
        fs::create_dir(&fresh.run).unwrap();
        fs::write(fresh.pid_file(), "").unwrap();
        refuse(&fresh).unwrap();
    }

    #[test]
    fn the_usual_directories_are_not_named() {
        let paths = Paths { data: cli::DATA_DIR.into(), run: cli::RUN_DIR.into(), log: PathBuf::new() };
        assert_eq!(directories(&paths), "");
    }
}
