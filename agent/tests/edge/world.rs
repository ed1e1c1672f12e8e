//! One pod on a runtime, the server over it, and certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::config::{Authorization, ServerSettings};
use agent::events::EventRecorder;
use agent::ids::{ObjectName, PodUid};
use agent::podcache::{PodCache, RuntimePod};
use agent::probe::ProbeManager;
use agent::server::{self, PodView, ServerState};
use anyhow::Result;
use cri::types::{
    ContainerConfig, ContainerFilter, ContainerMetadata, NamespaceMode, NamespaceOptions, SandboxConfig,
    SandboxMetadata,
};
use cri::{ContainerId, RuntimeService, SandboxId, images};
use k8s_openapi::api::core::v1::Pod;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::front::{self, Front};
use crate::suite::{Runtime, World};

pub const UID: &str = "0123-edge";
pub const TCP_PORT: u16 = 9000;

#[derive(Debug)]
struct OnePod(Arc<Pod>);

impl PodView for OnePod {
    fn pods(&self) -> Vec<Arc<Pod>> {
        vec![self.0.clone()]
    }

    fn pod(&self, name: &ObjectName) -> Option<Arc<Pod>> {
        (*name == ObjectName::of_pod(&self.0)).then(|| self.0.clone())
    }
}

/// How to reach the kubelet.
#[derive(Clone)]
pub struct Kubelet {
    pub port: u16,
    trusted: TlsConnector,
    stranger: TlsConnector,
}

impl Kubelet {
    pub async fn connect(&self, trusted: bool) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let connector = if trusted { &self.trusted } else { &self.stranger };
        Ok(connector.connect(ServerName::try_from("127.0.0.1")?, stream).await?)
    }
}

pub struct Edge {
    pub kubelet: Kubelet,
    pub front: Front,
    pub client: Arc<dyn RuntimeService>,
    pub cache: Arc<PodCache>,
    runtime: Runtime,
    sandbox: SandboxId,
    sandbox_config: SandboxConfig,
    token: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

fn in_node_network() -> NamespaceOptions {
    NamespaceOptions { network: NamespaceMode::Node, ..NamespaceOptions::default() }
}

impl World for Edge {
    const NAME: &str = "edge";

    async fn start(runtime: Runtime, cgroup: &str) -> Result<Self> {
        let client: Arc<dyn RuntimeService> = runtime.client.clone();
        let logs = runtime.directory.path().join("logs");
        std::fs::create_dir_all(&logs)?;
        let mut sandbox_config = SandboxConfig {
            metadata: SandboxMetadata { name: "p".into(), uid: UID.into(), namespace: "ns".into(), attempt: 0 },
            log_directory: logs.display().to_string(),
            cgroup_parent: format!("{cgroup}/p"),
            ..SandboxConfig::default()
        };
        sandbox_config.security.namespaces = in_node_network();
        let sandbox = client.run_pod_sandbox(&sandbox_config, "").await?;
        let cache = Arc::new(PodCache::new());
        let token = CancellationToken::new();
        let pod = pod()?;
        let (kubelet, server) = serve(runtime.directory.path(), &pod, &client, &cache, &token).await?;
        let front = front::serve(kubelet.clone(), pod).await?;
        let world = Self { kubelet, front, client, cache, runtime, sandbox, sandbox_config, token, server };
        let web = ["serve", "--http", "off", "--tcp", "9000", "--udp", "off"];
        world.run("web", &web, false).await?;
        Ok(world)
    }

    async fn end(self) -> Result<Runtime> {
        self.token.cancel();
        self.server.await?;
        Ok(self.runtime)
    }
}

impl Edge {
    pub fn directory(&self) -> &Path {
        self.runtime.directory.path()
    }

    /// Starts a container of the pod; `stdin` for as long as the first attach.
    pub async fn run(&self, name: &str, args: &[&str], stdin: bool) -> Result<ContainerId> {
        let mut config = ContainerConfig {
            metadata: ContainerMetadata { name: name.to_owned(), attempt: 0 },
            image: images::DEMO.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            log_path: format!("{name}.log"),
            stdin,
            stdin_once: stdin,
            ..ContainerConfig::default()
        };
        config.security.namespaces = in_node_network();
        let id = self.client.create_container(&self.sandbox, &config, &self.sandbox_config).await?;
        self.client.start_container(&id).await?;
        self.look().await?;
        Ok(id)
    }

