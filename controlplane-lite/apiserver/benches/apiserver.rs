//! Prints what the API does over TLS beside what its disk and etcd can: creates per second of 1 KB objects at 1, 16
//! and 64 clients, and lists of 10,000. Ratios matter, not the numbers; nothing here fails for being slow.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::{ApiServer, Config};
use auth::authn::UserInfo;
use bytes::Bytes;
use harness::etcd::Etcd;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use pki::{LEAF_LIFETIME, Pki, Subject};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use storage::{self, DatastoreConfig, Key, Put, RedbConfig, Store};
use tokio_util::sync::CancellationToken;

type Error = Box<dyn std::error::Error + Send + Sync>;

const SECONDS: u64 = 3;
const OBJECTS: usize = 10_000;

fn main() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<(), Error> {
    let dir = tempfile::tempdir()?;
    let floor = store_floor(dir.path()).await?;
    println!("durable put, 1 writer: p50 {:.2} ms", floor.as_secs_f64() * 1e3);
    let bench = Bench::start(dir.path()).await?;
    println!("\nAPI creates of 1 KB over TLS, {SECONDS} s each, embedded store");
    for clients in [1, 16, 64] {
        let (rate, p50) = bench.creates(clients).await?;
        let ratio = p50.as_secs_f64() / floor.as_secs_f64();
        println!(
            "  {clients:>2} clients: {rate:>7.0}/s  p50 {:.2} ms ({ratio:.2} x a durable put)",
            p50.as_secs_f64() * 1e3
        );
    }
    match Etcd::start(dir.path()).await {
        Ok(etcd) => etcd_puts(etcd.url()).await?,
        Err(error) => println!("  etcd beside it: not measured ({error})"),
    }
    bench.lists().await
}

fn value(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"k":"{}"}}}}"#,
        "x".repeat(800)
    )
}

/// The median of a single writer's durable puts.
async fn store_floor(dir: &std::path::Path) -> Result<Duration, Error> {
    let store = open(&dir.join("floor")).await?;
    let mut took = Vec::new();
    for n in 0..200 {
        let put = Put::create(Key::new(format!("/registry/bench/{n}"))?, value("floor"));
        let began = Instant::now();
        store.put(put).await?;
        took.push(began.elapsed());
    }
    store.close().await?;
    Ok(median(&mut took))
}

fn median(took: &mut [Duration]) -> Duration {
    took.sort();
    took.get(took.len() / 2).copied().unwrap_or_default()
}

async fn open(dir: &std::path::Path) -> Result<Arc<dyn Store>, Error> {
    std::fs::create_dir_all(dir)?;
    Ok(storage::open(&DatastoreConfig::Redb(RedbConfig::new(dir.join("state.db")))).await?)
}

struct Bench {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    client: kube::Client,
    _server: ApiServer,
}

