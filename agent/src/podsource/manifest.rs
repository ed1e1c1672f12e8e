//! A manifest's text → what it says, as upstream reads it (pkg/kubelet/config/common.go: `tryDecodeSinglePod`). Pure.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads JSON where the text begins with a brace, and else the first document of YAML as the JSON that it stands for
/// (apimachinery's pkg/util/yaml: `ToJSON`): of keys that are there twice the last counts, `<<` merges, and a number
/// without a fraction is an integer.
///
/// # Errors
/// For what is neither, or has no JSON form.
pub(super) fn read(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    let document = serde_norway::Deserializer::from_str(text).next().ok_or("it is empty")?;
    Json::deserialize(document).map(|json| json.0).map_err(|error| error.to_string())
}

/// YAML as JSON.
struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
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
        let number = serde_json::Number::from_f64(value);
        let number = number.ok_or_else(|| E::custom(format_args!("{value} is no number of JSON")))?;
        let integer = if value.fract() == 0.0 { format!("{value:.0}").parse::<i64>().ok() } else { None };
        Ok(integer.map_or(number.into(), Value::from))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Json(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (mut object, mut merged) = (Map::new(), None);
        while let Some(Json(key)) = map.next_key()? {
            let Json(value) = map.next_value()?;
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

/// Lays `others`, an object or several, below `object`: what is there stays, and what comes earlier counts.
fn merge(object: &mut Map<String, Value>, others: Value) -> Result<(), &'static str> {
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
