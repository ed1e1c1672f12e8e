//! The parsed schema: one [`Node`] for each schema, also for those in `allOf`, `anyOf`, `oneOf` and `not`. What only
//! people read is left out.

use serde_json::Value;

use crate::formats::Format;
use crate::raw;
use cel::pattern::Pattern;

/// The declared type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    #[default]
    Any,
    Object,
    Array,
    Number,
    Integer,
    Boolean,
    String,
    /// A word that is no type; no value is of it.
    Unknown,
    /// `x-kubernetes-int-or-string`, whatever `type` says.
    IntOrString,
}

impl Kind {
    /// A `type`.
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "" => Self::Any,
            "object" => Self::Object,
            "array" => Self::Array,
            "number" => Self::Number,
            "integer" => Self::Integer,
            "boolean" => Self::Boolean,
            "string" => Self::String,
            _ => Self::Unknown,
        }
    }

    /// The type as errors name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Any | Self::Unknown => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::IntOrString => "integer,string",
        }
    }

    pub(crate) const fn takes_integers(self) -> bool {
        matches!(self, Self::Integer | Self::IntOrString)
    }

    pub(crate) const fn takes_numbers(self) -> bool {
        matches!(self, Self::Number)
    }
}

/// `x-kubernetes-list-type`.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    /// With `x-kubernetes-list-map-keys`, sorted.
    Map(Box<[Box<str>]>),
}

/// `additionalProperties`.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    #[default]
    Absent,
    False,
    True,
    Schema(Box<Node>),
}

/// A CEL rule of `x-kubernetes-validations`.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The expression.
    pub rule: Box<str>,
    /// What a client is told; empty if nothing is said.
    pub message: Box<str>,
    /// An expression that gives the message; may be empty.
    pub message_expression: Box<str>,
    /// The error's reason, `FieldValueInvalid` where none is said.
    pub reason: Box<str>,
    /// The field that the error is about, relative to the schema; may be empty.
    pub field_path: Box<str>,
    /// Whether `oldSelf` is optional.
    pub optional_old_self: Option<bool>,
}

/// One schema.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) nullable: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded: bool,
    pub(crate) list_type: ListType,
    /// Sorted by name.
    properties: Box<[(Box<str>, Node)]>,
    /// Places of the properties that have a default: a list may have more items than its schema has properties, each of
    /// which is asked for what it lacks.
    #[expect(clippy::box_collection, reason = "a schema without defaults pays one word for them")]
    defaulted: Option<Box<Vec<u32>>>,
    pub(crate) items: Option<Box<Node>>,
    pub(crate) additional: Additional,
    pub(crate) default: Option<Box<Value>>,
    pub(crate) values: Option<Box<Values>>,
    #[expect(clippy::box_collection, reason = "a schema without rules pays one word for them")]
    rules: Option<Box<Vec<Rule>>>,
}

/// What a schema asks of values beyond their structure.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) format: Option<Format>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) maximum: Option<f64>,
    pub(crate) minimum: Option<f64>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) max_length: Option<i64>,
    pub(crate) min_length: Option<i64>,
    pub(crate) max_items: Option<i64>,
    pub(crate) min_items: Option<i64>,
    pub(crate) max_properties: Option<i64>,
    pub(crate) min_properties: Option<i64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) exclusive_minimum: bool,
    pub(crate) unique_items: bool,
    pub(crate) choices: Box<[Value]>,
    pub(crate) required: Box<[Box<str>]>,
    pub(crate) all_of: Box<[Node]>,
    pub(crate) any_of: Box<[Node]>,
    pub(crate) one_of: Box<[Node]>,
    pub(crate) not: Option<Box<Node>>,
}

