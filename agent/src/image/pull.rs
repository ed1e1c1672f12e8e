//! Makes an image present by its pull policy, with events. Whether it may be
//! pulled now is its pod's worker's to know ([`crate::plan::memory`]).

use std::sync::Arc;
use std::time::Instant;

use cri::images::Reference;
use cri::types::{Image, SandboxConfig};
use cri::{CriError, ImageRef, ImageService};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use tokio::sync::Semaphore;

use super::access::PullSecret;
use super::records::{Look, Pull, PullRecords};
use super::{credentials, name};
use crate::convert::security::ImageUser;
use crate::convert::spec;
use crate::events::{EventRecorder, EventType};
use crate::ids::ObjectName;
use crate::objectcache::ObjectReader;
use crate::plan::effect::ImageFailure;

/// An image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnsuredImage {
    /// The local id to create containers from.
    pub id: ImageRef,
    pub user: ImageUser,
}

/// Why an image is not there. [`PullError::reason`] is what the container's
/// status shows.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PullError {
    #[error("Failed to apply default image tag \"{image}\": {source}")]
    InvalidName {
        image: String,
        #[source]
        source: name::BadName,
    },
    #[error("Container image \"{image}\" is not present with pull policy of Never")]
    NeverPull { image: String },
    #[error("Back-off pulling image \"{image}\": {last}")]
    BackOff { image: String, last: String },
    #[error("{message}")]
    Pull { message: String },
    #[error("Failed to inspect image \"{image}\": {source}")]
    Inspect {
        image: String,
        #[source]
        source: CriError,
    },
}

impl PullError {
    /// Upstream's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "InvalidImageName",
            Self::NeverPull { .. } => "ErrImageNeverPull",
            Self::BackOff { .. } => "ImagePullBackOff",
            Self::Pull { .. } => "ErrImagePull",
            Self::Inspect { .. } => "ImageInspectError",
        }
    }

    /// The same for who decides when to try again.
    pub fn failure(&self) -> ImageFailure {
        match self {
            Self::Pull { message } => ImageFailure::Pull(message.clone()),
            Self::BackOff { .. } => ImageFailure::BackOff,
            Self::Inspect { .. } => ImageFailure::Inspect,
            Self::InvalidName { .. } | Self::NeverPull { .. } => ImageFailure::Never,
        }
    }
}

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
enum PullFailure {
    #[error(transparent)]
    Runtime(#[from] CriError),
    #[error("failed to record image pull intent: {0}")]
    Record(std::io::Error),
}

/// Pulls images for pods.
#[derive(Debug)]
pub struct ImagePuller {
    images: Arc<dyn ImageService>,
    objects: Arc<dyn ObjectReader>,
    events: EventRecorder,
    records: Arc<PullRecords>,
    places: Option<Semaphore>,
}

impl ImagePuller {
    /// A puller; `parallel` is how many pulls run at a time.
    pub fn new(
        images: Arc<dyn ImageService>,
        objects: Arc<dyn ObjectReader>,
        events: EventRecorder,
        parallel: Option<usize>,
    ) -> Self {
        let places = parallel.map(|n| Semaphore::new(n.max(1)));
        Self { images, objects, events, records: Arc::default(), places }
    }

    /// With what is known of earlier pulls.
    #[must_use]
    pub fn with_records(self, records: Arc<PullRecords>) -> Self {
        Self { records, ..self }
    }

    /// The image of `container`, pulled when its policy says so or the pod has not shown that it may use the one that
    /// is here, unless a pull has to wait because the last one failed of `back_off`.
    pub async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        sandbox: &SandboxConfig,
        back_off: Option<&str>,
    ) -> Result<EnsuredImage, PullError> {
        let wanted = container.image.as_deref().unwrap_or_default();
        let named = name::with_tag(wanted).map_err(|source| {
            let error = PullError::InvalidName { image: wanted.to_owned(), source };
            self.events.container(pod, &container.name, EventType::Warning, "InspectFailed", error.to_string());
            error
        })?;
        let reference = ImageRef::new(&named);
        let policy = name::policy(container.image_pull_policy.as_deref(), &named);
        if policy != "Always"
            && let Some(image) = self.inspect(&reference).await?
            && self.may_use(pod, &reference, &image.id).await
        {
            let text =
                format!("Container image \"{wanted}\" already present on machine and can be accessed by the pod");
            self.events.container(pod, &container.name, EventType::Normal, "Pulled", text);
            return Ok(ensured(image));
        }
        if policy == "Never" {
            let error = PullError::NeverPull { image: wanted.to_owned() };
            self.events.container(pod, &container.name, EventType::Warning, "ErrImageNeverPull", error.to_string());
            return Err(error);
        }
        if let Some(last) = back_off {
            let text = format!("Back-off pulling image \"{wanted}\"");
            self.events.container(pod, &container.name, EventType::Normal, "BackOff", text);
            return Err(PullError::BackOff { image: wanted.to_owned(), last: format!("ErrImagePull: {last}") });
        }
        self.pull(pod, container, wanted, &reference, sandbox).await
    }

