//! What is pure about starting containerd.

use super::config::{Machine, Release, render};
use super::detect::has_capability;
use super::*;

fn options() -> Options {
    Options::new(Path::new("/var/lib/node \"one\""), Path::new("/run/node"))
}

fn machine(major: u32, minor: u32) -> Machine {
    Machine {
        version: Release { major, minor },
        oci_runtime: "/usr/bin/runc".to_owned(),
        handlers: BTreeMap::new(),
        snapshotter: Snapshotter::Overlayfs,
        can_lower_oom_score: false,
    }
}

#[test]
fn versions_of_all_packagers() {
    let table = [
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", Some((1, 6))),
        ("containerd github.com/containerd/containerd/v2 2.1.9+unknown ", Some((2, 1))),
        ("containerd containerd.io v2.0.0 207ad71", Some((2, 0))),
        ("containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da", Some((1, 7))),
        ("containerd", None),
        ("", None),
    ];
    for (line, expected) in table {
        assert_eq!(Release::parse(line).map(|r| (r.major, r.minor)), expected, "{line}");
    }
}

#[test]
fn one_format_for_each_generation() {
    let old = render(&options(), &machine(1, 6));
    for part in [
        "version = 2\n",
        "root = \"/var/lib/node \\\"one\\\"/containerd\"\n",
        "address = \"/run/node/containerd/containerd.sock\"\n",
        "sandbox_image = \"copepod.local/pause:",
        "restrict_oom_score_adj = true\n",
        "snapshotter = \"overlayfs\"\n",
        "BinaryName = \"/usr/bin/runc\"\n",
        "SystemdCgroup = false\n",
        "stream_server_address = \"127.0.0.1\"\n",
    ] {
        assert!(old.contains(part), "{part} is not in\n{old}");
    }
    let new = render(&options(), &machine(2, 1));
    assert!(new.contains("version = 3\n") && new.contains("[plugins.\"io.containerd.cri.v1.runtime\".cni]"), "{new}");
    assert!(!new.contains("sandbox_image") && new.contains("sandbox = \"copepod.local/pause:"), "{new}");
}

#[test]
fn the_machine_decides_scores_and_snapshots() {
    let able = Machine { can_lower_oom_score: true, snapshotter: Snapshotter::Native, ..machine(1, 7) };
    let options = Options { cgroup_driver: CgroupDriver::Systemd, ..options() };
    let text = render(&options, &able);
    for part in
        ["restrict_oom_score_adj = false", "oom_score = -999", "snapshotter = \"native\"", "SystemdCgroup = true"]
    {
        assert!(text.contains(part), "{part}");
    }
}

#[test]
fn further_runtimes_have_handlers_of_their_own() {
    let handlers = [("odd \"one\"", "/opt/odd"), ("runc", "/opt/never")].map(|(n, p)| (n.to_owned(), p.to_owned()));
    for release in [(1, 6), (2, 1)] {
        let machine = Machine { handlers: handlers.clone().into(), ..machine(release.0, release.1) };
        let text = render(&options(), &machine);
        for part in
            [".runtimes.\"odd \\\"one\\\"\".options]\n        BinaryName = \"/opt/odd\"\n", "/containerd/runtimes/odd "]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("/opt/never"), "{text}");
    }
}

#[test]
fn capabilities_are_bits() {
    let status = "Name:\tx\nCapEff:\t000001fffeffffff\nCapBnd:\t000001ffffffffff\n";
    assert!(!has_capability(status, 24));
    assert!(has_capability(status, 21));
    for garbage in ["", "CapEff:", "CapEff:\tzz"] {
        assert!(!has_capability(garbage, 24));
    }
}

#[tokio::test]
async fn what_is_missing_is_said_in_one_line() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let options = Options {
        containerd: Some(dir.path().join("none")),
        ..Options::new(&dir.path().join("data"), &dir.path().join("run"))
    };
    let error = Containerd::start(options, CancellationToken::new()).await.expect_err("nothing is there");
    assert!(error.to_string().ends_with("install it (on Debian: apt-get install containerd)"), "{error}");
}

#[tokio::test]
async fn a_socket_path_has_a_limit() {
    let options = Options::new(Path::new("/tmp"), Path::new(&format!("/run/{}", "x".repeat(100))));
    let error = Containerd::start(options, CancellationToken::new()).await.expect_err("it is too long");
    assert!(matches!(error, ContainerdError::SocketPath { .. }), "{error}");
}