impl Node {
    /// Parses a schema that [`raw::check`] let pass.
    ///
    /// # Errors
    /// What structural schemas do not have, in upstream's words (`pkg/apiserver/schema/convert.go`).
    pub(crate) fn parse(schema: &Value) -> Result<Self, String> {
        unsupported(schema)?;
        let int_or_string = raw::flag(schema, "x-kubernetes-int-or-string");
        let kind = if int_or_string { Kind::IntOrString } else { Kind::parse(raw::text(schema, "type")) };
        if raw::get(schema, "x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let text = "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined";
            return Err(text.to_owned());
        }
        let items = match raw::get(schema, "items") {
            Some(Value::Array(list)) if !list.is_empty() => {
                return Err("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
            }
            Some(items @ Value::Object(_)) => Some(Box::new(Self::parse(items)?)),
            _ => None,
        };
        let properties = raw::properties(schema)
            .map(|(name, schema)| Ok((name.as_str().into(), Self::parse(schema)?)))
            .collect::<Result<Box<[(Box<str>, Self)]>, String>>()?;
        debug_assert!(properties.is_sorted_by(|a, b| a.0 < b.0));
        Ok(Self {
            defaulted: defaulted(&properties),
            kind,
            nullable: raw::flag(schema, "nullable"),
            preserve_unknown: raw::flag(schema, "x-kubernetes-preserve-unknown-fields"),
            embedded: raw::flag(schema, "x-kubernetes-embedded-resource"),
            list_type: list_type(schema),
            properties,
            items,
            additional: match raw::get(schema, "additionalProperties") {
                Some(Value::Bool(true)) => Additional::True,
                Some(Value::Bool(false)) => Additional::False,
                Some(inner @ Value::Object(_)) => Additional::Schema(Box::new(Self::parse(inner)?)),
                _ => Additional::Absent,
            },
            default: raw::get(schema, "default").cloned().map(Box::new),
            values: Values::parse(schema, kind)?.map(Box::new),
            rules: rules(schema),
        })
    }

    /// The schema of a named property.
    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        self.properties.binary_search_by(|(other, _)| (**other).cmp(name)).ok().map(|at| &self.properties[at].1)
    }

    pub(crate) fn properties(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.properties.iter().map(|(name, node)| (&**name, node))
    }

    /// The properties that have a default.
    pub(crate) fn defaulted(&self) -> impl Iterator<Item = (&str, &Self)> {
        let places = self.defaulted.iter().flat_map(|places| places.iter());
        places.filter_map(|place| self.properties.get(*place as usize)).map(|(name, node)| (&**name, node))
    }

    /// The rules of this schema alone.
    pub(crate) fn own_rules(&self) -> &[Rule] {
        self.rules.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The schema of values of `additionalProperties`.
    pub(crate) fn additional_schema(&self) -> Option<&Self> {
        if let Additional::Schema(node) = &self.additional { Some(node) } else { None }
    }

    /// The schema of a field: its property's, or that of the additional ones.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.property(name).or_else(|| self.additional_schema())
    }

    pub(crate) fn collect_rules<'a>(&'a self, path: &mut String, found: &mut Vec<(String, &'a Rule)>) {
        found.extend(self.rules.iter().flat_map(|rules| rules.iter()).map(|rule| (path.clone(), rule)));
        let length = path.len();
        let mut step = |text: &str, node: &'a Self, found: &mut Vec<_>| {
            path.push_str(text);
            node.collect_rules(path, found);
            path.truncate(length);
        };
        for (name, node) in self.properties() {
            let dot = if length == 0 { "" } else { "." };
            step(&format!("{dot}{name}"), node, found);
        }
        for node in self.items.as_deref().into_iter().chain(self.additional_schema()) {
            step("[*]", node, found);
        }
    }
}

