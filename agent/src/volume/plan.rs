//! What each volume of a pod is made of, decided from the spec alone. Pure.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, EmptyDirVolumeSource, KeyToPath, Pod,
    ProjectedVolumeSource, ResourceFieldSelector, SecretProjection, ServiceAccountTokenProjection, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::convert::quantity;

/// One volume and how to bring it up.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumePlan {
    pub name: String,
    pub source: Source,
}

/// Kinds of volumes this node sets up.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    EmptyDir(EmptyDir),
    HostPath { path: String, kind: HostPathKind },
    Projected(Projected),
}

/// A scratch directory.
#[derive(Clone, Debug, PartialEq)]
pub struct EmptyDir {
    pub medium: Medium,
    /// Bytes.
    pub size_limit: Option<u64>,
}

/// What holds a scratch directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    Disk,
    Memory,
    /// Page size in bytes, or the kernel's default.
    HugePages(Option<u64>),
}

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPathKind {
    Unset,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// Files made from API objects, swapped atomically.
#[derive(Clone, Debug, PartialEq)]
pub struct Projected {
    /// Directory name of the upstream plugin, such as `kubernetes.io~secret`.
    pub plugin: &'static str,
    /// Whether the files live on a tmpfs.
    pub memory: bool,
    /// Mode bits of files that set none.
    pub default_mode: u32,
    pub parts: Vec<Part>,
}

/// One source of files.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    ConfigMap(ObjectPart),
    Secret(ObjectPart),
    Downward(Vec<DownwardItem>),
    Token(TokenPart),
}

/// Keys of a ConfigMap or Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPart {
    pub name: String,
    /// Empty takes every key under its own name.
    pub items: Vec<Item>,
    pub optional: bool,
}

/// One key, its path and its mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub key: String,
    pub path: String,
    pub mode: Option<u32>,
}

/// One file of the downward API.
#[derive(Clone, Debug, PartialEq)]
pub struct DownwardItem {
    pub path: String,
    pub mode: Option<u32>,
    pub what: DownwardValue,
}

/// Where a downward API file's content comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum DownwardValue {
    Field(String),
    Resource(ResourceFieldSelector),
}

/// A service-account token bound to the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPart {
    pub audience: Option<String>,
    /// Seconds.
    pub expiration: i64,
    pub path: String,
}

/// A volume that cannot be planned, for the `FailedMount` event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PlanError {
    pub volume: String,
    pub message: String,
}

/// Plans every volume of the pod, in the order of the spec.
pub fn plan(pod: &Pod) -> Result<Vec<VolumePlan>, PlanError> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    volumes.iter().map(plan_volume).collect()
}

fn plan_volume(volume: &Volume) -> Result<VolumePlan, PlanError> {
    let fail = |message: String| PlanError { volume: volume.name.clone(), message };
    if !is_plain_name(&volume.name) {
        return Err(fail("the volume's name is not a DNS label".into()));
    }
    let source = source(volume).map_err(fail)?;
    Ok(VolumePlan { name: volume.name.clone(), source })
}

/// Whether a text can be one path component: names come from objects, and a
/// static pod's file passes no validation upstream of here.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn source(volume: &Volume) -> Result<Source, String> {
    if let Some(source) = &volume.empty_dir {
        return empty_dir(source).map(Source::EmptyDir);
    }
    if let Some(source) = &volume.host_path {
        let kind = host_path_kind(source.type_.as_deref().unwrap_or_default())?;
        return Ok(Source::HostPath { path: source.path.clone(), kind });
    }
    let projected = |plugin, memory, mode: Option<i32>, parts| -> Result<Source, String> {
        let default_mode = checked_mode(mode)?.unwrap_or(0o644);
        Ok(Source::Projected(Projected { plugin, memory, default_mode, parts }))
    };
    if let Some(source) = &volume.config_map {
        let part = object(&source.name, source.items.as_deref(), source.optional)?;
        return projected("kubernetes.io~configmap", false, source.default_mode, vec![Part::ConfigMap(part)]);
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let part = object(name, source.items.as_deref(), source.optional)?;
        return projected("kubernetes.io~secret", true, source.default_mode, vec![Part::Secret(part)]);
    }
    if let Some(source) = &volume.downward_api {
        let part = Part::Downward(downward(source.items.as_deref().unwrap_or_default())?);
        return projected("kubernetes.io~downward-api", true, source.default_mode, vec![part]);
    }
    if let Some(source) = &volume.projected {
        return projected("kubernetes.io~projected", true, source.default_mode, parts(source)?);
    }
    Err(format!("{} volumes are not supported by this node", other_kind(volume)))
}

