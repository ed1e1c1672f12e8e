//! The parser (`parser.go`). One pass over the text; what stands in unions, filters and quotes in brackets is parsed as
//! an expression of its own, and cannot hold such ones in turn.

use super::{Node, Operator, Slice};

/// Why a template is none, in client-go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The closing brace is missing.
    #[error("unclosed action")]
    UnclosedAction,
    /// A character that begins nothing.
    #[error("unrecognized character in action: U+{:04X} {}", u32::from(*.0), quoted(*.0))]
    Unrecognized(char),
    /// Recursive descent twice.
    #[error("invalid multiple recursive descent")]
    MultipleRecursion,
    /// Digits that are no number.
    #[error("cannot parse number {0}")]
    Number(String),
    /// The closing bracket is missing.
    #[error("unterminated array")]
    UnterminatedArray,
    /// Neither an index nor a slice nor a name in quotes.
    #[error("invalid array index {0}")]
    Index(String),
    /// An index that is too large.
    #[error("array index {0} is not a number")]
    LargeIndex(String),
    /// The closing parenthesis is missing.
    #[error("unterminated filter")]
    UnterminatedFilter,
    /// What follows a filter is no bracket.
    #[error("unclosed array expect ]")]
    UnclosedFilter,
    /// The closing quote is missing.
    #[error("unterminated quoted string")]
    UnterminatedQuote,
    /// An escape that means nothing.
    #[error("unquote string {0} error invalid syntax")]
    Quote(String),
}

fn quoted(c: char) -> String {
    if c.is_control() { String::new() } else { format!("'{c}'") }
}

type Nodes = Vec<Node>;

/// Text and expressions.
pub(super) fn template(text: &str) -> Result<Vec<Nodes>, ParseError> {
    let (mut blocks, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (before, from) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
        if !before.is_empty() {
            blocks.push(vec![Node::Text(before.into())]);
        }
        let Some(inside) = from.strip_prefix('{') else { break };
        let mut parser = Parser { rest: inside, nodes: Vec::new() };
        parser.action()?;
        blocks.push(parser.nodes);
        rest = parser.rest;
    }
    Ok(blocks)
}

/// An expression within another one, up to the brace that would end it.
fn inner(text: &str) -> Result<Nodes, ParseError> {
    Ok(template(&format!("{{{text}}}"))?.into_iter().next().unwrap_or_default())
}

struct Parser<'t> {
    rest: &'t str,
    nodes: Nodes,
}

impl<'t> Parser<'t> {
    /// Steps up to the closing brace.
    fn action(&mut self) -> Result<(), ParseError> {
        loop {
            if let Some(rest) = self.rest.strip_prefix('}') {
                self.rest = rest;
                return Ok(());
            }
            if let Some(rest) = self.rest.strip_prefix("[?(") {
                self.rest = rest;
                self.filter()?;
                continue;
            }
            if let Some(rest) = self.rest.strip_prefix("..") {
                self.rest = rest;
                self.recursion()?;
                continue;
            }
            self.step()?;
        }
    }

    fn step(&mut self) -> Result<(), ParseError> {
        let Some(first) = self.rest.chars().next() else { return Err(ParseError::UnclosedAction) };
        let after = &self.rest[first.len_utf8()..];
        match first {
            '\r' | '\n' => return Err(ParseError::UnclosedAction),
            ' ' | '@' | '$' => self.rest = after,
            '[' => {
                self.rest = after;
                self.brackets()?;
            }
            '"' | '\'' => self.quote(first)?,
            '.' => {
                self.rest = after;
                self.field();
            }
            '+' | '-' => self.number()?,
            digit if digit.is_numeric() => self.number()?,
            letter if letter == '_' || letter.is_alphanumeric() => self.identifier(),
            other => return Err(ParseError::Unrecognized(other)),
        }
        Ok(())
    }

