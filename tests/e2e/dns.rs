//! Names as pods resolve them.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::support::cluster::Cluster;
use crate::support::wait;

pub fn pods_resolve_names(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace();
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: sub}, spec: {clusterIP: None, selector: {app: named},
          ports: [{name: http, port: 8080}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: named, labels: {app: named}}, spec: {hostname: host, subdomain: sub,
 containers: [{name: demo, image: 'copepod.local/demo:latest'}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: alias}, spec: {type: ExternalName, externalName: 'sub.NS.svc.cluster.local'}}"
            .replace("NS", &namespace)
            .as_str(),
    )?;
    cluster.wait_ready("named")?;
    let pod_ip = cluster.get("pod", "named")?["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    let ask = |arguments: &[&str], expected: &str| {
        let mut command = vec!["exec", "named", "--", "demo"];
        command.extend(arguments);
        wait::until(&format!("{arguments:?}"), Duration::from_secs(20), || {
            let answer = cluster.kubectl(&command)?;
            ensure!(answer.contains(expected), "{answer:?} has no {expected}");
            Ok(())
        })
    };
    // By search domains, from short to full.
    ask(&["resolve", "kubernetes.default"], "10.43.0.1")?;
    ask(&["resolve", "sub"], &pod_ip)?;
    ask(&["resolve", &format!("host.sub.{namespace}.svc.cluster.local")], &pod_ip)?;
    ask(&["dns", "SRV", &format!("_http._tcp.sub.{namespace}.svc.cluster.local")], "8080")?;
    ask(&["dns", "PTR", "1.0.43.10.in-addr.arpa"], "kubernetes.default.svc.cluster.local")?;
    ask(&["dns", "CNAME", &format!("alias.{namespace}.svc.cluster.local")], "sub.")?;
    ask(&["hostname"], "host")
}