fn empty_dir(source: &EmptyDirVolumeSource) -> Result<EmptyDir, String> {
    let medium = match source.medium.as_deref().unwrap_or_default() {
        "" => Medium::Disk,
        "Memory" => Medium::Memory,
        "HugePages" => Medium::HugePages(None),
        other => match other.strip_prefix("HugePages-").and_then(bytes) {
            Some(size) => Medium::HugePages(Some(size)),
            None => return Err(format!("unknown storage medium {other:?}")),
        },
    };
    let size_limit = match &source.size_limit {
        Some(limit) => Some(bytes(&limit.0).ok_or_else(|| format!("sizeLimit {:?} is no quantity", limit.0))?),
        None => None,
    };
    Ok(EmptyDir { medium, size_limit: size_limit.filter(|limit| *limit > 0) })
}

/// A quantity of bytes; text that is none, or negative, is `None`.
pub fn bytes(text: &str) -> Option<u64> {
    quantity::nanos(text)?;
    u64::try_from(quantity::value(&Quantity(text.to_owned()))).ok()
}

fn host_path_kind(kind: &str) -> Result<HostPathKind, String> {
    Ok(match kind {
        "" => HostPathKind::Unset,
        "DirectoryOrCreate" => HostPathKind::DirectoryOrCreate,
        "Directory" => HostPathKind::Directory,
        "FileOrCreate" => HostPathKind::FileOrCreate,
        "File" => HostPathKind::File,
        "Socket" => HostPathKind::Socket,
        "CharDevice" => HostPathKind::CharDevice,
        "BlockDevice" => HostPathKind::BlockDevice,
        other => return Err(format!("{other} is an invalid volume type")),
    })
}

fn checked_mode(mode: Option<i32>) -> Result<Option<u32>, String> {
    match mode {
        None => Ok(None),
        Some(mode) => match u32::try_from(mode) {
            Ok(mode) if mode <= 0o777 => Ok(Some(mode)),
            _ => Err(format!("mode {mode} is not between 0 and 0777")),
        },
    }
}

/// Checks a file's path: relative, without `..`, not in the swapper's way.
pub fn check_path(path: &str) -> Result<(), String> {
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

fn items(items: &[KeyToPath]) -> Result<Vec<Item>, String> {
    let item = |item: &KeyToPath| {
        check_path(&item.path)?;
        Ok(Item { key: item.key.clone(), path: item.path.clone(), mode: checked_mode(item.mode)? })
    };
    items.iter().map(item).collect()
}

fn object(name: &str, keys: Option<&[KeyToPath]>, optional: Option<bool>) -> Result<ObjectPart, String> {
    Ok(ObjectPart {
        name: name.to_owned(),
        items: items(keys.unwrap_or_default())?,
        optional: optional.unwrap_or(false),
    })
}

fn downward(files: &[DownwardAPIVolumeFile]) -> Result<Vec<DownwardItem>, String> {
    let file = |file: &DownwardAPIVolumeFile| {
        check_path(&file.path)?;
        let what = match (&file.field_ref, &file.resource_field_ref) {
            (Some(field), _) => DownwardValue::Field(field.field_path.clone()),
            (None, Some(resource)) => DownwardValue::Resource(resource.clone()),
            (None, None) => return Err(format!("downward API file {:?} names no field", file.path)),
        };
        Ok(DownwardItem { path: file.path.clone(), mode: checked_mode(file.mode)?, what })
    };
    files.iter().map(file).collect()
}

fn parts(source: &ProjectedVolumeSource) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    for projection in source.sources.iter().flatten() {
        if let Some(ConfigMapProjection { items, name, optional }) = &projection.config_map {
            parts.push(Part::ConfigMap(object(name, items.as_deref(), *optional)?));
        } else if let Some(SecretProjection { items, name, optional }) = &projection.secret {
            parts.push(Part::Secret(object(name, items.as_deref(), *optional)?));
        } else if let Some(DownwardAPIProjection { items }) = &projection.downward_api {
            parts.push(Part::Downward(downward(items.as_deref().unwrap_or_default())?));
        } else if let Some(token) = &projection.service_account_token {
            parts.push(Part::Token(token_part(token)?));
        } else if projection.cluster_trust_bundle.is_some() {
            return Err("clusterTrustBundle sources are not supported by this node".into());
        } else if projection.pod_certificate.is_some() {
            return Err("podCertificate sources are not supported by this node".into());
        }
    }
    Ok(parts)
}

fn token_part(token: &ServiceAccountTokenProjection) -> Result<TokenPart, String> {
    check_path(&token.path)?;
    Ok(TokenPart {
        audience: token.audience.clone().filter(|a| !a.is_empty()),
        expiration: token.expiration_seconds.unwrap_or(3600),
        path: token.path.clone(),
    })
}

fn other_kind(volume: &Volume) -> &'static str {
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
pub fn fs_group(pod: &Pod) -> Option<u32> {
    pod.spec.as_ref()?.security_context.as_ref()?.fs_group.and_then(|id| u32::try_from(id).ok())
}

/// The user all containers run as, if it is one and set: the owner of tokens.
pub fn fs_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let pod_user = spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = containers.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(pod_user));
    let first = users.next()??;
    if users.all(|user| user == Some(first)) { u32::try_from(first).ok() } else { None }
}

#[cfg(test)]
mod tests;
