//! What Go's client says of a call that failed: operators, and clients, look for these words. Pure.

use std::io;
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::ServerName;

/// The time is over.
pub(super) const DEADLINE: &str = "context deadline exceeded";

/// A time as Go prints it, in whole seconds, rounded up.
pub(super) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

/// Why an address could not be dialled.
pub(super) fn dial(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => format!("connect: {error}"),
    }
}

/// Why there is no TLS.
pub(super) fn handshake(error: &io::Error, name: &ServerName<'_>) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let verified = |why: String| format!("tls: failed to verify certificate: x509: {why}");
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            // Another authority of the same name is as unknown.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                verified("certificate signed by unknown authority".to_owned())
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                verified(format!("certificate is not valid for {}", name.to_str()))
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                verified("certificate has expired or is not yet valid".to_owned())
            }
            other => verified(other.to_string()),
        },
        Some(other) => format!("tls: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => format!("tls: {error}"),
    }
}

/// Why there is no answer, or no end of one.
pub(super) fn broken(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_closed() {
        "EOF".to_owned()
    } else if error.is_parse() {
        format!("net/http: HTTP/1.x transport connection broken: malformed HTTP response: {error}")
    } else {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds() {
        for (millis, text) in [(1, "1s"), (1000, "1s"), (1001, "2s"), (30_000, "30s"), (60_000, "1m0s")] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
    }
}
