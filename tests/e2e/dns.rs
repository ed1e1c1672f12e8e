//! Names as pods resolve them.

use anyhow::{Context, Result, ensure};
use harness::time;

use crate::support::cluster::Cluster;

pub fn pods_resolve_names(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace();
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: front}, spec: {selector: {app: named},
          ports: [{port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: sub}, spec: {clusterIP: None, selector: {app: named},
          ports: [{name: http, port: 8080}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: named, labels: {app: named}}, spec: {hostname: host, subdomain: sub,
 containers: [{name: demo, image: 'copepod.local/demo:latest'}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: alias}, spec: {type: ExternalName, externalName: 'sub.NS.svc.cluster.local'}}
---
{apiVersion: v1, kind: Service, metadata: {name: again}, spec: {type: ExternalName, externalName: 'alias.NS.svc.cluster.local'}}"
            .replace("NS", &namespace)
            .as_str(),
    )?;
    cluster.wait_ready("named")?;
    let pod = cluster.get("pod", "named")?;
    let pod_ip = pod["status"]["podIP"].as_str().context("a pod that is ready has an address")?.to_owned();
    let pod_name = format!("{}.in-addr.arpa", pod_ip.split('.').rev().collect::<Vec<_>>().join("."));
    let ask = |arguments: &[&str], expected: &str| {
        ensure!(!expected.is_empty(), "{arguments:?}: anything contains nothing");
        let mut command = vec!["exec", "named", "--", "demo"];
        command.extend(arguments);
        time::until(&format!("{arguments:?}"), || {
            let answer = cluster.kubectl(&command)?;
            ensure!(answer.contains(expected), "{answer:?} has no {expected}");
            Ok(())
        })
    };
    // By search domains, from short to full.
    ask(&["resolve", "kubernetes.default"], "10.43.0.1")?;
    ask(&["resolve", "sub"], &pod_ip)?;
    ask(&["resolve", &format!("host.sub.{namespace}.svc.cluster.local")], &pod_ip)?;
    let service = format!("sub.{namespace}.svc.cluster.local");
    ask(&["dns", "SRV", &format!("_http._tcp.{service}")], &format!("0 100 8080 host.{service}"))?;
    // The pod is behind an ordinary Service, too, which must not hide this one.
    ask(&["dns", "PTR", &pod_name], &format!("host.{service}"))?;
    ask(&["dns", "PTR", "1.0.43.10.in-addr.arpa"], "kubernetes.default.svc.cluster.local")?;
    ask(&["dns", "CNAME", &format!("alias.{namespace}.svc.cluster.local")], &service)?;
    ask(&["resolve", "alias"], &pod_ip)?;
    ask(&["resolve", "again"], &pod_ip)?;
    ask(&["hostname"], "host")
}