impl Bench {
    async fn start(dir: &std::path::Path) -> Result<Self, Error> {
        let now = jiff::Timestamp::now();
        let pki = Pki::load_or_create(&dir.join("pki"), now)?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let advertise = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), address.port());
        let server = ApiServer::new(Config::new(open(&dir.join("state")).await?, &pki, advertise)?).await?;
        let admin = pki.ca().issue(&Subject::client("admin", Some("system:masters")), LEAF_LIFETIME, now)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pki.ca().cert_pem().as_bytes())?)?;
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(admin.cert_pem.as_bytes())?],
                PrivateKeyDer::from_pem_slice(admin.key_pem.as_bytes())?,
            )?;
        let serving = server.clone();
        tokio::spawn(async move { serving.serve(listener, CancellationToken::new()).await });
        let client = server.client(UserInfo::new("admin", ["system:masters"]));
        Ok(Self { address, tls: Arc::new(tls), client, _server: server })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let stream = tokio::net::TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Creates per second of so many clients, and the median of one request.
    async fn creates(&self, clients: usize) -> Result<(f64, Duration), Error> {
        let until = Instant::now() + Duration::from_secs(SECONDS);
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..clients {
            let mut sender = self.connect().await?;
            tasks.spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < until {
                    let body = value(&format!("b{clients}-{client}-{}", took.len()));
                    let request = Request::post("/api/v1/namespaces/default/configmaps")
                        .header("host", "localhost")
                        .header("content-type", "application/json")
                        .body(Full::from(body))?;
                    let began = Instant::now();
                    sender.ready().await?;
                    let response = sender.send_request(request).await?;
                    assert_eq!(response.status(), StatusCode::CREATED);
                    response.into_body().collect().await?;
                    took.push(began.elapsed());
                }
                Ok::<_, Error>(took)
            });
        }
        let mut took = Vec::new();
        while let Some(done) = tasks.join_next().await {
            took.extend(done??);
        }
        let rate = took.len() as f64 / SECONDS as f64;
        Ok((rate, median(&mut took)))
    }

    async fn lists(&self) -> Result<(), Error> {
        let space = serde_json::json!({"metadata": {"name": "lists"}}).to_string();
        self.post("/api/v1/namespaces", space).await?;
        for chunk in 0..OBJECTS / 100 {
            let made = (0..100).map(|n| {
                let name = format!("l{:05}", chunk * 100 + n);
                self.post("/api/v1/namespaces/lists/configmaps", value(&name))
            });
            futures::future::try_join_all(made).await?;
        }
        let mut sender = self.connect().await?;
        let mut took = Vec::new();
        let mut size = 0;
        for _ in 0..20 {
            let began = Instant::now();
            size = list(&mut sender).await?;
            took.push(began.elapsed());
        }
        let one = median(&mut took);
        println!("\nLIST of {OBJECTS} x 1 KB ({} KiB): p50 {:.1} ms", size / 1024, one.as_secs_f64() * 1e3);
        let mut senders = Vec::new();
        for _ in 0..16 {
            senders.push(self.connect().await?);
        }
        let began = Instant::now();
        let rounds = 4;
        let all = senders.iter_mut().map(|sender| async move {
            for _ in 0..rounds {
                list(sender).await?;
            }
            Ok::<_, Error>(())
        });
        futures::future::try_join_all(all).await?;
        println!("  16 at once: {:.1} lists/s", f64::from(16 * rounds) / began.elapsed().as_secs_f64());
        Ok(())
    }

    async fn post(&self, path: &str, body: String) -> Result<(), Error> {
        let request = Request::post(path).header("content-type", "application/json");
        let response = self.client.send(request.body(kube::client::Body::from(body.into_bytes()))?).await?;
        assert_eq!(response.status(), StatusCode::CREATED);
        Ok(())
    }
}

async fn list(sender: &mut SendRequest<Full<Bytes>>) -> Result<usize, Error> {
    let path = "/api/v1/namespaces/lists/configmaps?resourceVersion=0";
    let request = Request::get(path).header("host", "localhost").body(Full::default())?;
    sender.ready().await?;
    let mut body = sender.send_request(request).await?.into_body();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        size += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(size)
}

/// What a real etcd on the same disk does by itself.
async fn etcd_puts(url: &str) -> Result<(), Error> {
    let client = tokio::time::timeout(Duration::from_secs(20), etcd_client(url)).await??;
    for writers in [1, 16, 64] {
        let until = Instant::now() + Duration::from_secs(SECONDS);
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..writers {
            let mut client = client.clone();
            tasks.spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < until {
                    let began = Instant::now();
                    client.put(format!("k{writers}-{writer}-{}", took.len()), value("etcd"), None).await?;
                    took.push(began.elapsed());
                }
                Ok::<_, Error>(took)
            });
        }
        let mut took = Vec::new();
        while let Some(done) = tasks.join_next().await {
            took.extend(done??);
        }
        let rate = took.len() as f64 / SECONDS as f64;
        println!(
            "  etcd's own puts, {writers:>2} writers: {rate:>7.0}/s  p50 {:.2} ms",
            median(&mut took).as_secs_f64() * 1e3
        );
    }
    Ok(())
}

async fn etcd_client(url: &str) -> Result<etcd_client::Client, Error> {
    loop {
        if let Ok(mut client) = etcd_client::Client::connect([url], None).await
            && client.status().await.is_ok()
        {
            return Ok(client);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
