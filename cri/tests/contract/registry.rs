//! A registry of one image on the loopback, without TLS, that lets one user in.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use cri::ImageRef;
use cri::types::AuthConfig;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The user's name and password as HTTP's basic authentication says them.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Serves until it is dropped.
pub struct Registry {
    port: u16,
    task: JoinHandle<()>,
}

/// By the end of their paths: media type and bytes.
type Content = BTreeMap<String, (&'static str, Bytes)>;

impl Registry {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (port, content) = (listener.local_addr()?.port(), Arc::new(content()?));
        Ok(Self { port, task: tokio::spawn(serve(listener, content)) })
    }

    pub fn image(&self) -> ImageRef {
        ImageRef::new(format!("127.0.0.1:{}/team/private:1", self.port))
    }

    pub fn user() -> AuthConfig {
        AuthConfig { username: "user".to_owned(), password: "secret".to_owned() }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image with one file.
fn content() -> Result<Content> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    layer.append_data(&mut header, "file", &b""[..])?;
    let layer = layer.into_inner()?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = config.to_string().into_bytes();
    let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": describe(CONFIG, &config), "layers": [describe(LAYER, &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let by_digest = format!("manifests/{}", digest(&manifest));
    let blobs = [(CONFIG, config), (LAYER, layer)].map(|(kind, b)| (format!("blobs/{}", digest(&b)), (kind, b.into())));
    let mut all = Content::from(blobs);
    all.insert("manifests/1".to_owned(), (MANIFEST, manifest.clone().into()));
    all.insert(by_digest, (MANIFEST, manifest.into()));
    Ok(all)
}

async fn serve(listener: TcpListener, content: Arc<Content>) {
    while let Ok((stream, _)) = listener.accept().await {
        let content = content.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let answer = answer(&request, &content);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn answer(request: &Request<Incoming>, content: &Content) -> Response<Full<Bytes>> {
    let with = |status: StatusCode, name, value: &'static str, body: Bytes| {
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
        response
    };
    if request.headers().get(AUTHORIZATION).is_none_or(|given| given != BASIC) {
        return with(StatusCode::UNAUTHORIZED, WWW_AUTHENTICATE, "Basic realm=\"private\"", Bytes::new());
    }
    match request.uri().path().strip_prefix("/v2/team/private/").and_then(|end| content.get(end)) {
        Some((kind, bytes)) => with(StatusCode::OK, CONTENT_TYPE, kind, bytes.clone()),
        None => with(StatusCode::NOT_FOUND, CONTENT_TYPE, "text/plain", Bytes::new()),
    }
}
