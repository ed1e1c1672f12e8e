//! YAML as Kubernetes reads it: by YAML 1.1's words and numbers, and as the JSON that it stands for (sigs.k8s.io/yaml,
//! `yaml.go` over `goyaml.v2/resolve.go`). The parser underneath knows YAML 1.2's alone, and gives what it takes for
//! texts out of the document, so that [`word`] can see how they were written.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The documents of a text. Of keys that are there twice the last counts, `<<` merges, and a number without a fraction
/// is an integer.
///
/// # Errors
/// Each is an error when it is no YAML, or has no JSON form; what follows broken text is not to be trusted.
pub fn documents(text: &str) -> impl Iterator<Item = serde_norway::Result<Value>> {
    serde_norway::Deserializer::from_str(text).map(move |document| Json { text }.deserialize(document))
}

/// The first document of a text, null where there is none.
///
/// # Errors
/// As of [`documents`].
pub fn first(text: &str) -> serde_norway::Result<Value> {
    documents(text).next().unwrap_or(Ok(Value::Null))
}

/// What a scalar of `document` is that YAML 1.2 takes for a text, unless it is one: a word for a truth (`yes`, `off`,
/// `y`), an octal number (`0644`), a number with underscores. Texts in quotes or with a tag are texts, and so are
/// numbers of base 60 and times.
#[must_use]
pub fn word(document: &str, scalar: &str) -> Option<Value> {
    resolve(scalar).filter(|_| is_plain(document, scalar))
}

/// Whether a slice of the document stands there without quotes and tags.
fn is_plain(document: &str, scalar: &str) -> bool {
    let offset = scalar.as_ptr().addr().checked_sub(document.as_ptr().addr());
    let Some(before) = offset.and_then(|offset| document.get(..offset)) else { return false };
    if before.ends_with(['"', '\'']) {
        return false;
    }
    let marks = before.rsplit([' ', '\t', '\r', '\n', '[', '{', ',']);
    let mut marks = marks.filter(|mark| !mark.is_empty() && !mark.starts_with('&'));
    !marks.next().is_some_and(|mark| mark.starts_with('!'))
}

fn resolve(text: &str) -> Option<Value> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Some(true.into()),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Some(false.into()),
        _ if !text.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-') => return None,
        _ => {}
    }
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| plain.parse().ok().filter(|_| is_float(&plain)).and_then(number))
}

/// An integer as Go's `strconv.ParseInt` reads it with base 0.
fn integer(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let bases = [(["0x", "0X"], 16), (["0b", "0B"], 2), (["0o", "0O"], 8)];
    let named = bases.iter().find_map(|(marks, base)| {
        let rest = marks.iter().find_map(|mark| digits.strip_prefix(mark))?;
        Some((rest, *base))
    });
    let (digits, base) = named.unwrap_or(match digits.strip_prefix('0') {
        Some(rest) if !rest.is_empty() => (rest, 8),
        _ => (digits, 10),
    });
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let value = i128::from_str_radix(digits, base).ok()?;
    let value = if text.starts_with('-') { -value } else { value };
    let unsigned = || u64::try_from(value).ok().filter(|_| !text.starts_with('+')).map(Value::from);
    i64::try_from(value).ok().map(Value::from).or_else(unsigned)
}

/// Whether a number is written as YAML 1.1 writes one with a fraction: digits and a point, and perhaps an exponent.
fn is_float(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
}

/// A number of JSON as Go writes a `float64`.
fn number(value: f64) -> Option<Value> {
    let number = Number::from_f64(value)?;
    let integer = if value.fract() == 0.0 { format!("{value:.0}").parse::<i64>().ok() } else { None };
    Some(integer.map_or(number.into(), Value::from))
}

