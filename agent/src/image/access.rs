//! Which pods may use an image that was pulled for one of them: those that could have pulled it. Pure; upstream's
//! pkg/kubelet/images/pullmanager (image_pull_policies.go, and image_pull_manager.go: `MustAttemptImagePull`).

use std::collections::BTreeMap;

use cri::images::Reference;
use cri::types::AuthConfig;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// So many secrets of one image are remembered because they hold what another one held.
const MATCHED: usize = 100;

/// When a pod has to show that it may use an image that is here: a KubeletConfiguration's
/// `imagePullCredentialsVerificationPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// Never.
    Never,
    /// When this node pulled it; what somebody else brought is for everybody.
    #[default]
    ExceptPreloaded,
    /// Always, but for images of these repositories, or below those that end in `/*`.
    ExceptListed(Vec<String>),
    /// Always.
    Always,
}

impl Verification {
    /// Whether it asks of an image that this node pulled, or not.
    pub fn asks(&self, image: &Reference, pulled: bool) -> bool {
        let repository = image.repository();
        match self {
            Self::Never => false,
            Self::ExceptPreloaded => pulled,
            Self::ExceptListed(listed) => !listed.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => repository.starts_with(beginning),
                None => *pattern == repository,
            }),
            Self::Always => true,
        }
    }
}

/// Why an entry of `preloadedImagesVerificationAllowlist` is none.
///
/// # Errors
/// What upstream says of it.
pub fn check_listed(pattern: &str) -> Result<(), String> {
    if pattern != pattern.trim() {
        return Err(format!("leading/trailing spaces are not allowed: {pattern}"));
    }
    if let Some(beginning) = pattern.strip_suffix("/*") {
        if beginning.contains('*') {
            return Err(format!("not a valid wildcard pattern, only patterns ending with '/*' are allowed: {pattern}"));
        }
        return if beginning.is_empty() { Err("at least registry hostname is required".to_owned()) } else { Ok(()) };
    }
    if pattern.is_empty() {
        return Err(format!("the supplied pattern is too short: {pattern}"));
    }
    if pattern.contains('*') {
        return Err(format!("not a valid wildcard pattern, only patterns ending with '/*' are allowed: {pattern}"));
    }
    let read = Reference::parse(pattern).map_err(|_| "failed to parse as an image name".to_owned())?;
    if read.repository() == pattern {
        Ok(())
    } else {
        Err(format!("neither tag nor digest is accepted in an image reference: {pattern}"))
    }
}

/// A credential of a pull secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullSecret {
    uid: String,
    namespace: String,
    name: String,
    /// Of user and password, which are not written down.
    credential_hash: String,
}

impl PullSecret {
    /// A credential that an object holds.
    pub fn new(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, auth: &AuthConfig) -> Self {
        let mut hash = Sha256::new();
        for part in [&auth.username, &auth.password] {
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            credential_hash: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

/// Who may use an image under the name of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Access {
    /// It was pulled without credentials.
    #[serde(rename = "nodePodsAccessible")]
    everybody: bool,
    /// It was pulled with these, each secret once.
    #[serde(rename = "kubernetesSecrets")]
    secrets: Vec<PullSecret>,
}

/// What a pod with certain credentials gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission<'s> {
    /// The image.
    Granted,
    /// The image, and what it showed will do from now on.
    Noted(&'s PullSecret),
    /// It has to pull it.
    Refused,
}

impl Access {
    /// What a pod gets that has these credentials for the image.
    pub fn admit<'s>(&self, shown: &'s [PullSecret]) -> Admission<'s> {
        if self.everybody {
            return Admission::Granted;
        }
        let is_room = self.secrets.len() < MATCHED;
        for secret in shown {
            for known in &self.secrets {
                let equal = secret.credential_hash == known.credential_hash;
                match (equal, secret.is_of(known)) {
                    (true, false) if is_room => return Admission::Noted(secret),
                    (true, _) => return Admission::Granted,
                    // The same object with other content: whoever may change it says what is in it.
                    (false, true) if is_room => return Admission::Noted(secret),
                    (false, _) => {}
                }
            }
        }
        Admission::Refused
    }