impl Values {
    fn parse(schema: &Value, kind: Kind) -> Result<Option<Self>, String> {
        let nodes = |key: &str| raw::list(schema, key).iter().map(Node::parse).collect::<Result<Box<_>, String>>();
        let values = Self {
            format: Format::parse(raw::text(schema, "format"), kind),
            pattern: Some(raw::text(schema, "pattern")).filter(|text| !text.is_empty()).map(Pattern::new),
            maximum: raw::number(schema, "maximum"),
            minimum: raw::number(schema, "minimum"),
            multiple_of: raw::number(schema, "multipleOf"),
            max_length: raw::integer(schema, "maxLength"),
            min_length: raw::integer(schema, "minLength"),
            max_items: raw::integer(schema, "maxItems"),
            min_items: raw::integer(schema, "minItems"),
            max_properties: raw::integer(schema, "maxProperties"),
            min_properties: raw::integer(schema, "minProperties"),
            exclusive_maximum: raw::flag(schema, "exclusiveMaximum"),
            exclusive_minimum: raw::flag(schema, "exclusiveMinimum"),
            unique_items: raw::flag(schema, "uniqueItems"),
            choices: raw::list(schema, "enum").into(),
            required: raw::texts(schema, "required").map(Into::into).collect(),
            all_of: nodes("allOf")?,
            any_of: nodes("anyOf")?,
            one_of: nodes("oneOf")?,
            not: raw::get(schema, "not").map(Node::parse).transpose()?.map(Box::new),
        };
        Ok(Some(values).filter(|values| !values.is_empty()))
    }

    fn is_empty(&self) -> bool {
        let bounds = [
            self.max_length,
            self.min_length,
            self.max_items,
            self.min_items,
            self.max_properties,
            self.min_properties,
        ];
        let nodes = [&self.all_of, &self.any_of, &self.one_of];
        self.format.is_none()
            && self.pattern.is_none()
            && [self.maximum, self.minimum, self.multiple_of].iter().all(Option::is_none)
            && bounds.iter().all(Option::is_none)
            && !self.unique_items
            && self.choices.is_empty()
            && self.required.is_empty()
            && nodes.iter().all(|nodes| nodes.is_empty())
            && self.not.is_none()
    }
}

#[expect(clippy::box_collection, reason = "see the field")]
fn defaulted(properties: &[(Box<str>, Node)]) -> Option<Box<Vec<u32>>> {
    let places = (0_u32..).zip(properties).filter(|(_, (_, node))| node.default.is_some()).map(|(place, _)| place);
    Some(places.collect::<Vec<u32>>()).filter(|places| !places.is_empty()).map(Box::new)
}

fn list_type(schema: &Value) -> ListType {
    match raw::text(schema, "x-kubernetes-list-type") {
        "set" => ListType::Set,
        "map" => {
            let mut keys: Vec<Box<str>> = raw::texts(schema, "x-kubernetes-list-map-keys").map(Into::into).collect();
            keys.sort_unstable();
            ListType::Map(keys.into())
        }
        _ => ListType::Atomic,
    }
}

#[expect(clippy::box_collection, reason = "see the field")]
fn rules(schema: &Value) -> Option<Box<Vec<Rule>>> {
    let text = |rule: &Value, key: &str| raw::text(rule, key).into();
    let rules: Vec<Rule> = raw::list(schema, "x-kubernetes-validations")
        .iter()
        .map(|rule| Rule {
            rule: text(rule, "rule"),
            message: text(rule, "message"),
            message_expression: text(rule, "messageExpression"),
            reason: text(rule, "reason"),
            field_path: text(rule, "fieldPath"),
            optional_old_self: raw::get(rule, "optionalOldSelf").and_then(Value::as_bool),
        })
        .collect();
    if rules.is_empty() { None } else { Some(Box::new(rules)) }
}

fn unsupported(schema: &Value) -> Result<(), String> {
    let full = |key: &str| raw::map(schema, key).is_some_and(|map| !map.is_empty());
    let found = [
        ("id", !raw::text(schema, "id").is_empty()),
        ("schema", !raw::text(schema, "$schema").is_empty()),
        ("$ref", !raw::text(schema, "$ref").is_empty()),
        ("patternProperties", full("patternProperties")),
        ("dependencies", full("dependencies")),
        ("additionalItems", raw::get(schema, "additionalItems").is_some()),
        ("definitions", full("definitions")),
    ]
    .into_iter()
    .find(|(_, found)| *found);
    found.map_or(Ok(()), |(key, _)| Err(format!("OpenAPIV3Schema '{key}' is not supported")))
}
