//! Bundles into containerd: blobs into its content store, names into its image
//! store, under a lease that keeps the garbage collector away meanwhile.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteRequest, GetImageRequest, Image, UpdateImageRequest, WriteAction,
    WriteContentRequest, WriteContentResponse,
};
use containerd_client::types::Descriptor;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use super::oci::{Blob, Bundle, Source};
use super::{ImportError, LABEL_MANAGED, reference};
use crate::channel::Call;
use crate::client::CriClient;
use crate::error::{CriError, Result};
use crate::id::ImageRef;
use crate::namespace;
use crate::service::ImageService;

/// Bytes in one message; containerd takes up to 16 MiB.
const CHUNK: usize = 1 << 20;
/// After this an interrupted import no longer keeps its blobs.
const LEASE_LIFETIME: Duration = Duration::from_secs(3600);
/// How long CRI may take to notice a new image.
const NOTICE_LIMIT: Duration = Duration::from_secs(30);

/// Brings a bundle in and waits until CRI has all its names.
pub(super) async fn import(client: &CriClient, bundle: Bundle) -> std::result::Result<(), ImportError> {
    let image = bundle.names.first().cloned().unwrap_or_default();
    let failed = |source| ImportError::Runtime { image: image.clone(), source };
    if is_complete(client, &bundle).await.map_err(failed)? {
        return Ok(());
    }
    let lease = Lease::create(client, &bundle.config_digest).await.map_err(failed)?;
    let written = write_all(client, &lease, &bundle).await;
    let deleted = lease.delete(client).await;
    written.and(deleted).map_err(failed)?;
    noticed(client, &bundle).await.map_err(failed)
}

/// Every name an image has: its id first, since CRI resolves the others to it.
fn all_names(bundle: &Bundle) -> Vec<String> {
    let mut names = vec![bundle.config_digest.clone()];
    for name in &bundle.names {
        let digest = format!("{}@{}", reference::repository(name), bundle.target.digest);
        names.extend([name.clone(), digest].into_iter().filter(|n| !names.contains(n)).collect::<Vec<_>>());
    }
    names
}

/// Whether CRI already has the image under every name.
async fn is_complete(client: &CriClient, bundle: &Bundle) -> Result<bool> {
    for name in &bundle.names {
        let found = client.image_status(&ImageRef::new(name)).await?;
        if found.is_none_or(|image| image.id.as_str() != bundle.config_digest) {
            return Ok(false);
        }
        let digest = format!("{}@{}", reference::repository(name), bundle.target.digest);
        if client.image_status(&ImageRef::new(digest)).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn write_all(client: &CriClient, lease: &Lease, bundle: &Bundle) -> Result<()> {
    for blob in &bundle.blobs {
        write_blob(client, lease, blob).await?;
    }
    let labels: HashMap<String, String> =
        bundle.labels.iter().chain([&LABEL_MANAGED]).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let target = Descriptor {
        media_type: bundle.target.media_type.clone(),
        digest: bundle.target.digest.clone(),
        size: i64::try_from(bundle.target.size).unwrap_or(i64::MAX),
        annotations: HashMap::new(),
    };
    for name in all_names(bundle) {
        let image = Image { name, labels: labels.clone(), target: Some(target.clone()), ..Default::default() };
        put_image(client, image).await?;
    }
    Ok(())
}

async fn put_image(client: &CriClient, image: Image) -> Result<()> {
    let mut images = ImagesClient::new(client.channel.clone());
    let call = Call::new("CreateImage", &image.name, client.deadlines.request);
    let create = CreateImageRequest { image: Some(image.clone()), ..Default::default() };
    match call.send(images.create(namespace::request(create))).await {
        Ok(_) => return Ok(()),
        Err(e) if e.is_already_exists() => {}
        Err(e) => return Err(e),
    }
    let get = GetImageRequest { name: image.name.clone() };
    let present = call.send(images.get(namespace::request(get))).await?;
    // An update without a change would only make everybody look again.
    if present.image.is_some_and(|p| p.target == image.target && p.labels == image.labels) {
        return Ok(());
    }
    let update = UpdateImageRequest { image: Some(image), ..Default::default() };
    call.send(images.update(namespace::request(update))).await.map(drop)
}

/// containerd's lease: what is written under it stays until the lease goes.
struct Lease(String);

impl Lease {
    async fn create(client: &CriClient, what: &str) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("copepod-import-{}-{}", what.trim_start_matches("sha256:"), now.as_nanos());
        let expires = jiff::Timestamp::now() + LEASE_LIFETIME;
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires.to_string())]);
        let call = Call::new("CreateLease", &id, client.deadlines.request);
        let request = namespace::request(CreateRequest { id: id.clone(), labels });
        call.send(LeasesClient::new(client.channel.clone()).create(request)).await?;
        Ok(Self(id))
    }

    async fn delete(&self, client: &CriClient) -> Result<()> {
        let call = Call::new("DeleteLease", &self.0, client.deadlines.request);
        let request = namespace::request(DeleteRequest { id: self.0.clone(), sync: false });
        match call.send(LeasesClient::new(client.channel.clone()).delete(request)).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = namespace::request(message);
        let id = MetadataValue::try_from(self.0.as_str()).map_err(|e| CriError::InvalidArgument {
            op: "WriteContent",
            object: self.0.clone(),
            message: e.to_string(),
        })?;
        request.metadata_mut().insert("containerd-lease", id);
        Ok(request)
    }
}

