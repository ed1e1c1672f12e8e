//! Just enough of an API server for kubectl to find one pod, and to reach its kubelet through it.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use harness::api::Api;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::world::Kubelet;

/// Serves on a free port of the loopback, until it is dropped.
pub struct Front {
    pub port: u16,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// Starts it.
pub async fn serve(kubelet: Kubelet, pod: Arc<Pod>) -> Result<Front> {
    let (objects, listener) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let (behind, port) = (objects.local_addr()?.port(), listener.local_addr()?.port());
    let documents = tokio::spawn(documents(&pod)?.serve(objects));
    let sessions = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kubelet = kubelet.clone();
            tokio::spawn(async move {
                // Clients that go away are normal.
                let _ = connection(stream, kubelet, behind).await;
            });
        }
    });
    Ok(Front { port, _tasks: [documents, sessions].map(AbortOnDropHandle::new) })
}

/// The pod, and what kubectl asks before it asks for that.
fn documents(pod: &Pod) -> Result<Api> {
    let api = Api::default();
    api.document("/version", json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0"}));
    api.document("/api", json!({"kind": "APIVersions", "versions": ["v1"]}));
    api.document("/apis", json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}));
    let pods =
        json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"]});
    api.document("/api/v1", json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [pods]}));
    let mut object = serde_json::to_value(pod)?;
    object["apiVersion"] = "v1".into();
    object["kind"] = "Pod".into();
    api.put("pods", object);
    Ok(api)
}

/// Sessions go to the kubelet as bytes, as an API server passes them on; all else is answered from `behind`.
async fn connection(mut client: TcpStream, kubelet: Kubelet, behind: u16) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 64 * 1024 {
            bail!("no end of headers");
        }
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let (line, headers) = head.split_once("\r\n").context("no request line")?;
    let mut words = line.split(' ');
    let (method, target) = (words.next().context("no method")?, words.next().context("no path")?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Some(sub) = path.strip_prefix("/api/v1/namespaces/ns/pods/p/") else {
        let mut stream = TcpStream::connect(("127.0.0.1", behind)).await?;
        // One request: the next one on this connection might be a session.
        stream.write_all(format!("{line}\r\nConnection: close\r\n{headers}").as_bytes()).await?;
        copy_bidirectional(&mut client, &mut stream).await?;
        return Ok(());
    };
    let Some(inner) = kubelet_path(sub, query) else { bail!("no container in {query:?}") };
    let mut stream = kubelet.connect(true).await?;
    let close = if sub == "log" { "Connection: close\r\n" } else { "" };
    stream.write_all(format!("{method} {inner}?{query} HTTP/1.1\r\n{close}{headers}").as_bytes()).await?;
    copy_bidirectional(&mut client, &mut stream).await?;
    Ok(())
}

fn kubelet_path(sub: &str, query: &str) -> Option<String> {
    let container = query.split('&').find_map(|pair| pair.strip_prefix("container="));
    Some(match sub {
        "log" => format!("/containerLogs/ns/p/{}", container?),
        "exec" => format!("/exec/ns/p/{}", container?),
        "attach" => format!("/attach/ns/p/{}", container?),
        "portforward" => "/portForward/ns/p".to_owned(),
        _ => return None,
    })
}
