//! Just enough of an API server for kubectl to find one pod.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::world::Kubelet;

/// Serves on a free port of the loopback.
pub async fn serve(kubelet: Kubelet, pod: Arc<Pod>) -> Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (kubelet, pod) = (kubelet.clone(), pod.clone());
            tokio::spawn(async move {
                // Clients that go away are normal.
                let _ = connection(stream, kubelet, pod).await;
            });
        }
    });
    Ok((port, task))
}

async fn connection(mut client: TcpStream, kubelet: Kubelet, pod: Arc<Pod>) -> Result<()> {
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
    if let Some(sub) = path.strip_prefix("/api/v1/namespaces/ns/pods/p/") {
        let Some(inner) = kubelet_path(sub, query) else { bail!("no container in {query:?}") };
        let mut stream = kubelet.connect(true).await?;
        let close = if sub == "log" { "Connection: close\r\n" } else { "" };
        stream.write_all(format!("{method} {inner}?{query} HTTP/1.1\r\n{close}{headers}").as_bytes()).await?;
        copy_bidirectional(&mut client, &mut stream).await?;
        return Ok(());
    }
    let (status, body) = match object(path, &pod)? {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})),
    };
    let body = body.to_string();
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await?;
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

fn object(path: &str, pod: &Pod) -> Result<Option<Value>> {
    Ok(Some(match path {
        "/version" => json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0"}),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
        "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        "/api/v1" => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"]}]}),
        "/api/v1/namespaces/ns/pods/p" => {
            let mut value = serde_json::to_value(pod)?;
            value["apiVersion"] = "v1".into();
            value["kind"] = "Pod".into();
            value
        }
        _ => return Ok(None),
    }))
}