/// Writes a blob, from where an interrupted write stopped. Present ones stay.
async fn write_blob(client: &CriClient, lease: &Lease, blob: &Blob) -> Result<()> {
    let call = Call::new("WriteContent", &blob.digest, client.deadlines.pull_image);
    let mut content = ContentClient::new(client.channel.clone());
    let (sender, receiver) = mpsc::channel(1);
    let request = lease.request(ReceiverStream::new(receiver))?;
    let writing = async {
        let begin = message(blob, WriteAction::Stat, 0, Vec::new());
        // The receiver lives in the request; a failed send shows in the answer.
        let _ = sender.send(begin).await;
        let mut answers = content.write(request).await?.into_inner();
        let begun = answers.message().await?.ok_or_else(|| Status::unavailable("the answer is missing"))?;
        feed(blob, begun.offset, &sender, &mut answers).await?;
        Ok(tonic::Response::new(()))
    };
    match call.send(writing).await {
        Err(e) if e.is_already_exists() => Ok(()),
        other => other,
    }
}

fn message(blob: &Blob, action: WriteAction, offset: i64, data: Vec<u8>) -> WriteContentRequest {
    let labels = match action {
        WriteAction::Commit => {
            blob.refers.iter().map(|(k, v)| (format!("containerd.io/gc.ref.content.{k}"), v.clone())).collect()
        }
        _ => HashMap::new(),
    };
    WriteContentRequest {
        action: action.into(),
        r#ref: format!("copepod-{}", blob.digest),
        total: i64::try_from(blob.size).unwrap_or(i64::MAX),
        expected: blob.digest.clone(),
        offset,
        data,
        labels,
    }
}

async fn feed(
    blob: &Blob,
    mut offset: i64,
    sender: &mpsc::Sender<WriteContentRequest>,
    answers: &mut tonic::Streaming<WriteContentResponse>,
) -> std::result::Result<(), Status> {
    let mut reader = Reader::open(blob, offset).map_err(|e| Status::aborted(e.to_string()))?;
    loop {
        let chunk;
        (reader, chunk) = reader.chunk().await?;
        let last = chunk.is_empty();
        let (action, step) = if last { (WriteAction::Commit, 0) } else { (WriteAction::Write, chunk.len()) };
        let _ = sender.send(message(blob, action, offset, chunk)).await;
        offset += i64::try_from(step).unwrap_or(i64::MAX);
        answers.message().await?.ok_or_else(|| Status::unavailable("the answer is missing"))?;
        if last {
            return Ok(());
        }
    }
}

/// A blob's bytes from some offset on.
struct Reader {
    from: Box<dyn Read + Send>,
}

impl Reader {
    fn open(blob: &Blob, offset: i64) -> std::io::Result<Self> {
        let skip = u64::try_from(offset).unwrap_or(0).min(blob.size);
        let from: Box<dyn Read + Send> = match &blob.source {
            Source::Memory(bytes) => {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                Box::new(std::io::Cursor::new(bytes.get(skip..).unwrap_or_default().to_vec()))
            }
            Source::File { path, offset } => {
                let mut file = std::fs::File::open(path)?;
                file.seek(SeekFrom::Start(offset + skip))?;
                Box::new(file.take(blob.size - skip))
            }
        };
        Ok(Self { from })
    }

    /// The next stretch; empty at the end.
    async fn chunk(mut self) -> std::result::Result<(Self, Vec<u8>), Status> {
        let reading = tokio::task::spawn_blocking(move || {
            let mut data = Vec::new();
            let limit = u64::try_from(CHUNK).unwrap_or(u64::MAX);
            self.from.by_ref().take(limit).read_to_end(&mut data).map(|_| (self, data))
        });
        let read = reading.await.map_err(|e| Status::new(Code::Aborted, e.to_string()))?;
        read.map_err(|e| Status::new(Code::Aborted, e.to_string()))
    }
}

/// Waits until CRI has taken note, which it does by containerd's events.
async fn noticed(client: &CriClient, bundle: &Bundle) -> Result<()> {
    let end = Instant::now() + NOTICE_LIMIT;
    while !is_complete(client, bundle).await? {
        if Instant::now() > end {
            let object = bundle.names.join(", ");
            return Err(CriError::DeadlineExceeded { op: "ImageStatus", object, deadline: NOTICE_LIMIT });
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
