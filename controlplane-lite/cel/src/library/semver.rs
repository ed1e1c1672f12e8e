//! Semantic versions (`semverlib.go` of Kubernetes' library, version 1; `blang/semver`).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::{Outcome, Scope, Table};
use crate::error::EvalError;
use crate::value::{Object, Value};

pub(super) const TABLE: Table = &[
    (
        "semver",
        "string_to_semver(string) -> kubernetes.Semver\nstring_bool_to_semver(string, bool) -> kubernetes.Semver",
        semver,
    ),
    ("isSemver", "is_semver_string(string) -> bool\nis_semver_string_bool(string, bool) -> bool", is_semver),
    ("major", ".semver_major(kubernetes.Semver) -> int", major),
    ("minor", ".semver_minor(kubernetes.Semver) -> int", minor),
    ("patch", ".semver_patch(kubernetes.Semver) -> int", patch),
];

/// A version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    numbers: [u64; 3],
    pre: Vec<String>,
    build: String,
}

impl Version {
    /// Which version comes first; builds do not matter.
    pub(crate) fn precedence(&self, other: &Self) -> Ordering {
        order(self, other)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.numbers[0], self.numbers[1], self.numbers[2])?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre.join("."))?;
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}

/// Which of two versions comes first.
pub(super) fn order(a: &Version, b: &Version) -> Ordering {
    a.numbers.cmp(&b.numbers).then_with(|| match (a.pre.is_empty(), b.pre.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let parts = a.pre.iter().zip(&b.pre).map(|(a, b)| part_order(a, b));
            parts.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.pre.len().cmp(&b.pre.len()))
        }
    })
}

/// Numbers come before words, and by their values.
fn part_order(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn parse(text: &str) -> Result<Version, String> {
    if text.is_empty() {
        return Err("Version string empty".to_owned());
    }
    let mut parts = text.splitn(3, '.');
    let (Some(first), Some(second), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("No Major.Minor.Patch elements found".to_owned());
    };
    let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
    let (third, pre) = rest.split_once('-').map_or((rest, None), |(third, pre)| (third, Some(pre)));
    let mut numbers = [0; 3];
    for ((number, text), name) in numbers.iter_mut().zip([first, second, third]).zip(["major", "minor", "patch"]) {
        if !digits(text) {
            return Err(format!("Invalid character(s) found in {name} number {text:?}"));
        }
        if text.len() > 1 && text.starts_with('0') {
            let title = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
            return Err(format!("{title} number must not contain leading zeroes {text:?}"));
        }
        *number = text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))?;
    }
    let allowed = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let mut prereleases = Vec::new();
    for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
        if part.is_empty() {
            return Err("Prerelease is empty".to_owned());
        }
        if !allowed(part) {
            return Err(format!("Invalid character(s) found in prerelease {part:?}"));
        }
        if digits(part) && part.len() > 1 && part.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {part:?}"));
        }
        prereleases.push(part.to_owned());
    }
    for part in build.into_iter().flat_map(|build| build.split('.')) {
        if part.is_empty() {
            return Err("Build meta data is empty".to_owned());
        }
        if !allowed(part) {
            return Err(format!("Invalid character(s) found in build meta data {part:?}"));
        }
    }
    Ok(Version { numbers, pre: prereleases, build: build.unwrap_or_default().to_owned() })
}

/// Reads a version that may begin with `v`, have zeros before its numbers, or fewer than three of them.
fn normalize_and_parse(text: &str) -> Result<Version, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| {
            if part.len() <= 1 {
                return part.to_owned();
            }
            let bare = part.trim_start_matches('0');
            if bare.starts_with(|c: char| c.is_ascii_digit()) { bare.to_owned() } else { format!("0{bare}") }
        })
        .collect();
    if parts.len() < 3 {
        if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".to_owned());
        }
        parts.resize(3, "0".to_owned());
    }
    parse(&parts.join("."))
}

fn read(args: &[Value<'_>]) -> Option<Result<Version, String>> {
    match args {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Some(parse(text)),
        [Value::String(text), Value::Bool(true)] => Some(normalize_and_parse(text)),
        _ => None,
    }
}

fn semver<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match read(args) {
        Some(Ok(version)) => Ok(Value::Object(Object::Semver(Arc::new(version)))),
        Some(Err(why)) => Err(EvalError::new(why)),
        None => scope.refuse(args),
    }
}

fn is_semver<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    read(args).map_or_else(|| scope.refuse(args), |version| Ok(Value::Bool(version.is_ok())))
}

fn number<'a>(scope: &Scope<'_>, args: &[Value<'a>], place: usize) -> Outcome<'a> {
    match args {
        [Value::Object(Object::Semver(version))] => {
            Ok(Value::Int(i64::try_from(version.numbers[place]).unwrap_or(i64::MAX)))
        }
        _ => scope.refuse(args),
    }
}

fn major<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    number(scope, args, 0)
}

fn minor<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    number(scope, args, 1)
}

fn patch<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    number(scope, args, 2)
}
