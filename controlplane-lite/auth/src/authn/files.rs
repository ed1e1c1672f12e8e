//! Users from files: static tokens (`token,user,uid,"group,group"`) and basic
//! authentication (`password,user,uid,"group,group"`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Authenticated, Authenticator, AuthnError, Credentials, UserInfo, bearer, same_secret};

/// Why a file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UserFileError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path}, line {line}: {reason}")]
    Line { path: PathBuf, line: usize, reason: &'static str },
}

/// Users by a fixed bearer token.
pub struct StaticTokens(HashMap<String, UserInfo>);

/// Users by name and password.
pub struct BasicUsers(HashMap<String, (String, UserInfo)>);

impl std::fmt::Debug for StaticTokens {
    /// Tokens stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StaticTokens({})", self.0.len())
    }
}

impl std::fmt::Debug for BasicUsers {
    /// Passwords stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BasicUsers({})", self.0.len())
    }
}

impl StaticTokens {
    /// Reads a token file.
    pub fn load(path: &Path) -> Result<Self, UserFileError> {
        read(path).and_then(|text| Self::parse(&text, path))
    }

    /// Reads a token file's text; `path` is for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, UserFileError> {
        Ok(Self(records(text, path)?.into_iter().collect()))
    }
}

impl BasicUsers {
    /// Reads a password file.
    pub fn load(path: &Path) -> Result<Self, UserFileError> {
        read(path).and_then(|text| Self::parse(&text, path))
    }

    /// Reads a password file's text; `path` is for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, UserFileError> {
        let users = records(text, path)?.into_iter().map(|(secret, user)| (user.username.clone(), (secret, user)));
        Ok(Self(users.collect()))
    }
}

#[async_trait]
impl Authenticator for StaticTokens {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Option<Authenticated>, AuthnError> {
        let user = bearer(credentials).and_then(|token| self.0.get(token));
        Ok(user.map(|user| Authenticated { user: user.clone(), audiences: Vec::new() }))
    }
}

#[async_trait]
impl Authenticator for BasicUsers {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Option<Authenticated>, AuthnError> {
        let Some((scheme, encoded)) = credentials.authorization.and_then(|header| header.trim().split_once(' ')) else {
            return Ok(None);
        };
        if !scheme.eq_ignore_ascii_case("basic") {
            return Ok(None);
        }
        let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((name, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else {
            return Err(AuthnError::Basic("malformed header".into()));
        };
        match self.0.get(name) {
            Some((secret, user)) if same_secret(secret.as_bytes(), password.as_bytes()) => {
                Ok(Some(Authenticated { user: user.clone(), audiences: Vec::new() }))
            }
            _ => Err(AuthnError::Basic("invalid username or password".into())),
        }
    }
}

fn read(path: &Path) -> Result<String, UserFileError> {
    std::fs::read_to_string(path).map_err(|source| UserFileError::Read { path: path.to_owned(), source })
}

/// Secret and user of each line.
fn records(text: &str, path: &Path) -> Result<Vec<(String, UserInfo)>, UserFileError> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let fail = |reason| UserFileError::Line { path: path.to_owned(), line: index + 1, reason };
        if line.trim().is_empty() {
            continue;
        }
        let columns = columns(line).ok_or_else(|| fail("unbalanced quotes"))?;
        let [secret, name, uid, rest @ ..] = columns.as_slice() else {
            return Err(fail("must have at least 3 columns (secret, user name, user uid)"));
        };
        if secret.is_empty() || name.is_empty() {
            return Err(fail("secret and user name must not be empty"));
        }
        let groups = rest.first().map(String::as_str).unwrap_or_default();
        let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty());
        let user = UserInfo { uid: uid.clone(), ..UserInfo::new(name.clone(), groups) };
        found.push((secret.clone(), user));
    }
    Ok(found)
}

/// Splits one line of comma-separated values; `None` when a quote is left open.
fn columns(line: &str) -> Option<Vec<String>> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                columns.last_mut()?.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            other => columns.last_mut()?.push(other),
        }
    }
    (!quoted).then(|| columns.iter().map(|column| column.trim().to_owned()).collect())
}
