//! [`ImageService`] over gRPC.

use async_trait::async_trait;
use k8s_cri::v1;

use super::CriClient;
use crate::channel::Call;
use crate::convert::{request, response};
use crate::error::Result;
use crate::id::ImageRef;
use crate::service::ImageService;
use crate::types::{AuthConfig, FilesystemUsage, Image, SandboxConfig};

#[async_trait]
impl ImageService for CriClient {
    async fn list_images(&self) -> Result<Vec<Image>> {
        let call = Call::new("ListImages", "", self.deadlines.request);
        let answer = call.send(self.images().list_images(v1::ListImagesRequest { filter: None })).await?;
        let items: std::result::Result<_, _> = answer.images.into_iter().map(response::image).collect();
        items.map_err(|e| call.malformed(e))
    }

    async fn image_status(&self, image: &ImageRef) -> Result<Option<Image>> {
        let call = Call::new("ImageStatus", image, self.deadlines.request);
        let message = v1::ImageStatusRequest { image: Some(request::image_spec(image.as_str(), "")), verbose: false };
        let answer = match call.send(self.images().image_status(message)).await {
            Err(e) if e.is_not_found() => return Ok(None),
            other => other?,
        };
        answer.image.map(response::image).transpose().map_err(|e| call.malformed(e))
    }

    async fn pull_image(
        &self,
        image: &ImageRef,
        auth: Option<&AuthConfig>,
        sandbox_config: &SandboxConfig,
    ) -> Result<ImageRef> {
        let call = Call::new("PullImage", image, self.deadlines.pull_image);
        let message = v1::PullImageRequest {
            image: Some(request::image_spec(image.as_str(), "")),
            auth: auth.map(request::auth),
            sandbox_config: Some(request::sandbox_config(sandbox_config)),
        };
        let answer = call.send(self.images().pull_image(message)).await?;
        response::image_ref(answer.image_ref).map_err(|e| call.malformed(e))
    }

    async fn remove_image(&self, image: &ImageRef) -> Result<()> {
        let call = Call::new("RemoveImage", image, self.deadlines.request);
        let message = v1::RemoveImageRequest { image: Some(request::image_spec(image.as_str(), "")) };
        match call.send(self.images().remove_image(message)).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn image_fs_info(&self) -> Result<Vec<FilesystemUsage>> {
        let call = Call::new("ImageFsInfo", "", self.deadlines.request);
        let answer = call.send(self.images().image_fs_info(v1::ImageFsInfoRequest {})).await?;
        let items: std::result::Result<_, _> = answer.image_filesystems.into_iter().map(response::filesystem).collect();
        items.map_err(|e| call.malformed(e))
    }
}
