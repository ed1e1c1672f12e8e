//! What the machine boots: programs of this host with their libraries, Debian's
//! kernel modules, and the scripts in `guest/`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::archive::Archive;

/// Where `packaging/vm.sh` puts what it fetches.
pub const FETCHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/vm");

/// Who is the machine's first process, and with it who manages cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// A script: cgroups are plain directories.
    Script,
    Systemd,
}

/// Programs that the scenario needs, by name.
const PROGRAMS: &[&str] = &["containerd", "containerd-shim-runc-v2", "runc", "nft", "kubectl"];

/// Parts of the kernel that may be wanted; it loads them itself when they are.
const MODULES: &[&str] = &[
    "kernel/net/",
    "kernel/lib/",
    "kernel/crypto/",
    "kernel/arch/x86/crypto/",
    "kernel/fs/overlayfs/",
    "kernel/drivers/net/veth",
    "kernel/drivers/net/dummy",
];

/// systemd's programs that are started, and whether every release has them.
const SYSTEMD: &[(&str, bool)] = &[
    ("lib/systemd/systemd", true),
    ("lib/systemd/systemd-executor", false),
    ("bin/busctl", true),
    ("bin/systemctl", true),
    ("bin/dbus-daemon", true),
];

/// Builds the initramfs.
pub fn build(path: &Path, init: Init) -> Result<()> {
    let fetched = Path::new(FETCHED);
    for part in ["vmlinuz", "busybox", "modules", "systemd"] {
        ensure!(fetched.join(part).exists(), "{}/{part} is missing: run `make vm`", fetched.display());
    }
    let mut image = Image { archive: Archive::create(path)?, libraries: BTreeSet::new() };
    image.base(fetched)?;
    image.modules(&fetched.join("modules"))?;
    for program in PROGRAMS {
        let found = find(program)?;
        image.program(&format!("usr/bin/{program}"), &found, None)?;
    }
    let stripped = stripped(Path::new(env!("CARGO_BIN_EXE_copepod")), path)?;
    image.program("usr/bin/copepod", &stripped, None)?;
    fs::remove_file(&stripped)?;
    if init == Init::Systemd {
        image.systemd(&fetched.join("systemd"))?;
    }
    image.archive.finish().context("write the initramfs")
}

struct Image {
    archive: Archive,
    libraries: BTreeSet<PathBuf>,
}

impl Image {
    fn base(&mut self, fetched: &Path) -> Result<()> {
        let archive = &mut self.archive;
        archive.device("dev/console", (5, 1))?;
        for directory in ["proc", "sys", "run", "tmp", "var/lib", "var/log", "root", "etc", "new"] {
            archive.directory(directory)?;
        }
        archive.file("bin/busybox", 0o755, &fs::read(fetched.join("busybox"))?)?;
        // The kernel starts it by this name, to load modules.
        archive.link("sbin/modprobe", "/bin/busybox")?;
        archive.link("bin/sh", "/bin/busybox")?;
        archive.file("init", 0o755, include_bytes!("guest/init.sh"))?;
        archive.file("vm/scenario.sh", 0o755, include_bytes!("guest/scenario.sh"))?;
        archive.file("vm/pods.yaml", 0o644, include_bytes!("guest/pods.yaml"))?;
        archive.file("vm/kubelet.yaml", 0o644, include_bytes!("guest/kubelet.yaml"))?;
        archive.file("vm/hello.yaml", 0o644, include_bytes!("../../examples/hello.yaml"))?;
        archive.file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nmessagebus:x:100:100::/:/bin/false\n")?;
        archive.file("etc/group", 0o644, b"root:x:0:\nmessagebus:x:100:\n")?;
        // containerd copies both into pods.
        archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n")?;
        archive.file("etc/resolv.conf", 0o644, b"")?;
        Ok(())
    }

    /// The wanted modules, at the place where the kernel's own version is.
    fn modules(&mut self, fetched: &Path) -> Result<()> {
        for version in fs::read_dir(fetched)? {
            let version = version?;
            let target = format!("lib/modules/{}", version.file_name().display());
            for (name, path) in files_below(&version.path())? {
                let top = !name.contains('/');
                if top || MODULES.iter().any(|wanted| name.starts_with(wanted)) {
                    self.archive.file(&format!("{target}/{name}"), 0o644, &fs::read(path)?)?;
                }
            }
        }
        Ok(())
    }

