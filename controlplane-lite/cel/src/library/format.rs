//! Named formats (`format.go` of Kubernetes' library): what names and other texts must look like.

use base64::Engine;

use super::{Outcome, Scope, Table, urls};
use crate::time;
use crate::value::{Object, Value};

/// A format: its name, the texts of what is wrong with a value, and the size of its pattern that costs are counted by.
#[derive(Debug)]
pub struct Format {
    pub(crate) name: &'static str,
    /// The name of the function that gives it, behind `format.`.
    key: &'static str,
    validate: fn(&str) -> Vec<String>,
    pub(crate) pattern_size: usize,
}

const FORMATS: &[Format] = &[
    Format { name: "DNS1123Label", key: "dns1123Label", validate: |s| dns_label(s, false), pattern_size: 30 },
    Format {
        name: "DNS1123Subdomain",
        key: "dns1123Subdomain",
        validate: |s| dns_subdomain(s, false),
        pattern_size: 60,
    },
    Format { name: "DNS1035Label", key: "dns1035Label", validate: |s| dns1035_label(s, false), pattern_size: 30 },
    Format { name: "QualifiedName", key: "qualifiedName", validate: qualified_name, pattern_size: 60 },
    Format {
        name: "DNS1123LabelPrefix",
        key: "dns1123LabelPrefix",
        validate: |s| dns_label(s, true),
        pattern_size: 30,
    },
    Format {
        name: "DNS1123SubdomainPrefix",
        key: "dns1123SubdomainPrefix",
        validate: |s| dns_subdomain(s, true),
        pattern_size: 60,
    },
    Format {
        name: "DNS1035LabelPrefix",
        key: "dns1035LabelPrefix",
        validate: |s| dns1035_label(s, true),
        pattern_size: 30,
    },
    Format { name: "LabelValue", key: "labelValue", validate: label_value, pattern_size: 40 },
    Format { name: "URI", key: "uri", validate: |s| urls::parse(s).err().into_iter().collect(), pattern_size: 1103 },
    Format {
        name: "uuid",
        key: "uuid",
        validate: |s| refuse(uuid(s), "does not match the UUID format"),
        pattern_size: 70,
    },
    Format { name: "byte", key: "byte", validate: |s| refuse(base64(s), "invalid base64"), pattern_size: 84 },
    Format { name: "date", key: "date", validate: |s| refuse(date(s), "invalid date"), pattern_size: 71 },
    Format {
        name: "datetime",
        key: "datetime",
        validate: |s| refuse(time::parse_timestamp(s).is_ok(), "invalid datetime"),
        pattern_size: 71,
    },
];

const GIVEN: &str = "format() -> kubernetes.NamedFormat";

pub(super) const TABLE: Table = &[
    ("format.named", "format-named(string) -> optional(kubernetes.NamedFormat)", named),
    ("validate", ".format-validate(kubernetes.NamedFormat, string) -> optional(list(string))", validate),
    ("format.dns1123Label", GIVEN, given),
    ("format.dns1123Subdomain", GIVEN, given),
    ("format.dns1035Label", GIVEN, given),
    ("format.qualifiedName", GIVEN, given),
    ("format.dns1123LabelPrefix", GIVEN, given),
    ("format.dns1123SubdomainPrefix", GIVEN, given),
    ("format.dns1035LabelPrefix", GIVEN, given),
    ("format.labelValue", GIVEN, given),
    ("format.uri", GIVEN, given),
    ("format.uuid", GIVEN, given),
    ("format.byte", GIVEN, given),
    ("format.date", GIVEN, given),
    ("format.datetime", GIVEN, given),
];

fn find(key: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.key == key)
}

fn named<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(key)] => Ok(match find(key) {
            Some(format) => Value::some(Value::Object(Object::Format(format))),
            None => Value::Optional(None),
        }),
        _ => scope.refuse(args),
    }
}

/// The format that the function's name is of.
fn given<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match scope.name.strip_prefix("format.").and_then(find) {
        Some(format) if args.is_empty() => Ok(Value::Object(Object::Format(format))),
        _ => scope.refuse(args),
    }
}

fn validate<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Object(Object::Format(format)), Value::String(text)] = args else { return scope.refuse(args) };
    scope.budget.steps(text.len() / 8)?;
    let problems = (format.validate)(text);
    if problems.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::list(problems.into_iter().map(Value::text).collect())))
}

fn refuse(valid: bool, why: &str) -> Vec<String> {
    if valid { Vec::new() } else { vec![why.to_owned()] }
}

/// The text of a pattern that a value does not match (`RegexError` of apimachinery).
fn pattern_error(message: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    let shown = examples.join(" or ");
    format!("{message} (e.g. {shown}regex used for validation is '{pattern}')")
}

/// A name of which only the beginning is there may end with a dash.
fn masked(name: &str, prefix: bool) -> String {
    match name.strip_suffix('-') {
        Some(start) if prefix && name.len() > 1 => format!("{start}a"),
        _ => name.to_owned(),
    }
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty() && text.bytes().all(|b| inner(b) || b == b'-') && !text.starts_with('-') && !text.ends_with('-')
}

/// What is wrong with a name that is a label.
pub(super) fn dns_label(name: &str, prefix: bool) -> Vec<String> {
    let name = masked(name, prefix);
    let mut problems = too_long(&name, 63);
    if !is_label(&name) {
        problems.push(pattern_error(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character",
            "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "123-abc"],
        ));
    }
    problems
}

/// What is wrong with a name that is a subdomain.
pub(super) fn dns_subdomain(name: &str, prefix: bool) -> Vec<String> {
    let name = masked(name, prefix);
    let mut problems = too_long(&name, 253);
    if !name.split('.').all(is_label) {
        problems.push(pattern_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    problems
}

fn dns1035_label(name: &str, prefix: bool) -> Vec<String> {
    let name = masked(name, prefix);
    let mut problems = too_long(&name, 63);
    if !is_label(&name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        problems.push(pattern_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    problems
}

fn too_long(text: &str, most: usize) -> Vec<String> {
    if text.len() > most { vec![format!("must be no more than {most} bytes")] } else { Vec::new() }
}

/// Whether a text is the name of a label, without a prefix.
fn is_name(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.chars().all(|c| alphanumeric(c) || matches!(c, '-' | '_' | '.'))
}

fn qualified_name(text: &str) -> Vec<String> {
    let pattern = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    let message = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                   alphanumeric character";
    let mut problems = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(dns_subdomain(prefix, false).into_iter().map(|why| format!("prefix part {why}")));
            }
            name
        }
        _ => {
            let why = pattern_error(message, pattern, &["MyName", "my.name", "123-abc"]);
            return vec![format!(
                "a qualified name {why} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_name(name) {
        let why = pattern_error(message, pattern, &["MyName", "my.name", "123-abc"]);
        problems.push(format!("name part {why}"));
    }
    problems
}

fn label_value(text: &str) -> Vec<String> {
    let mut problems = too_long(text, 63);
    if !text.is_empty() && !is_name(text) {
        problems.push(pattern_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

fn uuid(text: &str) -> bool {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let dashes =
        text.char_indices().filter(|(_, c)| *c == '-').all(|(at, _)| matches!(at, 8 | 12 | 13 | 16..=18 | 20..=23));
    digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()) && dashes
}

fn base64(text: &str) -> bool {
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn date(text: &str) -> bool {
    time::parse_timestamp(&format!("{text}T00:00:00Z")).is_ok()
}
