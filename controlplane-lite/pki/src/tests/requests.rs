//! Requests made by hand and by a library: what is signed is what was read, and what may be read in two ways is not
//! signed at all.

use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, PublicKeyData, SigningKey};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{days, now};
use crate::{AlternativeNames, Authority, CA_LIFETIME, CertInfo, Name, Request, Usage};

const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const TELETEX: u8 = 0x14;
const IA5: u8 = 0x16;
const BMP: u8 = 0x1e;
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];
const LOCALITY: &[u8] = &[0x55, 4, 7];

/// One element of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ 0..0x80 => out.push(u8::try_from(short).unwrap()),
        long => {
            let bytes: Vec<u8> = long.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(bytes.len()).unwrap());
            out.extend(bytes);
        }
    }
    out.extend(content);
    out
}

type Attribute = (&'static [u8], u8, Vec<u8>);

fn attribute(oid: &'static [u8], tag: u8, value: &str) -> Attribute {
    (oid, tag, value.as_bytes().to_vec())
}

/// A request, signed by its key, whose subject has these relative names.
fn by_hand(rdns: &[Vec<Attribute>], attributes: &[Vec<u8>]) -> String {
    let key = KeyPair::generate().unwrap();
    let rdns: Vec<Vec<u8>> = rdns
        .iter()
        .map(|rdn| {
            let parts: Vec<Vec<u8>> =
                rdn.iter().map(|(oid, tag, value)| der(0x30, &[&der(6, &[oid]), &der(*tag, &[value])])).collect();
            der(0x31, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
        })
        .collect();
    let subject = der(0x30, &rdns.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let attributes = der(0xa0, &attributes.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let info = der(0x30, &[&der(2, &[&[0]]), &subject, &key.subject_public_key_info(), &attributes]);
    let ecdsa_with_sha256 = der(0x30, &[&der(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])]);
    let signature = der(3, &[&[0], &key.sign(&info).unwrap()]);
    pem(&der(0x30, &[&info, &ecdsa_with_sha256, &signature]))
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}

/// An extension request with these extensions.
fn requested(extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions = der(0x30, &extensions.iter().map(Vec::as_slice).collect::<Vec<_>>());
    der(0x30, &[&der(6, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14]]), &der(0x31, &[&extensions])])
}

fn alternative_names(names: &[Vec<u8>]) -> Vec<u8> {
    let names = der(0x30, &names.iter().map(Vec::as_slice).collect::<Vec<_>>());
    der(0x30, &[&der(6, &[&[0x55, 0x1d, 17]]), &der(4, &[&names])])
}

fn node() -> Vec<Vec<Attribute>> {
    vec![vec![attribute(ORGANIZATION, PRINTABLE, "system:nodes")], vec![attribute(COMMON_NAME, UTF8, "system:node:a")]]
}

fn ca() -> &'static Authority {
    static CA: std::sync::OnceLock<Authority> = std::sync::OnceLock::new();
    CA.get_or_init(|| Authority::create("ca", CA_LIFETIME, now()).unwrap().0)
}

fn bmp(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

#[test]
fn a_subject_with_two_readings_has_none() {
    let masters = attribute(ORGANIZATION, PRINTABLE, "system:masters");
    let other = attribute(COMMON_NAME, UTF8, "system:kube-controller-manager");
    let then = |more: Vec<Attribute>| {
        let mut rdns = node();
        rdns.push(more);
        rdns
    };
    assert_eq!(
        Request::from_pem(&by_hand(&node(), &[])).unwrap().subject(),
        Ok(&Name::client("system:node:a", &["system:nodes"]))
    );
    let one_rdn = vec![node().into_iter().flatten().collect::<Vec<_>>()];
    let cases = [
        ("two common names", then(vec![other.clone()])),
        ("two common names in one RDN", vec![vec![node()[1][0].clone(), other.clone()]]),
        ("two organizations", then(vec![masters.clone()])),
        ("two localities", then(vec![attribute(LOCALITY, UTF8, "a"), attribute(LOCALITY, UTF8, "b")])),
        ("one RDN of two types", one_rdn),
        ("BMPString organization", then(vec![(ORGANIZATION, BMP, bmp("system:masters"))])),
        ("BMPString common name", then(vec![(COMMON_NAME, BMP, bmp("system:admin"))])),
        ("TeletexString", vec![vec![attribute(COMMON_NAME, TELETEX, "system:admin")]]),
        ("IA5String", vec![vec![attribute(COMMON_NAME, IA5, "system:admin")]]),
        ("no UTF-8", vec![vec![(COMMON_NAME, UTF8, vec![0xff, 0xfe])]]),
        ("not printable", vec![vec![attribute(COMMON_NAME, PRINTABLE, "a_b")]]),
        ("a control character", vec![vec![attribute(COMMON_NAME, UTF8, "system:admin\0")]]),
    ];
    for (what, rdns) in cases {
        let request = Request::from_pem(&by_hand(&rdns, &[])).unwrap();
        assert!(request.subject().is_err(), "{what}: {request:?}");
        assert!(ca().sign_request(&request, &[Usage::ClientAuth], days(1), now()).is_err(), "{what}");
    }
}

#[test]
fn a_librarys_second_common_name_is_seen() {
    for second in [DnValue::Utf8String("system:admin".into()), DnValue::BmpString("system:admin".try_into().unwrap())] {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "system:node:a");
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), second);
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let request = Request::from_pem(&pem).unwrap();
        assert!(request.subject().is_err(), "{request:?}");
    }
}