/// Reads a part of a document as JSON.
#[derive(Clone, Copy)]
struct Json<'t> {
    /// The document.
    text: &'t str,
}

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("something that JSON has, too")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        number(value).ok_or_else(|| E::custom(format_args!("{value} is no number of JSON")))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Value, E> {
        Ok(word(self.text, value).unwrap_or_else(|| value.into()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (mut object, mut merged) = (Map::new(), None);
        while let Some(key) = map.next_key_seed(self)? {
            let value = map.next_value_seed(self)?;
            let key = match key {
                Value::String(key) => key,
                Value::Bool(_) | Value::Number(_) => key.to_string(),
                _ => return Err(A::Error::custom("a key that is no scalar")),
            };
            if key == "<<" {
                merged = Some(value);
            } else {
                object.insert(key, value);
            }
        }
        if let Some(merged) = merged {
            merge(&mut object, merged).map_err(A::Error::custom)?;
        }
        Ok(object.into())
    }
}

/// What a key `<<` means: lays `others`, an object or several, below `object`. What is there stays, and what comes
/// earlier counts.
///
/// # Errors
/// For what is no object.
pub fn merge(object: &mut Map<String, Value>, others: Value) -> Result<(), &'static str> {
    let others = match others {
        Value::Array(others) => others,
        other => vec![other],
    };
    for other in others {
        let Value::Object(other) = other else { return Err("<< merges maps, and this is none") };
        for (key, value) in other {
            object.entry(key).or_insert(value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// Cases of goyaml.v2's `decode_test.go`, and what stands between them.
    #[test]
    fn scalars_are_those_of_yaml_1_1() {
        for (text, expect) in [
            ("yes", json!(true)),
            ("Y", json!(true)),
            ("ON", json!(true)),
            ("no", json!(false)),
            ("Off", json!(false)),
            ("N", json!(false)),
            ("yEs", json!("yEs")),
            ("onion", json!("onion")),
            ("TRUE", json!(true)),
            ("~", json!(null)),
            ("0644", json!(420)),
            ("-0644", json!(-420)),
            ("02472256", json!(685_230)),
            ("0o17", json!(15)),
            ("0O17", json!(15)),
            ("08", json!(8)),
            ("089.5", json!(89.5)),
            ("685_230", json!(685_230)),
            ("+685_230.5", json!(685_230.5)),
            ("1_000.0", json!(1_000)),
            ("0x_0A_74_AE", json!(685_230)),
            ("0XFF", json!(255)),
            ("-0b101010", json!(-42)),
            ("0b1010_0111", json!(167)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1_8446744073709551615", json!(u64::MAX)),
            ("1e3", json!(1_000)),
            (".5", json!(0.5)),
            ("._5", json!("._5")),
            ("1e999", json!("1e999")),
            ("190:20:30", json!("190:20:30")),
            ("2001-12-14", json!("2001-12-14")),
            ("0x", json!("0x")),
            ("0x+1", json!("0x+1")),
            ("+_", json!("+_")),
            ("1-2", json!("1-2")),
        ] {
            assert_eq!(first(&format!("a: {text} # yes\n")).unwrap(), json!({"a": expect}), "{text}");
        }
    }

    #[test]
    fn what_is_quoted_or_tagged_is_a_text() {
        let text = "a: \"yes\"\nb: 'no'\nc: !!str on\nd: [!!str &x off, \"0644\", &y y, *x, *y]\ne: |\n  yes\nf: >-\n  no\n\
                    yes: {on: 1, \"off\": 2, 010: 3}\ng: \"a\\tb\"\n";
        let expect = json!({
            "a": "yes", "b": "no", "c": "on", "d": ["off", "0644", true, "off", true], "e": "yes\n", "f": "no",
            "true": {"true": 1, "off": 2, "8": 3}, "g": "a\tb",
        });
        assert_eq!(first(text).unwrap(), expect);
        let several: Vec<Value> = documents("a: on\n---\nb: 'on'\n---\n").map(Result::unwrap).collect();
        assert_eq!(several, [json!({"a": true}), json!({"b": "on"}), json!(null)]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_not(text in ".{0,80}") {
            let _ = documents(&text).take(10).count();
            let _ = word(&text, &text);
        }
    }
}
