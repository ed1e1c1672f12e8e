//! Tests of the directory, the authorities and what they sign.

#![allow(clippy::unwrap_used)]
use super::*;
use std::os::unix::fs::PermissionsExt;

fn now() -> Timestamp {
    "2026-07-01T00:00:00Z".parse().unwrap()
}

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

fn server() -> Subject {
    Subject::server("kube-apiserver", vec!["kubernetes.default.svc".into()], vec!["10.43.0.1".parse().unwrap()])
}

#[test]
fn a_second_start_finds_the_first_ones_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pki");
    let first = Pki::load_or_create(&path, now()).unwrap();
    let serving = first.leaf("apiserver", &server(), now()).unwrap();
    let second = Pki::load_or_create(&path, now()).unwrap();
    assert_eq!(first.ca().cert_pem(), second.ca().cert_pem());
    assert_eq!(first.service_account().public_pem, second.service_account().public_pem);
    assert_eq!(second.leaf("apiserver", &server(), now()).unwrap(), serving);
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        assert!(!entry.file_name().to_string_lossy().contains("tmp"));
    }
}

#[test]
fn leaves_are_renewed_when_they_no_longer_fit() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path(), now()).unwrap();
    let first = pki.leaf("apiserver", &server(), now()).unwrap();
    assert_eq!(pki.leaf("apiserver", &server(), now() + days(300)).unwrap(), first, "65 days left are enough");
    let renewed = pki.leaf("apiserver", &server(), now() + days(310)).unwrap();
    assert_ne!(renewed, first);
    let wider = Subject { dns_names: vec!["kubernetes".into()], ..server() };
    let widened = pki.leaf("apiserver", &wider, now()).unwrap();
    assert_ne!(widened, renewed);
    // Another CA in the same place: what the old one issued is worth nothing.
    std::fs::remove_file(directory.path().join("ca.crt")).unwrap();
    let other = Pki::load_or_create(directory.path(), now()).unwrap();
    assert_ne!(other.leaf("apiserver", &wider, now()).unwrap(), widened);
    // A key whose certificate never made it to disk.
    std::fs::write(directory.path().join("apiserver.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let repaired = other.leaf("apiserver", &wider, now()).unwrap();
    let info = CertInfo::from_pem(&repaired.cert_pem).unwrap();
    assert!(info.belongs_to(&KeyPair::from_pem(&repaired.key_pem).unwrap()));
}

#[test]
fn certificates_say_what_was_asked() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path(), now()).unwrap();
    let info = CertInfo::from_pem(&pki.leaf("a", &server().also(Usage::ClientAuth), now()).unwrap().cert_pem).unwrap();
    assert_eq!(info.dns_names, ["kubernetes.default.svc"]);
    assert_eq!(info.ip_addresses, ["10.43.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(info.usages, [Usage::ClientAuth, Usage::ServerAuth]);
    assert!(!info.is_ca && info.issued_by(pki.ca()) && !info.issued_by(pki.front_proxy_ca()));
    assert!(info.not_before < now() && info.not_after == now() + LEAF_LIFETIME);
    let node = Subject::client("system:node:n1", Some("system:nodes"));
    let node = CertInfo::from_pem(&pki.ca().issue(&node, days(1), now()).unwrap().cert_pem).unwrap();
    assert_eq!(
        (node.common_name.as_str(), node.organizations.as_slice()),
        ("system:node:n1", &["system:nodes".to_owned()][..])
    );
    let late = pki.ca().issue(&server(), days(100_000), now()).unwrap();
    assert!(CertInfo::from_pem(&late.cert_pem).unwrap().not_after <= now() + CA_LIFETIME, "nothing outlives its CA");
}

#[test]
fn garbage_names_its_file() {
    let cases: &[(&str, &str)] = &[
        ("ca.crt", "not pem"),
        ("ca.key", "not pem"),
        ("ca.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        ("ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("ca.crt", ""),
        ("sa.key", "\u{0}\u{1}"),
        ("front-proxy-ca.crt", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ];
    for (file, text) in cases {
        let directory = tempfile::tempdir().unwrap();
        Pki::load_or_create(directory.path(), now()).unwrap();
        std::fs::write(directory.path().join(file), text).unwrap();
        let error = Pki::load_or_create(directory.path(), now()).unwrap_err().to_string();
        assert!(error.contains(file), "{file}: {error}");
    }
}

#[test]
fn damaged_leaves_are_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path(), now()).unwrap();
    for file in ["apiserver.crt", "apiserver.key"] {
        for garbage in
            [&[0xff, 0xfe][..], b"", b"not pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            let before = pki.leaf("apiserver", &server(), now()).unwrap();
            std::fs::write(directory.path().join(file), garbage).unwrap();
            let repaired = pki.leaf("apiserver", &server(), now()).unwrap();
            assert_ne!(repaired, before, "{file}");
            assert_eq!(pki.leaf("apiserver", &server(), now()).unwrap(), repaired, "it is stored");
        }
    }
}

#[test]
fn broken_authorities_are_not_papered_over() {
    let directory = tempfile::tempdir().unwrap();
    Pki::load_or_create(directory.path(), now()).unwrap();
    let expired = Pki::load_or_create(directory.path(), now() + CA_LIFETIME + days(1)).unwrap_err();
    assert!(matches!(expired, PkiError::Expired { .. }));
    std::fs::write(directory.path().join("ca.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(matches!(Pki::load_or_create(directory.path(), now()), Err(PkiError::Mismatch { .. })));
    std::fs::remove_file(directory.path().join("ca.key")).unwrap();
    assert!(matches!(Pki::load_or_create(directory.path(), now()), Err(PkiError::KeyMissing { .. })));
}

fn request(common_name: &str, dns: &[&str]) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(dns.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    params.serialize_request(&key).unwrap().pem().unwrap()
}

#[test]
fn requests_are_signed_with_granted_usages_only() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path(), now()).unwrap();
    let pem = request("system:node:n1", &["n1", "10.0.0.1"]);
    let asked = Request::from_pem(&pem).unwrap();
    assert_eq!(asked.subject().unwrap(), &Name::client("system:node:n1", &["system:nodes"]));
    let signed = pki.ca().sign_request(&asked, &[Usage::ServerAuth], days(30), now()).unwrap();
    let info = CertInfo::from_pem(&signed).unwrap();
    assert_eq!(info.usages, [Usage::ServerAuth]);
    assert_eq!(
        (info.common_name.as_str(), info.organizations.as_slice()),
        ("system:node:n1", &["system:nodes".to_owned()][..])
    );
    assert_eq!((info.dns_names.as_slice(), info.ip_addresses.len()), (&["n1".to_owned()][..], 1));
    assert_eq!(info.not_after, now() + days(30));
    assert!(!info.is_ca && info.issued_by(pki.ca()));
    let mut forged = pem.clone();
    let middle = forged.len() / 2;
    let replacement = if forged.as_bytes()[middle] == b'A' { "B" } else { "A" };
    forged.replace_range(middle..=middle, replacement);
    for bad in ["", "garbage", pki.ca().cert_pem(), forged.as_str()] {
        assert!(Request::from_pem(bad).is_err(), "{bad}");
    }
}

#[test]
fn kubeconfig_is_what_clients_read() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path(), now()).unwrap();
    let admin = pki.leaf("admin", &Subject::client("copepod-admin", Some("system:masters")), now()).unwrap();
    let text = kubeconfig("copepod", "copepod-admin", "https://127.0.0.1:6443", pki.ca().cert_pem(), &admin);
    let parsed: kube::config::Kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
    assert_eq!(parsed.current_context.as_deref(), Some("copepod"));
    assert_eq!(parsed.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://127.0.0.1:6443"));
}

