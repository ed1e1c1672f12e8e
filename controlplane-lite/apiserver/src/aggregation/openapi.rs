//! What servers of aggregated APIs add to the OpenAPI documents: entries of version 3's root, whose documents are
//! theirs to send, and their part of version 2's one document
//! (k8s.io/kube-aggregator/pkg/controllers/openapi and openapiv3).

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::Known;
use crate::documents::Document;
use crate::server::Server;
use crate::status::ApiError;
use scheme::Scheme;
use scheme::apiregistration::group_version;
use scheme::openapi::{self, Part};

/// The parts of all servers, of one moment.
#[derive(Debug)]
pub struct Parts {
    scheme: Arc<Scheme>,
    known: Arc<HashMap<String, Known>>,
    v2: OnceCell<Document>,
}

impl Parts {
    /// Nothing when no server has any.
    pub(super) fn new(scheme: &Arc<Scheme>, known: Arc<HashMap<String, Known>>) -> Option<Self> {
        let any = known.values().any(|known| known.v3.is_some() || known.v2.is_some());
        any.then(|| Self { scheme: scheme.clone(), known, v2: OnceCell::new() })
    }

    /// Whether they are still these.
    pub(super) fn is_of(&self, scheme: &Arc<Scheme>, known: &Arc<HashMap<String, Known>>) -> bool {
        Arc::ptr_eq(&self.scheme, scheme) && Arc::ptr_eq(&self.known, known)
    }

    /// Version 3's root with them.
    ///
    /// # Errors
    /// 500 when it is no document.
    pub fn root(&self, own: &Document) -> Result<Document, ApiError> {
        let mut root: Value = serde_json::from_slice(&own.unpack()?).map_err(ApiError::internal)?;
        for (name, known) in &*self.known {
            if let (Some(url), (group, version)) = (&known.v3, group_version(name)) {
                root["paths"][format!("apis/{group}/{version}")] = json!({"serverRelativeURL": url});
            }
        }
        Document::pack(&root.to_string().into_bytes())
    }

    /// Version 2's document with them; made once.
    ///
    /// # Errors
    /// 500 when it cannot be made.
    pub async fn v2(&self, server: &Server) -> Result<Document, ApiError> {
        let build = || async {
            let mut parts: Vec<(&String, Arc<Part>)> =
                self.known.iter().filter_map(|(name, known)| Some((name, known.v2.clone()?))).collect();
            parts.sort_by_key(|(name, _)| *name);
            let parts: Vec<Arc<Part>> = parts.into_iter().map(|(_, part)| part).collect();
            let scheme = self.scheme.clone();
            let merged = async move {
                let mut document = openapi::v2_document(&scheme);
                parts.iter().for_each(|part| part.add_to(&mut document));
                Document::pack(&document.to_string().into_bytes())
            };
            server.flow.apart(merged).await?
        };
        self.v2.get_or_try_init(build).await.cloned()
    }
}
