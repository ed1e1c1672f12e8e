//! The files of a node's credentials. Each is replaced whole; the kubeconfig is
//! written last, so one that is there leads to a certificate.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};

use super::JoinError;
use super::plan::{Validity, user, validity};
use crate::read;

/// Where a node keeps certificate and key.
#[derive(Debug, Clone)]
pub struct Credentials {
    directory: PathBuf,
    name: &'static str,
}

impl Credentials {
    /// As client of the API.
    pub fn client(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), name: "kubelet-client" }
    }

    /// Of the kubelet's own server.
    pub fn serving(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), name: "kubelet-server" }
    }

    /// Certificate and key in one file.
    pub fn current(&self) -> PathBuf {
        self.directory.join(format!("{}-current.pem", self.name))
    }

    fn pending(&self) -> PathBuf {
        self.directory.join(format!("{}.key.tmp", self.name))
    }

    /// What the certificate says, when there is one.
    pub(super) fn validity(&self) -> Option<Validity> {
        validity(&read::text(self.current(), read::MUCH).ok()?).ok()
    }

    /// Whether there is a certificate of the node that has begun and not ended.
    pub fn is_good(&self, node: &str, now: Timestamp) -> bool {
        self.validity().is_some_and(|v| v.common_name == user(node) && v.from <= now && now < v.to)
    }

    /// The key of the request that is under way, or of a new one.
    pub(super) fn pending_key(&self) -> Result<String, JoinError> {
        let path = self.pending();
        if let Ok(pem) = read::text(&path, read::MUCH)
            && KeyPair::from_pem(&pem).is_ok()
        {
            return Ok(pem);
        }
        let pem = KeyPair::generate().map_err(|error| JoinError::Key(error.to_string()))?.serialize_pem();
        let fail = |source| JoinError::File { operation: "write", path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(fail)?;
        replace(&path, pem.as_bytes()).map_err(fail)?;
        Ok(pem)
    }

    pub(super) fn drop_pending_key(&self) {
        // Whatever stays is replaced or used by the next request.
        let _ = fs::remove_file(self.pending());
    }

    /// Stores an issued certificate with its key, if it is one for them.
    pub(super) fn store(&self, certificate: &str, key: &str, node: &str, now: Timestamp) -> Result<(), JoinError> {
        let found = validity(certificate).map_err(JoinError::Unusable)?;
        let pair = KeyPair::from_pem(key).map_err(|error| JoinError::Key(error.to_string()))?;
        if found.public_key != pair.subject_public_key_info() {
            return Err(JoinError::Unusable("it is for another key".to_owned()));
        }
        if found.common_name != user(node) {
            return Err(JoinError::Unusable(format!("it is for {}", found.common_name)));
        }
        if found.to <= now {
            return Err(JoinError::Unusable("it has ended already".to_owned()));
        }
        let path = self.current();
        let newline = if certificate.ends_with('\n') { "" } else { "\n" };
        replace(&path, format!("{certificate}{newline}{key}").as_bytes()).map_err(|source| JoinError::File {
            operation: "write",
            path,
            source,
        })?;
        self.drop_pending_key();
        Ok(())
    }
}

/// Replaces a file that its owner alone may read.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn issue(node: &str, key: &str) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, user(node));
        params.self_signed(&KeyPair::from_pem(key).unwrap()).unwrap().pem()
    }

    #[test]
    fn a_start_after_a_crash_goes_on_with_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::client(dir.path().join("pki"));
        let now = Timestamp::now();
        assert!(!credentials.is_good("n", now));
        let key = credentials.pending_key().unwrap();
        assert_eq!(credentials.pending_key().unwrap(), key);
        credentials.store(&issue("n", &key), &key, "n", now).unwrap();
        assert!(credentials.is_good("n", now) && !credentials.is_good("other", now));
        assert_ne!(credentials.pending_key().unwrap(), key);
        std::fs::write(credentials.pending(), "half a k").unwrap();
        assert!(KeyPair::from_pem(&credentials.pending_key().unwrap()).is_ok());
        std::fs::write(credentials.current(), "garbage").unwrap();
        assert!(!credentials.is_good("n", now));
    }

    #[test]
    fn certificates_of_others_are_not_stored() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::client(dir.path());
        let key = credentials.pending_key().unwrap();
        let other = KeyPair::generate().unwrap().serialize_pem();
        for bad in [issue("n", &other), issue("m", &key), "garbage".to_owned(), String::new()] {
            assert!(matches!(credentials.store(&bad, &key, "n", Timestamp::now()), Err(JoinError::Unusable(_))));
        }
        assert!(!credentials.current().exists() && credentials.pending().exists());
    }
}
