//! Bytes → object: parsing, identity, types, unknown and duplicate fields, with
//! the errors upstream gives. Works on any input; limits depth by the parsers'
//! own limits and size by the caller's.

use serde_json::Value;

use super::kind::Kind;

mod parse;
mod problems;
mod repeated;
mod shape;
pub mod size;

pub(crate) use parse::MAX_DEPTH;
pub use problems::Problem;
pub use shape::{go_json_type, time_problem};

pub use parse::{ParseError, parse};

/// How request bodies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

/// The `fieldValidation` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Unknown and duplicate fields are dropped silently.
    Ignore,
    /// They are dropped with a warning (the default).
    #[default]
    Warn,
    /// They fail the request.
    Strict,
}

impl FieldValidation {
    /// The value of the query parameter; empty is the default.
    #[must_use]
    pub fn from_query(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// A decoded object: pruned to its schema, `apiVersion` and `kind` set, not yet defaulted.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object.
    pub object: Value,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

/// Why bytes are no object of the kind; answered as 400 BadRequest with this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON or YAML, or no object.
    #[error("the object provided is unrecognized (must be of type {kind}): {problem} ({excerpt})")]
    Unrecognized {
        /// Expected kind.
        kind: String,
        /// What the parser says.
        problem: String,
        /// The first bytes of the body.
        excerpt: String,
    },
    /// An object, but not one of this kind.
    #[error("{found} in version {version:?} cannot be handled as a {kind}: {problem}")]
    Unhandled {
        /// Kind in the body.
        found: String,
        /// Version in the body, without group.
        version: String,
        /// Expected kind.
        kind: String,
        /// What is wrong.
        problem: String,
    },
    /// A known kind of another group or version.
    #[error("the API version in the data ({found}) does not match the expected API version ({expected})")]
    Version {
        /// apiVersion in the body.
        found: String,
        /// apiVersion of the path.
        expected: String,
    },
}

/// Decodes a request body as an object of `kind`.
///
/// # Errors
/// See [`DecodeError`]; with [`FieldValidation::Strict`] also for unknown and duplicate fields.
pub fn decode(kind: &Kind, media: MediaType, body: &[u8], validation: FieldValidation) -> Result<Decoded, DecodeError> {
    let unrecognized =
        |problem: String| DecodeError::Unrecognized { kind: kind.kind.to_string(), problem, excerpt: excerpt(body) };
    let parsed = parse(media, body).map_err(|e| unrecognized(e.to_string()))?;
    let Value::Object(map) = &parsed.value else {
        return Err(unrecognized(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct \
             {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            shape::go_json_type(&parsed.value)
        )));
    };
    for key in ["apiVersion", "kind"] {
        match map.get(key) {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(other) => {
                return Err(unrecognized(format!(
                    "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go struct field .{key} of type string",
                    shape::go_json_type(other)
                )));
            }
        }
    }
    let (decoded, unknown) = shaped(kind, parsed.value, media == MediaType::Yaml)?;
    judge(kind, decoded, problems::ordered(media, body, parsed.duplicates, unknown), validation)
}

/// Decodes an object that is already parsed (a patch result). `duplicates` are the duplicate fields found on the way,
/// reported like unknown ones; `lenient_numbers` accepts `1.0` as an integer.
///
/// # Errors
/// As [`decode`].
pub fn decode_value(
    kind: &Kind,
    value: Value,
    duplicates: Vec<Problem>,
    lenient_numbers: bool,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let (object, unknown) = shaped(kind, value, lenient_numbers)?;
    judge(kind, object, problems::texts(duplicates, unknown), validation)
}

/// What a body says it is.
struct Shaped {
    object: Value,
    found: String,
    api_version: String,
}

/// Brings a parsed object into the shape of its kind.
fn shaped(kind: &Kind, mut value: Value, lenient_numbers: bool) -> Result<(Shaped, Vec<Problem>), DecodeError> {
    let (found, api_version) = identify(kind, &value)?;
    let mut shaper = shape::Shaper { unknown: Vec::new(), lenient_numbers };
    shaper.object(&mut value, &kind.shape()).map_err(|e| unhandled(kind, &found, &api_version, e.to_string()))?;
    if kind.custom {
        let room = problems::MAX_PROBLEMS.saturating_sub(shaper.unknown.len());
        shaper.unknown.extend(kind.strategy.prune(&mut value).iter().take(room).map(|path| Problem::unknown_at(path)));
    }
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), kind.api_version().into());
        map.insert("kind".to_owned(), if kind.custom { found.clone().into() } else { (&*kind.kind).into() });
    }
    Ok((Shaped { object: value, found, api_version }, shaper.unknown))
}

fn unhandled(kind: &Kind, found: &str, api_version: &str, problem: String) -> DecodeError {
    DecodeError::Unhandled {
        found: found.to_owned(),
        version: super::split_api_version(api_version).1.to_owned(),
        kind: kind.kind.to_string(),
        problem,
    }
}

/// What unknown and duplicate fields mean to this request.
fn judge(
    kind: &Kind,
    shaped: Shaped,
    problems: Vec<String>,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let Shaped { object, found, api_version } = shaped;
    match validation {
        FieldValidation::Strict if !problems.is_empty() => {
            let problem = format!("strict decoding error: {}", problems.join(", "));
            Err(unhandled(kind, &found, &api_version, problem))
        }
        FieldValidation::Warn => Ok(Decoded { object, warnings: problems }),
        _ => Ok(Decoded { object, warnings: Vec::new() }),
    }
}

/// Checks `apiVersion` and `kind` of a body against the expected kind; missing ones are the expected.
fn identify(kind: &Kind, value: &Value) -> Result<(String, String), DecodeError> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
    let expected = kind.api_version();
    let found = text("kind").unwrap_or(&kind.kind).to_owned();
    let api_version = text("apiVersion").unwrap_or(&expected).to_owned();
    if found == kind.kind && api_version == expected {
        return Ok((found, api_version));
    }
    // What kind a custom resource says that it is its rules judge, as upstream's do.
    if kind.custom {
        return if api_version == expected {
            Ok((found, api_version))
        } else {
            Err(DecodeError::Version { found: api_version, expected })
        };
    }
    // Bodies that any group may send in its own version.
    if found == kind.kind && kind.kind == "DeleteOptions" {
        return Ok((found, api_version));
    }
    let version = super::split_api_version(&api_version).1.to_owned();
    let known = super::builtin().by_api_version(&api_version, &found).is_some();
    if known && found == kind.kind {
        return Err(DecodeError::Version { found: api_version, expected });
    }
    let problem = if known {
        let package = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or("") };
        format!("converting ({version}.{found}) to ({package}.{}): unknown conversion", kind.kind)
    } else {
        format!(
            "no kind \"{found}\" is registered for version \"{api_version}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        )
    };
    Err(DecodeError::Unhandled { found, version, kind: kind.kind.to_string(), problem })
}

/// The first bytes of a body as upstream shows them: text when it looks like JSON, else hex.
fn excerpt(body: &[u8]) -> String {
    const MAX: usize = 30;
    let (head, more) = if body.len() > MAX { (&body[..MAX], " ...") } else { (body, "") };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => format!("{}{more}", head.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}

#[cfg(test)]
mod tests;
