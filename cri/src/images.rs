//! The images that are part of this program, and images out of archives.
//!
//! Two programs are compiled with this crate: `pause`, which holds a sandbox
//! together, and `demo`, a workload for examples and tests. They become OCI
//! images at run time and reach containerd through its content and image
//! services, so that a machine without a registry has something to run.
//!
//! CRI learns of new images by containerd's events; the functions here return
//! when CRI lists them.

pub(crate) mod archive;
mod import;
pub(crate) mod oci;
pub(crate) mod reference;

use std::io::{self, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use crate::client::CriClient;
use crate::error::CriError;
pub use reference::{DEFAULT_DOMAIN, Reference, normalize as normalize_reference};

/// The pause image: every sandbox's own process.
pub const PAUSE: &str = concat!("copepod.local/pause:", env!("CARGO_PKG_VERSION"));
/// The demo image.
pub const DEMO: &str = "copepod.local/demo:latest";

/// Marks an image as CRI's own business.
pub const LABEL_MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// Keeps an image from being collected as garbage (containerd 1.7 and later).
pub const LABEL_PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// Names that lead to `demo`, which looks at the name it is called by.
const DEMO_LINKS: &[&str] = &[
    "cat", "dns", "echo", "env", "exit", "false", "hostname", "http-get", "id", "log", "ls", "mkdir", "resolve", "rm",
    "sleep", "stat", "tar", "tcp-send", "test", "true", "tty", "udp-send", "write",
];

static PAUSE_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause.gz"));
static DEMO_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo.gz"));

/// Why an image did not get into the runtime.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The archive cannot be read.
    #[error("read image archive {path}")]
    Read { path: String, source: io::Error },
    /// The archive is no image archive, or a broken one.
    #[error("image archive {path}: {problem}")]
    Archive { path: String, problem: String },
    /// The archive does not say what its image is called, or says it wrongly.
    #[error("image archive {path}: {problem}; give the image a name")]
    Name { path: String, problem: String },
    /// The embedded program is damaged.
    #[error("unpack the built-in image {image}")]
    Builtin { image: &'static str, source: io::Error },
    /// The runtime refused.
    #[error("import image {image}")]
    Runtime { image: String, source: CriError },
}

/// The pause and demo images, unpacked and packed as layers, which takes some
/// twenty milliseconds of a processor.
#[derive(Debug)]
pub struct Builtin(Vec<oci::Bundle>);

impl Builtin {
    /// Makes them.
    ///
    /// # Errors
    /// When an embedded program is damaged.
    pub fn make() -> Result<Self, ImportError> {
        let made = BUILTIN.iter().map(|(name, build)| {
            let built = build();
            built.map_err(|source| ImportError::Builtin { image: name, source })
        });
        made.collect::<Result<_, _>>().map(Self)
    }

    /// Imports them where they are missing. Idempotent, and safe to repeat after
    /// an interruption.
    ///
    /// # Errors
    /// When the runtime refuses.
    pub async fn import(self, client: &CriClient) -> Result<(), ImportError> {
        let imports = self.0.into_iter().map(|bundle| import::import(client, bundle));
        futures::future::try_join_all(imports).await.map(drop)
    }
}

/// Makes the pause and demo images and imports them where they are missing.
///
/// # Errors
/// As [`Builtin`].
pub async fn import_builtin(client: &CriClient) -> Result<(), ImportError> {
    Builtin::make()?.import(client).await
}

type Build = fn() -> io::Result<oci::Bundle>;
const BUILTIN: [(&str, Build); 2] = [(PAUSE, pause), (DEMO, demo)];

/// Whether `name` is one of the images that are part of this program. No
/// registry has them, and containerd before 1.7 cannot be told to keep them.
pub fn is_builtin(name: &str) -> bool {
    BUILTIN.iter().any(|(builtin, _)| *builtin == name)
}

fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut program = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut program)?;
    Ok(program)
}

/// The demo program itself, for tests of its tools outside containers.
#[cfg(any(test, feature = "testing"))]
pub fn demo_program() -> io::Result<Vec<u8>> {
    unpack(DEMO_PROGRAM)
}

fn pause() -> io::Result<oci::Bundle> {
    let program = unpack(PAUSE_PROGRAM)?;
    let files = [oci::File::program("pause", &program)];
    let image = oci::Image { entrypoint: &["/pause"], cmd: &[], env: &[], files: &files };
    let mut bundle = oci::bundle(PAUSE, &image)?;
    bundle.labels.push(LABEL_PINNED);
    Ok(bundle)
}

fn demo() -> io::Result<oci::Bundle> {
    let program = unpack(DEMO_PROGRAM)?;
    let mut files = vec![oci::File::directory("bin", 0o755), oci::File::program("bin/demo", &program)];
    let links: Vec<_> = DEMO_LINKS.iter().map(|name| format!("bin/{name}")).collect();
    files.extend(links.iter().map(|path| oci::File::link(path, "demo")));
    files.extend([
        oci::File::directory("etc", 0o755),
        oci::File::text("etc/passwd", "root:x:0:0:root:/:\ndemo:x:1000:1000:demo:/:\nnobody:x:65534:65534:nobody:/:\n"),
        oci::File::text("etc/group", "root:x:0:\ndemo:x:1000:\nnobody:x:65534:\n"),
        oci::File::directory("tmp", 0o1777),
    ]);
    let image = oci::Image { entrypoint: &["/bin/demo"], cmd: &["serve"], env: &["PATH=/bin"], files: &files };
    oci::bundle(DEMO, &image)
}

/// Imports every image of an archive: `docker save`'s format or an OCI image
/// layout, as a plain tar file. `name` names an image whose archive does not.
/// Returns the images' full names.
pub async fn import_tar(client: &CriClient, path: &Path, name: Option<&str>) -> Result<Vec<String>, ImportError> {
    let owned = path.to_owned();
    let wanted = name.map(str::to_owned);
    let reading = tokio::task::spawn_blocking(move || archive::read(&owned, wanted.as_deref()));
    let bundles = reading
        .await
        .map_err(|e| ImportError::Read { path: path.display().to_string(), source: io::Error::other(e) })??;
    let mut names = Vec::new();
    for bundle in bundles {
        names.extend(bundle.names.clone());
        import::import(client, bundle).await?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