    /// Brings the cache up to date, as the agent does on events.
    pub async fn look(&self) -> Result<()> {
        let sandbox = self.client.pod_sandbox_status(&self.sandbox).await?;
        let mut containers = Vec::new();
        for summary in self.client.list_containers(&ContainerFilter::default()).await? {
            containers.push((summary.sandbox, self.client.container_status(&summary.id).await?));
        }
        let name = ObjectName::new("ns", "p");
        self.cache.put(RuntimePod::assemble(PodUid::new(UID), name, vec![sandbox], containers));
        Ok(())
    }
}

fn pod() -> Result<Arc<Pod>> {
    let containers: Vec<_> = ["web", "ticker", "talker", "old"].iter().map(|name| json!({"name": name})).collect();
    Ok(Arc::new(serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": UID},
        "spec": {"containers": containers, "nodeName": "n1"},
        "status": {"phase": "Running", "podIP": "127.0.0.1"}}))?))
}

async fn serve(
    directory: &Path,
    pod: &Arc<Pod>,
    runtime: &Arc<dyn RuntimeService>,
    cache: &Arc<PodCache>,
    token: &CancellationToken,
) -> Result<(Kubelet, tokio::task::JoinHandle<()>)> {
    let files = Certificates::make(directory)?;
    let settings = ServerSettings {
        enabled: true,
        address: "127.0.0.1".parse()?,
        port: 0,
        cert_file: Some(files.cert.clone()),
        key_file: Some(files.key.clone()),
        client_ca_file: Some(files.ca.clone()),
        authorization: Authorization::Webhook,
        tls_bootstrap: false,
        tls_min_version: Default::default(),
        cipher_suites: Vec::new(),
        webhook_authentication: true,
        anonymous: false,
    };
    let bound = server::bind(&settings, &[]).await?;
    let port = bound.port();
    let (events, _) = EventRecorder::channel(8);
    let state = ServerState {
        workers: agent::podworker::PodWorkers::new(),
        node_name: "n1".into(),
        view: Arc::new(OnePod(pod.clone())),
        cache: cache.clone(),
        runtime: runtime.clone(),
        client: None,
        probes: ProbeManager::new(runtime.clone(), events, Arc::new(|_, _| {}), "127.0.0.1", token.clone()),
        log_dir: directory.join("logs"),
        root_dir: directory.to_owned(),
        configz: Arc::new(json!({"kubeletconfig": {}})),
        restarts: Default::default(),
    };
    let server = tokio::spawn(bound.serve(state, token.clone()));
    let kubelet = Kubelet { port, trusted: files.connector(true)?, stranger: files.connector(false)? };
    Ok((kubelet, server))
}

struct Certificates {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    ca_der: CertificateDer<'static>,
    client: (CertificateDer<'static>, Vec<u8>),
}

impl Certificates {
    fn make(directory: &Path) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let server_key = KeyPair::generate()?;
        let server = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&server_key, &authority)?;
        let client_key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "system:kube-apiserver");
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let client = params.signed_by(&client_key, &authority)?;
        let file = |name: &str, text: String| {
            let path = directory.join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        Ok(Self {
            ca: file("ca.crt", authority.pem())?,
            cert: file("server.crt", server.pem())?,
            key: file("server.key", server_key.serialize_pem())?,
            ca_der: authority.der().clone(),
            client: (client.der().clone(), client_key.serialize_der()),
        })
    }

    fn connector(&self, trusted: bool) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca_der.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let key = PrivateKeyDer::try_from(self.client.1.clone()).map_err(|e| anyhow::anyhow!(e))?;
        let config = if trusted {
            builder.with_client_auth_cert(vec![self.client.0.clone()], key)?
        } else {
            builder.with_no_client_auth()
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}
