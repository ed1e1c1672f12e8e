//! The declarations of functions: which overloads each has, of which types. They are written as lines of text, one an
//! overload, beside what implements them in [`crate::library`], and read once.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::library::{self, Implementation};
use crate::types::Type;

/// One way in which a function may be called.
#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) id: &'static str,
    /// Whether the first argument stands before the dot.
    pub(crate) member: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
    /// The names of the types that are to be found.
    pub(crate) params: Vec<&'static str>,
}

/// A function with its overloads and what it does.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) overloads: Vec<Overload>,
    pub(crate) implementation: Implementation,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The function of a name.
pub(crate) fn function(name: &str) -> Option<&'static Function> {
    static FUNCTIONS: OnceLock<HashMap<&'static str, Function>> = OnceLock::new();
    FUNCTIONS.get_or_init(read).get(name)
}

fn read() -> HashMap<&'static str, Function> {
    let mut functions: HashMap<&'static str, Function> = HashMap::new();
    for table in library::TABLES {
        for (name, lines, implementation) in *table {
            let function = functions.entry(name).or_insert_with(|| Function {
                name,
                overloads: Vec::new(),
                implementation: *implementation,
            });
            function.overloads.extend(lines.lines().filter_map(overload));
        }
    }
    functions
}

/// Reads `id(type, type) -> type`; a dot before the id is of a member.
fn overload(line: &'static str) -> Option<Overload> {
    let line = line.trim();
    let open = line.find('(')?;
    let (member, id) = match line[..open].strip_prefix('.') {
        Some(id) => (true, id),
        None => (false, &line[..open]),
    };
    let mut params = Vec::new();
    let mut rest = &line[open + 1..];
    let mut args = Vec::new();
    while let Some(text) = rest.strip_prefix(", ").or_else(|| (!rest.starts_with(')')).then_some(rest)) {
        let (found, after) = read_type(text, &mut params)?;
        args.push(found);
        rest = after;
    }
    let (result, _) = read_type(rest.strip_prefix(") -> ")?, &mut params)?;
    Some(Overload { id, member, args, result, params })
}

/// The type that a text begins with, and what follows it.
fn read_type(text: &'static str, params: &mut Vec<&'static str>) -> Option<(Type, &'static str)> {
    let end = text.find([',', '(', ')']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let simple = match name {
        "list" | "map" | "type" | "optional" => return read_generic(name, rest.strip_prefix('(')?, params),
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "net.IP" | "net.CIDR" => Type::Opaque(name.into(), [].into()),
        name if name.contains('.') => Type::named(name),
        name => {
            if !params.contains(&name) {
                params.push(name);
            }
            Type::Param(name.into())
        }
    };
    Some((simple, rest))
}

fn read_generic(name: &str, inner: &'static str, params: &mut Vec<&'static str>) -> Option<(Type, &'static str)> {
    let (first, rest) = read_type(inner, params)?;
    let (found, rest) = match name {
        "list" => (Type::list(first), rest),
        "type" => (Type::Type(Some(first.into())), rest),
        "optional" => (Type::optional(first), rest),
        _ => {
            let (second, rest) = read_type(rest.strip_prefix(", ")?, params)?;
            (Type::map(first, second), rest)
        }
    };
    Some((found, rest.strip_prefix(')')?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_line_of_the_tables_is_read() {
        for table in library::TABLES {
            for (name, lines, _) in *table {
                for line in lines.lines().filter(|line| !line.trim().is_empty()) {
                    assert!(overload(line).is_some(), "{name}: {line}");
                }
                assert!(!function(name).unwrap().overloads.is_empty(), "{name}");
            }
        }
    }
}