    /// Takes what comes before the first character of this kind, which stays.
    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'t str {
        let (taken, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn recursion(&mut self) -> Result<(), ParseError> {
        if self.nodes.last() == Some(&Node::Recursive) {
            return Err(ParseError::MultipleRecursion);
        }
        self.nodes.push(Node::Recursive);
        if self.rest.starts_with(|c: char| c == '_' || c.is_alphanumeric()) {
            self.field();
        }
        Ok(())
    }

    /// A name, in which a backslash makes the next character part of it.
    fn field(&mut self) {
        let mut escaped = false;
        let end = self.rest.find(|c| {
            let ends = !escaped && is_terminator(c);
            escaped = !escaped && c == '\\';
            ends
        });
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        self.nodes.push(if name == "*" { Node::Wildcard } else { Node::Field(name.replace('\\', "")) });
    }

    fn identifier(&mut self) {
        let word = self.until(is_terminator);
        self.nodes.push(match word {
            "true" => Node::Bool(true),
            "false" => Node::Bool(false),
            other => Node::Identifier(other.to_owned()),
        });
    }

    fn number(&mut self) -> Result<(), ParseError> {
        let digits = self.rest.strip_prefix(['+', '-']).unwrap_or(self.rest);
        let sign = self.rest.len() - digits.len();
        let end = sign + digits.find(|c: char| c != '.' && !c.is_numeric()).unwrap_or(digits.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let node = match (text.parse(), text.parse::<f64>()) {
            (Ok(number), _) => Node::Int(number),
            (_, Ok(number)) if number.is_finite() => Node::Float(number),
            _ => return Err(ParseError::Number(text.to_owned())),
        };
        self.nodes.push(node);
        Ok(())
    }

    /// After `[`: a union, a name in quotes, an index, a slice or all.
    fn brackets(&mut self) -> Result<(), ParseError> {
        let end = self.rest.find([']', '\n']).filter(|end| self.rest[*end..].starts_with(']'));
        let (text, rest) = self.rest.split_at(end.ok_or(ParseError::UnterminatedArray)?);
        self.rest = &rest[1..];
        let parts: Vec<&str> = text.split(',').collect();
        if parts.len() > 1 {
            let parts = parts.iter().map(|part| inner(&format!("[{}]", part.trim_matches(' '))));
            self.nodes.push(Node::Union(parts.collect::<Result<_, _>>()?));
            return Ok(());
        }
        let quoted = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
        if let Some(name) = quoted.filter(|name| !name.contains('\'')) {
            self.nodes.extend(inner(&format!(".{name}"))?);
            return Ok(());
        }
        self.nodes.push(Node::Slice(slice(if text == "*" { ":" } else { text })?));
        Ok(())
    }

    /// A text in quotes, with Go's escapes.
    fn quote(&mut self, quote: char) -> Result<(), ParseError> {
        let end = closing(self.rest, quote).ok_or(ParseError::UnterminatedQuote)?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let unquoted = unquote(&text[1..text.len() - 1], quote);
        self.nodes.push(Node::Text(unquoted.ok_or_else(|| ParseError::Quote(text.to_owned()))?.into()));
        Ok(())
    }

    /// After `[?(`.
    fn filter(&mut self) -> Result<(), ParseError> {
        let end = filter_end(self.rest)?;
        let text = &self.rest[..end];
        self.rest = self.rest[end + 1..].strip_prefix(']').ok_or(ParseError::UnclosedFilter)?;
        let is_operator = |c| matches!(c, '!' | '<' | '>' | '=');
        let start = text.find(is_operator).unwrap_or(0);
        let length = text[start..].find(|c| !is_operator(c)).unwrap_or(text.len() - start);
        let (left, operator, right) = (&text[..start], &text[start..start + length], &text[start + length..]);
        if left.is_empty() || right.is_empty() && length < 2 {
            let node = Node::Filter { left: inner(text)?, operator: Operator::Exists, right: Vec::new() };
            self.nodes.push(node);
            return Ok(());
        }
        // An operator that nothing follows gives its last character away.
        let (operator, right) =
            if right.is_empty() { operator.split_at(operator.len() - 1) } else { (operator, right) };
        let operator = match operator {
            "<" => Operator::Less,
            "<=" => Operator::LessOrEqual,
            "==" => Operator::Equal,
            "!=" => Operator::NotEqual,
            ">=" => Operator::GreaterOrEqual,
            ">" => Operator::Greater,
            other => Operator::Unknown(other.to_owned()),
        };
        self.nodes.push(Node::Filter { left: inner(left)?, operator, right: inner(right)? });
        Ok(())
    }
}

/// Where the parenthesis stands that ends a filter: not in its quotes, of which it has one pair.
fn filter_end(text: &str) -> Result<usize, ParseError> {
    let (mut open, mut closed, mut before) = (None, false, '\0');
    for (at, c) in text.char_indices() {
        match (c, open) {
            ('\n', _) => break,
            ('"' | '\'', None) => open = Some(c),
            (quote, Some(opened)) if quote == opened && before != '\\' => closed = true,
            (')', _) if open.is_some() == closed => return Ok(at),
            _ => {}
        }
        before = c;
    }
    Err(ParseError::UnterminatedFilter)
}

/// Where what begins with a quote ends, behind the quote.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut before = '\0';
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return None,
            c if c == quote && before != '\\' => return Some(at + 1),
            _ => before = c,
        }
    }
    None
}

/// Go's escapes. The other quote needs none, and has none.
fn unquote(text: &str, quote: char) -> Option<String> {
    let (mut out, mut chars) = (String::with_capacity(text.len()), text.chars());
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = |digits: usize, chars: &mut std::str::Chars<'_>| {
            let text: String = chars.by_ref().take(digits).collect();
            let whole = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
            whole.then(|| u32::from_str_radix(&text, 16).ok().and_then(char::from_u32)).flatten()
        };
        out.push(match chars.next()? {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' => '\\',
            'x' => code(2, &mut chars)?,
            'u' => code(4, &mut chars)?,
            'U' => code(8, &mut chars)?,
            escaped if escaped == quote => quote,
            _ => return None,
        });
    }
    Some(out)
}

/// `a`, `a:b` or `a:b:c`, of which each number may be left out.
fn slice(text: &str) -> Result<Slice, ParseError> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_number = |part: &&str| part.strip_prefix('-').unwrap_or(part).bytes().all(|b| b.is_ascii_digit());
    if parts.len() > 3 || !parts.iter().all(is_number) {
        return Err(ParseError::Index(text.to_owned()));
    }
    let number = |place: usize| match parts.get(place) {
        None | Some(&"") => Ok(None),
        Some(part) => part.parse::<i64>().map(Some).map_err(|_| ParseError::LargeIndex((*part).to_owned())),
    };
    let (start, single) = (number(0)?, parts.len() == 1);
    let end = if single { Some(start.unwrap_or(0).saturating_add(1)) } else { number(1)? };
    Ok(Slice { start, end, single, step: number(2)? })
}

/// Whether a character ends a name.
fn is_terminator(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}')
}