    /// A program and its libraries; below `root` where one is given.
    fn program(&mut self, name: &str, path: &Path, root: Option<&Path>) -> Result<()> {
        self.archive.file(name, 0o755, &fs::read(path).with_context(|| format!("read {}", path.display()))?)?;
        for (target, library) in libraries(path, root)? {
            if self.libraries.insert(target.clone()) {
                self.archive.file(&target.to_string_lossy(), 0o755, &fs::read(&library)?)?;
            }
        }
        Ok(())
    }

    /// systemd with D-Bus, and no more units than it takes.
    fn systemd(&mut self, root: &Path) -> Result<()> {
        for (program, needed) in SYSTEMD {
            // Debian 12 has some of them below /, later releases all below /usr.
            let found = ["", "usr"].map(|top| root.join(top).join(program)).into_iter().find(|path| path.is_file());
            match found {
                Some(path) => self.program(program, &path, Some(root))?,
                None => ensure!(!needed, "{program} is not in {}", root.display()),
            }
        }
        for (name, path) in files_below(&root.join("usr/share/dbus-1"))? {
            self.archive.file(&format!("usr/share/dbus-1/{name}"), 0o644, &fs::read(path)?)?;
        }
        let unit = |name: &str| format!("etc/systemd/system/{name}");
        for (name, text) in [
            ("default.target", include_str!("guest/default.target")),
            ("dbus.service", include_str!("guest/dbus.service")),
            ("dbus.socket", include_str!("guest/dbus.socket")),
            ("scenario.service", include_str!("guest/scenario.service")),
        ] {
            self.archive.file(&unit(name), 0o644, text.as_bytes())?;
        }
        self.archive.file("etc/machine-id", 0o444, b"00000000000000000000000000000001\n")?;
        self.archive.file("vm/systemd", 0o444, b"")?;
        Ok(())
    }
}

/// Regular files below a directory, with their names relative to it.
fn files_below(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else if path.is_file() {
                found.push((path.strip_prefix(directory)?.to_string_lossy().into_owned(), path));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A program of this host by name.
fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(["/usr/local/sbin", "/usr/sbin", "/sbin"]).map(PathBuf::from);
    let found = directories.map(|directory| directory.join(program)).find(|path| {
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    });
    found.with_context(|| format!("{program} is not on PATH: run `make deps`"))
}

/// A copy of a program without its debugging information: a fifth to carry.
fn stripped(program: &Path, beside: &Path) -> Result<PathBuf> {
    let copy = beside.with_extension("stripped");
    let status = Command::new("strip").arg("-o").arg(&copy).arg(program).status().context("run strip")?;
    ensure!(status.success(), "strip {}: {status}", program.display());
    Ok(copy)
}

/// Where Debian keeps libraries of systemd and of what it needs.
const LIBRARY_DIRECTORIES: [&str; 4] =
    ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/systemd", "lib/systemd"];

/// The libraries of a program: where the machine looks for them, and where they
/// are here. A static program has none.
fn libraries(program: &Path, root: Option<&Path>) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut command = Command::new("ldd");
    command.arg(program).env("LC_ALL", "C");
    if let Some(root) = root {
        command.env("LD_LIBRARY_PATH", std::env::join_paths(LIBRARY_DIRECTORIES.map(|part| root.join(part)))?);
    }
    let output = command.output().context("run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found = Vec::new();
    for line in text.lines() {
        if line.contains("not found") {
            bail!("{}: {}", program.display(), line.trim());
        }
        let path = line.split("=>").last().unwrap_or_default().split(" (0x").next().unwrap_or_default().trim();
        if !path.starts_with('/') || !line.contains(" (0x") {
            continue;
        }
        let path = PathBuf::from(path);
        let inside = root.and_then(|root| path.strip_prefix(root).ok());
        let target = inside.map_or_else(|| path.clone(), |inside| Path::new("/").join(inside));
        found.push((target, path));
    }
    Ok(found)
}