    /// Whether an image that is here is for this pod.
    async fn may_use(&self, pod: &Pod, reference: &ImageRef, id: &ImageRef) -> bool {
        // It is a name: a tag was added to it.
        let Ok(image) = Reference::parse(reference.as_str()) else { return false };
        if self.records.look(reference.as_str(), &image, id) == Look::Open {
            return true;
        }
        let secrets = self.secrets(pod).await;
        let borrowed: Vec<&Secret> = secrets.iter().map(Arc::as_ref).collect();
        let shown = credentials::for_image(&borrowed, reference.as_str());
        let shown: Vec<_> = shown.iter().map(|found| PullSecret::new(&found.secret.metadata, &found.auth)).collect();
        self.records.admits(&image, id, &shown).await
    }

    async fn inspect(&self, image: &ImageRef) -> Result<Option<Image>, PullError> {
        let failed = |source| PullError::Inspect { image: image.to_string(), source };
        self.images.image_status(image).await.map_err(failed)
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        wanted: &str,
        reference: &ImageRef,
        sandbox: &SandboxConfig,
    ) -> Result<EnsuredImage, PullError> {
        let events = &self.events;
        events.container(pod, &container.name, EventType::Normal, "Pulling", format!("Pulling image \"{wanted}\""));
        let asked = Instant::now();
        let _place = match &self.places {
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        let began = Instant::now();
        match self.begin_and_pull(pod, reference, sandbox).await {
            Ok((pull, id, by)) => {
                let image = self.inspect(&id).await?.or(self.inspect(reference).await?);
                if let Ok(read) = Reference::parse(reference.as_str()) {
                    pull.succeeded(&read, image.as_ref().map_or(&id, |image| &image.id), by.as_ref()).await;
                }
                let size = image.as_ref().map_or(0, |i| i.size);
                let text = format!(
                    "Successfully pulled image \"{wanted}\" in {:?} ({:?} including waiting). Image size: {size} bytes.",
                    began.elapsed(),
                    asked.elapsed()
                );
                events.container(pod, &container.name, EventType::Normal, "Pulled", text);
                Ok(image.map_or(EnsuredImage { id, user: ImageUser::default() }, ensured))
            }
            Err(error) => {
                let message = format!("failed to pull image \"{wanted}\": {error}");
                let text = format!("Failed to pull image \"{wanted}\": {error}");
                events.container(pod, &container.name, EventType::Warning, "Failed", text);
                Err(PullError::Pull { message })
            }
        }
    }

    /// Pulls an image: what is to be told what came of it, the local id, and the credential that it came by.
    async fn begin_and_pull(
        &self,
        pod: &Pod,
        reference: &ImageRef,
        sandbox: &SandboxConfig,
    ) -> Result<(Pull, ImageRef, Option<PullSecret>), PullFailure> {
        let pull = self.records.begin(reference.as_str()).await.map_err(PullFailure::Record)?;
        match self.pull_with_secrets(pod, reference, sandbox).await {
            Ok((id, by)) => Ok((pull, id, by)),
            Err(error) => {
                pull.failed().await;
                Err(error.into())
            }
        }
    }

    async fn secrets(&self, pod: &Pod) -> Vec<Arc<Secret>> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let mut secrets: Vec<Arc<Secret>> = Vec::new();
        for wanted in spec::spec(pod).image_pull_secrets.iter().flatten() {
            // A missing pull secret is no reason not to try without it.
            match self.objects.secret(&ObjectName::new(namespace, wanted.name.as_str())).await {
                Ok(secret) => secrets.push(secret),
                Err(error) => self.events.pod(
                    pod,
                    EventType::Warning,
                    "FailedToRetrieveImagePullSecret",
                    format!("Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed. ({error})", wanted.name),
                ),
            }
        }
        secrets
    }

    async fn pull_with_secrets(
        &self,
        pod: &Pod,
        reference: &ImageRef,
        sandbox: &SandboxConfig,
    ) -> Result<(ImageRef, Option<PullSecret>), CriError> {
        let secrets = self.secrets(pod).await;
        let borrowed: Vec<&Secret> = secrets.iter().map(Arc::as_ref).collect();
        let mut last = None;
        for found in credentials::for_image(&borrowed, reference.as_str()) {
            match self.images.pull_image(reference, Some(&found.auth), sandbox).await {
                Ok(id) => return Ok((id, Some(PullSecret::new(&found.secret.metadata, &found.auth)))),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error),
            None => Ok((self.images.pull_image(reference, None, sandbox).await?, None)),
        }
    }
}

fn ensured(image: Image) -> EnsuredImage {
    EnsuredImage { id: image.id, user: ImageUser { uid: image.uid, username: image.username } }
}

#[cfg(test)]
mod tests;