    /// Adds that a pull succeeded with a credential, or without; whether that is new.
    pub fn add(&mut self, by: Option<&PullSecret>) -> bool {
        let Some(secret) = by else {
            self.secrets.clear();
            return !std::mem::replace(&mut self.everybody, true);
        };
        if self.everybody || self.secrets.contains(secret) {
            return false;
        }
        self.secrets.retain(|known| !known.is_of(secret));
        self.secrets.push(secret.clone());
        true
    }
}

/// By repository, without tag or digest.
pub type Repositories = BTreeMap<String, Access>;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    pub(crate) fn secret(uid: &str, password: &str) -> PullSecret {
        let (name, namespace) = (Some(format!("s-{uid}")), Some("ns".to_owned()));
        let metadata = ObjectMeta { uid: Some(uid.to_owned()), name, namespace, ..ObjectMeta::default() };
        PullSecret::new(&metadata, &AuthConfig { username: "u".to_owned(), password: password.to_owned() })
    }

    #[test]
    fn who_could_have_pulled_it_may_use_it() {
        let (one, two, moved, other) = (secret("1", "p"), secret("2", "p"), secret("1", "q"), secret("3", "q"));
        let mut access = Access::default();
        assert_eq!(access.admit(std::slice::from_ref(&one)), Admission::Refused, "nobody knows how it came");
        assert!(access.add(Some(&one)) && !access.add(Some(&one)));
        assert_eq!(access.admit(&[]), Admission::Refused);
        assert_eq!(access.admit(std::slice::from_ref(&other)), Admission::Refused);
        assert_eq!(access.admit(&[other.clone(), one.clone()]), Admission::Granted);
        assert_eq!(
            access.admit(std::slice::from_ref(&two)),
            Admission::Noted(&two),
            "another object, the same content"
        );
        assert_eq!(access.admit(std::slice::from_ref(&moved)), Admission::Noted(&moved), "the same object");
        assert!(access.add(Some(&moved)));
        assert_eq!(access.admit(std::slice::from_ref(&other)), Admission::Noted(&other));
        for n in 0..MATCHED {
            access.add(Some(&secret(&format!("x{n}"), "r")));
        }
        assert_eq!(access.admit(std::slice::from_ref(&other)), Admission::Granted, "there is no room to note it");
        assert_eq!(access.admit(&[secret("1", "new")]), Admission::Refused, "nor that");
        assert!(access.add(None) && !access.add(None) && !access.add(Some(&two)));
        assert_eq!(access.admit(&[]), Admission::Granted);
    }

    #[test]
    fn each_policy_asks_of_its_images() {
        let image = |name: &str| Reference::parse(name).unwrap();
        let listed = ["docker.io/library/nginx", "reg.example/team/*"].map(str::to_owned).to_vec();
        for (policy, name, pulled, asks) in [
            (Verification::Never, "a", true, false),
            (Verification::default(), "a", true, true),
            (Verification::default(), "a", false, false),
            (Verification::Always, "a", false, true),
            (Verification::ExceptListed(listed.clone()), "nginx:1", true, false),
            (Verification::ExceptListed(listed.clone()), "docker.io/library/nginx-extra", false, true),
            (Verification::ExceptListed(listed.clone()), "reg.example/team/a/b:1", true, false),
            (Verification::ExceptListed(listed), "reg.example/teams/a", false, true),
        ] {
            assert_eq!(policy.asks(&image(name), pulled), asks, "{policy:?} {name}");
        }
        for (pattern, fine) in [
            ("docker.io/library/nginx", true),
            ("reg.example/*", true),
            ("nginx", false),
            ("docker.io/library/nginx:1", false),
            (" reg.example/a", false),
            ("reg.example/*/a", false),
            ("reg.example/a*", false),
            ("*/*", false),
            ("/*", false),
            ("", false),
        ] {
            assert_eq!(check_listed(pattern).is_ok(), fine, "{pattern}");
        }
    }
}
