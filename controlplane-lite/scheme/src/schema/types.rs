//! The table of object types that the build script wrote: a line `NAME FIELD:TYPE FIELD!:TYPE …` for each, sorted by
//! name, `!` after what is required. It is read where it lies: a lookup is a binary search, and only the lines of
//! types in use are ever parsed.

use super::Type;

/// The types of everything the build script's roots need.
pub(super) static TABLE: &str = include_str!(concat!(env!("OUT_DIR"), "/types.txt"));

/// A field as the table describes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Property<'t> {
    /// JSON name.
    pub name: &'t str,
    /// Whether it must be there.
    pub required: bool,
    /// The word for its type.
    pub ty: &'t str,
}

/// What follows the first word `name` on its line, in a text of lines sorted by their first words.
pub(crate) fn find<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let bytes = text.as_bytes();
    // Both always at the start of a line, or at the end of the text.
    let (mut low, mut high) = (0, bytes.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let start = bytes[low..middle].iter().rposition(|b| *b == b'\n').map_or(low, |at| low + at + 1);
        let end = bytes[middle..high].iter().position(|b| *b == b'\n').map_or(high, |at| middle + at);
        let (first, rest) = text[start..end].split_once(' ').unwrap_or((&text[start..end], ""));
        match first.cmp(name) {
            std::cmp::Ordering::Equal => return Some(rest),
            std::cmp::Ordering::Less => low = high.min(end + 1),
            std::cmp::Ordering::Greater => high = start,
        }
    }
    None
}

/// The fields of a line; words that describe none are passed over.
pub(super) fn properties(line: &str) -> impl Iterator<Item = Property<'_>> {
    line.split(' ').filter_map(|word| {
        let (field, ty) = word.split_once(':')?;
        let (name, required) = field.strip_suffix('!').map_or((field, false), |name| (name, true));
        (!name.is_empty() && !ty.is_empty()).then_some(Property { name, required, ty })
    })
}

/// The type of a word that names no other type; `None` for lists, maps and objects.
pub(super) fn scalar(word: &str) -> Option<Type> {
    Some(match word {
        "any" => Type::Any,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "time" => Type::Time,
        "micro-time" => Type::MicroTime,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "float" => Type::Float,
        "bool" => Type::Bool,
        "int-or-string" => Type::IntOrString,
        "quantity" => Type::Quantity,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds_lines_by_their_first_word() {
        let table = "a 1\nab 2 3\nb\nc.d 4\n";
        let cases = [
            (table, "a", Some("1")),
            (table, "ab", Some("2 3")),
            (table, "b", Some("")),
            (table, "c.d", Some("4")),
            (table, "", None),
            (table, "0", None),
            (table, "aa", None),
            (table, "c", None),
            (table, "z", None),
            // A last line without end, no line, empty lines, other letters.
            ("a 1\nb 2", "b", Some("2")),
            ("", "a", None),
            ("\n", "a", None),
            ("\n\n\n", "", Some("")),
            ("ä 1\né 2\nö 3", "é", Some("2")),
            ("ä 1\né 2\nö 3", "\u{e8}", None),
        ];
        for (text, name, expect) in cases {
            assert_eq!(find(text, name), expect, "{name:?} in {text:?}");
        }
    }

    #[test]
    fn finds_every_line_of_the_table() {
        let names: Vec<&str> = TABLE.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert!(names.is_sorted() && names.len() > 300, "{}", names.len());
        for (name, line) in names.iter().zip(TABLE.lines()) {
            assert_eq!(find(TABLE, name), line.strip_prefix(name).unwrap().strip_prefix(' '), "{name}");
        }
    }

    #[test]
    fn passes_over_what_is_no_field() {
        let property = |name, required, ty| Property { name, required, ty };
        let cases: [(&str, &[Property<'_>]); 6] = [
            ("", &[]),
            ("  ", &[]),
            ("a:string b!:[]c", &[property("a", false, "string"), property("b", true, "[]c")]),
            ("a: :b !:c : ! a", &[]),
            ("a:b:c", &[property("a", false, "b:c")]),
            ("a!!:b", &[property("a!", true, "b")]),
        ];
        for (line, expect) in cases {
            assert_eq!(properties(line).collect::<Vec<_>>(), expect, "{line:?}");
        }
    }
}
