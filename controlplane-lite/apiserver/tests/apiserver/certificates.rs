//! Certificates that are renewed while the server runs.

use apiserver::Certificates;
use apiserver::testing::*;
use pki::{LEAF_LIFETIME, Subject};

/// The certificate that a new connection is shown, DER.
async fn shown(cluster: &Served) -> Vec<u8> {
    let stream = tls(cluster.address, cluster.ca.pem(), None).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Certificates as a start makes them, the serving one with `name` beside those that clients use.
fn issue(cluster: &Served, name: &str) -> Certificates {
    let certificates = Certificates::from_pki(&cluster.ca.pki, "10.43.0.0/16", "cluster.local", &[], &[]).unwrap();
    let subject = Subject::server("kube-apiserver", vec!["localhost".into(), name.into()], Vec::new());
    let now = jiff::Timestamp::now();
    let serving = cluster.ca.pki.ca().issue(&subject, LEAF_LIFETIME, now).unwrap();
    let kubelet = cluster.ca.pki.ca().issue(&Subject::client(name, None), LEAF_LIFETIME, now).unwrap();
    Certificates {
        serving_cert: serving.cert_pem,
        serving_key: serving.key_pem,
        kubelet_client_cert: kubelet.cert_pem,
        kubelet_client_key: kubelet.key_pem,
        ..certificates
    }
}

#[tokio::test]
async fn clients_are_shown_a_renewed_certificate() {
    let cluster = serve().await;
    let (before, mut open) = (shown(&cluster).await, cluster.connect().await);
    cluster.server().renew(&issue(&cluster, "renewed.example")).unwrap();
    let after = pki::CertInfo::from_der(&shown(&cluster).await).unwrap();
    assert!(after.dns_names.contains(&"renewed.example".to_owned()), "{after:?}");
    assert_ne!(pki::CertInfo::from_der(&before).unwrap(), after);
    // A connection from before goes on.
    let request = http::Request::get("/version").header("host", "localhost");
    let answer = open.send_request(request.body(http_body_util::Full::default()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn what_cannot_be_shown_replaces_nothing() {
    let cluster = serve().await;
    let before = shown(&cluster).await;
    let (good, other) = (issue(&cluster, "one.example"), issue(&cluster, "two.example"));
    for bad in [
        Certificates { serving_cert: String::new(), ..good.clone() },
        Certificates { serving_key: "not PEM".into(), ..good.clone() },
        Certificates { serving_key: other.serving_key, ..good.clone() },
    ] {
        cluster.server().renew(&bad).unwrap_err();
        assert_eq!(shown(&cluster).await, before);
    }
}