#[test]
fn alternative_names_are_read_once_and_whole() {
    let ip = |bytes: &[u8]| der(0x87, &[bytes]);
    let (dns, mail) = (der(0x82, &[b"n1"]), der(0x81, &[b"a@b"]));
    let read = |attributes: &[Vec<u8>]| Request::from_pem(&by_hand(&node(), attributes)).map(|r| r.names().clone());
    let both = requested(&[alternative_names(&[dns.clone(), mail, ip(&[10, 0, 0, 1])])]);
    let expected = AlternativeNames {
        dns_names: vec!["n1".into()],
        email_addresses: vec!["a@b".into()],
        ip_addresses: vec![[10, 0, 0, 1].into()],
        uris: Vec::new(),
    };
    assert_eq!(read(&[both]).unwrap(), expected);
    let one = alternative_names(std::slice::from_ref(&dns));
    let bad = [
        ("twice in one request", vec![requested(&[one.clone(), one.clone()])]),
        ("two requests", vec![requested(std::slice::from_ref(&one)), requested(std::slice::from_ref(&one))]),
        ("an address of three bytes", vec![requested(&[alternative_names(&[ip(&[1, 2, 3])])])]),
        ("a name beyond ASCII", vec![requested(&[alternative_names(&[der(0x82, &["é".as_bytes()])])])]),
        ("no UTF-8", vec![requested(&[alternative_names(&[der(0x82, &[&[0xff]])])])]),
        ("no names", vec![requested(&[der(0x30, &[&der(6, &[&[0x55, 0x1d, 17]]), &der(4, &[&[1, 2, 3]])])])]),
    ];
    for (what, attributes) in bad {
        assert!(read(&attributes).is_err(), "{what}");
    }
}

#[test]
fn extensions_are_the_signers_own() {
    // basicConstraints CA:TRUE, and an extended key usage of any purpose.
    let authority =
        der(0x30, &[&der(6, &[&[0x55, 0x1d, 19]]), &der(1, &[&[0xff]]), &der(4, &[&[0x30, 3, 1, 1, 0xff]])]);
    let any = der(0x30, &[&der(6, &[&[0x55, 0x1d, 0x25, 0]])]);
    let any = der(0x30, &[&der(6, &[&[0x55, 0x1d, 37]]), &der(4, &[&any])]);
    let request = Request::from_pem(&by_hand(&node(), &[requested(&[authority, any])])).unwrap();
    let signed = ca().sign_request(&request, &[Usage::ClientAuth], days(1), now()).unwrap();
    let info = CertInfo::from_pem(&signed).unwrap();
    assert!(!info.is_ca && info.usages == [Usage::ClientAuth], "{info:?}");
}

fn values() -> impl Strategy<Value = Attribute> {
    let oid = prop_oneof![Just(COMMON_NAME), Just(ORGANIZATION), Just(LOCALITY)];
    let tag = prop_oneof![6 => Just(UTF8), 3 => Just(PRINTABLE), 1 => Just(BMP), 1 => Just(TELETEX), 1 => Just(IA5)];
    let bytes = prop_oneof![
        4 => "[a-z:]{1,20}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
    ];
    (oid, tag, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is signed says exactly what was read, to a reader that shares nothing with the signer.
    #[test]
    fn what_is_signed_is_what_was_read(rdns in proptest::collection::vec(proptest::collection::vec(values(), 1..3), 0..4)) {
        let Ok(request) = Request::from_pem(&by_hand(&rdns, &[])) else { return Ok(()) };
        let Ok(signed) = ca().sign_request(&request, &[Usage::ClientAuth], days(1), now()) else {
            prop_assert!(request.subject().is_err());
            return Ok(());
        };
        let subject = request.subject().map_err(|why| TestCaseError::fail(why.to_owned()))?;
        let (_, signed) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&signed.contents).unwrap();
        let names = |oid: &str| -> Vec<String> {
            let all = certificate.subject().iter_attributes();
            all.filter(|a| a.attr_type().to_id_string() == oid)
                .map(|a| String::from_utf8(a.as_slice().to_vec()).unwrap())
                .collect()
        };
        let common: Vec<&str> = Some(subject.common_name()).filter(|n| !n.is_empty()).into_iter().collect();
        prop_assert_eq!(names("2.5.4.3").into_iter().filter(|n| !n.is_empty()).collect::<Vec<_>>(), common);
        prop_assert_eq!(names("2.5.4.10"), subject.organizations().collect::<Vec<_>>());
    }

    /// Garbage is refused, and no panic.
    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in any::<usize>(), bit in 0..8u32) {
        prop_assert!(Request::from_pem(&pem(&bytes)).is_err());
        let text = by_hand(&node(), &[]);
        let (_, good) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
        let mut flipped = good.contents.clone();
        let at = at % flipped.len();
        flipped[at] ^= 1 << bit;
        // What the signature covers cannot be changed; around it, only how the same is written.
        if let Ok(read) = Request::from_pem(&pem(&flipped)) {
            prop_assert_eq!(read, Request::from_pem(&text).unwrap(), "byte {}", at);
        }
        let mut longer = good.contents;
        longer.push(0);
        prop_assert!(Request::from_pem(&pem(&longer)).is_err());
    }
}

#[test]
fn a_subject_has_a_bounded_number_of_attributes() {
    // Types of one arc each: comparing each with all before would be most of the work.
    let types: Vec<&'static [u8]> = (0..101).map(|n: u8| &*Vec::leak(vec![0x55, 4, n])).collect();
    let subject = |count: usize| {
        let rdns: Vec<Vec<Attribute>> = types[..count].iter().map(|oid| vec![attribute(oid, UTF8, "x")]).collect();
        Request::from_pem(&by_hand(&rdns, &[])).unwrap()
    };
    assert!(subject(100).subject().is_ok());
    assert_eq!(subject(101).subject(), Err("the subject has more than 100 attributes"));
}