mod requests;

#[test]
fn certificates_from_the_future_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path(), now()).unwrap();
    // The clock was ahead when the leaf was made: it would have been good for years in `leaf`'s eyes.
    let ahead = pki.leaf("apiserver", &server(), now() + days(1000)).unwrap();
    let good = pki.leaf("apiserver", &server(), now()).unwrap();
    assert_ne!(good, ahead);
    assert!(CertInfo::from_pem(&good.cert_pem).unwrap().not_before <= now());
    // An authority cannot be made anew: all that trusts it would be cut off.
    let error = Pki::load_or_create(directory.path(), now() - days(1)).unwrap_err();
    assert!(matches!(&error, PkiError::NotYetValid { path, .. } if path.ends_with("ca.crt")), "{error}");
}

#[test]
fn the_front_proxy_is_nobody_to_the_cluster() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path(), now()).unwrap();
    let client = pki.front_proxy_client(now()).unwrap();
    let info = CertInfo::from_pem(&client.cert_pem).unwrap();
    assert_eq!((info.common_name.as_str(), info.usages.as_slice()), (FRONT_PROXY, &[Usage::ClientAuth][..]));
    assert!(info.issued_by(pki.front_proxy_ca()) && !info.issued_by(pki.ca()));
    assert_eq!(pki.front_proxy_client(now()).unwrap(), client);
    let renewed = pki.front_proxy_client(now() + days(360)).unwrap();
    assert_ne!(renewed, client);
}
