//! The lines of keys that YAML text repeats, as Go's decoder tells them. The parser says that there are such keys, not
//! where; this looks for them in mappings in block style, by their indentation, and is asked for that alone.

use std::collections::HashSet;

/// Repeated keys that are told.
const MAX_TOLD: usize = 100;

/// What Go's decoder says of a text that repeats so many keys; nothing where not all of them are found.
pub(super) fn told(text: &str, count: usize) -> Option<String> {
    if count == 0 {
        return None;
    }
    let found = find(text);
    if found.len() < count {
        return None;
    }
    let lines = found.iter().map(|(line, key)| format!("\n  line {line}: key \"{key}\" already set in map"));
    Some(format!("yaml: unmarshal errors:{}", lines.collect::<String>()))
}

/// A mapping that is being read.
struct Mapping<'t> {
    indent: usize,
    keys: HashSet<&'t str>,
}

fn find(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut open: Vec<Mapping<'_>> = Vec::new();
    // Lines that are deeper than this are those of a text.
    let mut scalar: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        let rest = line.trim_start_matches(' ');
        let mut indent = line.len() - rest.len();
        if rest.is_empty() || scalar.is_some_and(|above| indent > above) {
            continue;
        }
        scalar = None;
        if rest.starts_with('#') {
            continue;
        }
        let mut rest = rest;
        let begins = indent;
        while let Some(item) = rest.strip_prefix("- ") {
            open.retain(|mapping| mapping.indent <= indent);
            let inner = item.trim_start_matches(' ');
            indent += 2 + item.len() - inner.len();
            // Every item has a mapping of its own.
            open.retain(|mapping| mapping.indent < indent);
            rest = inner;
        }
        open.retain(|mapping| mapping.indent <= indent);
        let Some((key, value)) = entry(rest) else { continue };
        if value.starts_with(['|', '>']) {
            scalar = Some(if indent == begins { indent } else { begins });
        }
        match open.last_mut().filter(|mapping| mapping.indent == indent) {
            Some(mapping) => {
                if !mapping.keys.insert(key) && found.len() < MAX_TOLD {
                    found.push((number + 1, key));
                }
            }
            None => open.push(Mapping { indent, keys: HashSet::from([key]) }),
        }
    }
    found
}

/// The key and what follows it on its line.
fn entry(line: &str) -> Option<(&str, &str)> {
    let quote = line.chars().next().filter(|c| matches!(c, '"' | '\''));
    let (key, rest) = match quote {
        Some(quote) => line[1..].split_once(quote)?,
        None => (line.split(':').next()?, ""),
    };
    let rest = if quote.is_some() { rest.trim_start() } else { &line[key.len()..] };
    let value = rest.strip_prefix(':')?;
    (value.is_empty() || value.starts_with(' ')).then(|| (key.trim_end(), value.trim_start()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn repeated_keys_are_found_by_their_lines() {
        for (text, expect) in [
            ("a: 1\nb: 2\n", &[][..]),
            ("a: 1\na: 2\n", &[(2, "a")]),
            ("\ns:\n  x: 1\n  \"x\": 2\nx: 3\n", &[(4, "x")]),
            ("l:\n- n: 1\n  m: 2\n- n: 3\n  n: 4\n", &[(5, "n")]),
            ("l:\n  - n: 1\n    n: 2\nl: []\n", &[(3, "n"), (4, "l")]),
            ("t: |\n  a: 1\n  a: 2\na: 3\n", &[]),
            ("l:\n- t: >\n    a: 1\n    a: 2\n  # a: 1\n  b: http://x:1\n", &[]),
            ("a:\n  x: 1\nb:\n  x: 2\n", &[]),
        ] {
            assert_eq!(find(text), expect, "{text:?}");
        }
        assert_eq!(told("a: 1\na: 2", 1).unwrap(), "yaml: unmarshal errors:\n  line 2: key \"a\" already set in map");
        assert_eq!(told("a: {x: 1, x: 2}", 1), None);
    }
}
