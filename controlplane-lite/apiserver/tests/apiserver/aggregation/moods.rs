//! Servers that are not there, that nobody should believe, or that answer what they should not: what the APIService
//! says, and that nobody else is held up.

use super::*;

/// The answer of this server in place of the other.
async fn refused(extension: &Extension) -> (u16, String) {
    let (code, text) = get(extension.client(), &format!("{API}/flunders")).await;
    (code, text.as_str().map_or_else(|| text.to_string(), str::to_owned))
}

#[tokio::test]
async fn conditions_say_what_is_missing() {
    let extension = Extension::start(Mood::Good).await;
    let client = extension.client();
    extension.register(json!({"caBundle": extension.bundle})).await;
    assert_eq!(extension.says("False", "ServiceNotFound").await, "service/ext in \"default\" is not present");
    assert_eq!(refused(&extension).await, (503, "service unavailable\n".to_owned()));
    assert_eq!(extension.discovered().await["freshness"], "Stale");
    extension.service(json!({"ports": [{"port": 80, "name": "https"}]})).await;
    extension.says("False", "ServicePortError").await;
    let ports = json!({"spec": {"ports": [{"port": 443, "name": "https"}]}});
    let service = "/api/v1/namespaces/default/services/ext";
    expect(patch(client, service, "merge-patch+json", &ports).await, StatusCode::OK);
    extension.says("False", "EndpointsNotFound").await;
    extension.endpoints(false, "https").await;
    extension.says("False", "MissingEndpoints").await;
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/ext";
    expect(delete(client, slice).await, StatusCode::OK);
    extension.endpoints(true, "https").await;
    assert_eq!(extension.says("True", "Passed").await, "all checks passed");
    time::eventually_true("requests are carried", async || refused(&extension).await.0 == 200).await.unwrap();
    expect(delete(client, &format!("{SERVICES}/{NAME}")).await, StatusCode::OK);
    time::eventually_true("the group is gone", async || refused(&extension).await.0 == 404).await.unwrap();
    assert_eq!(extension.discovered().await, json!(null));
}

#[tokio::test]
async fn only_who_the_bundle_names_is_believed() {
    let extension = Extension::start(Mood::Good).await;
    extension.service(json!({"ports": [{"port": 443, "name": "https"}]})).await;
    extension.endpoints(true, "https").await;
    let other = base64::engine::general_purpose::STANDARD.encode(extension.cluster.ca.pki.front_proxy_ca().cert_pem());
    extension.register(json!({"caBundle": other})).await;
    let message = extension.says("False", "FailedDiscoveryCheck").await;
    assert!(message.contains("failing or missing response from https://127.0.0.1:"), "{message}");
    assert!(message.contains("certificate"), "{message}");
    let path = format!("{SERVICES}/{NAME}");
    for (spec, status, reason) in [
        (json!({"caBundle": null}), "False", "FailedDiscoveryCheck"),
        (json!({"caBundle": null, "insecureSkipTLSVerify": true}), "True", "Passed"),
        (json!({"caBundle": "bm8=", "insecureSkipTLSVerify": null}), "False", "FailedDiscoveryCheck"),
        (json!({"caBundle": extension.bundle}), "True", "Passed"),
    ] {
        expect(patch(extension.client(), &path, "merge-patch+json", &json!({"spec": spec})).await, StatusCode::OK);
        extension.says(status, reason).await;
    }
}

#[tokio::test]
async fn a_server_that_ends_is_unavailable_and_comes_back() {
    let extension = Extension::serving(Mood::Good).await;
    extension.be(Mood::Empty);
    // Whatever happens to the slice is a reason to look.
    let touch = async |label: &str| {
        let registry = &extension.cluster.server().server().registry;
        let slices = registry.get("discovery.k8s.io", "endpointslices").unwrap();
        let write = |old: &Value| {
            let mut new = old.clone();
            new["metadata"]["annotations"] = json!({"touched": label});
            Ok::<_, apiserver::RegistryError>(apiserver::Change::Write(new))
        };
        slices.change("default", "ext", false, write).await.unwrap();
    };
    touch("a").await;
    let message = extension.says("False", "FailedDiscoveryCheck").await;
    assert!(message.contains("bad status from https://127.0.0.1:") && message.ends_with(": 404"), "{message}");
    assert_eq!(refused(&extension).await.0, 503);
    time::eventually_true("discovery is stale", async || extension.discovered().await["freshness"] == "Stale")
        .await
        .unwrap();
    extension.be(Mood::Good);
    touch("b").await;
    extension.says("True", "Passed").await;
    time::eventually_true("discovery is current", async || extension.discovered().await["freshness"] == "Current")
        .await
        .unwrap();
}

/// A document without end, or without sense, is read so far and no further; nothing else waits for it.
#[tokio::test]
async fn odd_answers_harm_nobody() {
    for mood in [Mood::Garbage, Mood::Endless] {
        let extension = Extension::serving(mood).await;
        assert_eq!(extension.discovered().await["freshness"], "Stale");
        let (code, groups) = get(extension.client(), "/apis").await;
        assert_eq!(code, 200);
        let names: Vec<&Value> = groups["groups"].as_array().unwrap().iter().map(|g| &g["name"]).collect();
        assert!(names.contains(&&json!(GROUP)) && names.contains(&&json!("apps")), "{names:?}");
        assert_eq!(get(extension.client(), "/api/v1/namespaces").await.0, 200);
        assert_eq!(get(extension.client(), "/openapi/v3").await.0, 200);
        // It recovers by itself.
        extension.be(Mood::Good);
        time::eventually_true("discovery is current", async || extension.discovered().await["freshness"] == "Current")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_silent_server_holds_up_nobody() {
    let extension = Extension::serving(Mood::Good).await;
    extension.be(Mood::Silent);
    let path = format!("{API}/flunders");
    let waits = get(extension.client(), &path);
    let others = async {
        for path in ["/apis", "/apis/apps/v1", "/api/v1/namespaces", "/openapi/v3", SERVICES] {
            assert_eq!(get(extension.client(), path).await.0, 200, "{path}");
        }
        assert_eq!(extension.discovered().await["version"], "v1alpha1");
    };
    tokio::select! {
        _ = waits => panic!("it answered"),
        () = others => {}
    }
    // Its own discovery is given up after a while.
    let (code, text) = get(extension.client(), API).await;
    assert_eq!((code, text.as_str()), (503, Some("context deadline exceeded\n")));
}

#[tokio::test]
async fn what_speaks_no_tls_is_no_api() {
    let extension = Extension::start(Mood::Good).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
            });
        }
    });
    let other = Extension { address, ..extension };
    other.service(json!({"ports": [{"port": 443, "name": "https"}]})).await;
    other.endpoints(true, "https").await;
    other.register(json!({"insecureSkipTLSVerify": true})).await;
    other.says("False", "FailedDiscoveryCheck").await;
    assert_eq!(refused(&other).await.0, 503);
}
