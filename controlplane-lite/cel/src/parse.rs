//! Reads an expression into its tree (cel-go's `parser/parser.go`), with upstream's limits of size and depth. The first
//! error of the syntax ends it.

mod literal;
mod macros;

use std::sync::Arc;

use crate::ast::{Ast, Call, Entry, Expr, FieldExpr, Kind, ListExpr, Literal, Select, StructExpr, operator};
use crate::lexer::{Token, TokenKind, tokens};
use crate::source::{Issue, Issues, Lines, Location};

/// The longest expression, in code points.
const MAX_CODE_POINTS: usize = 100_000;
/// How deep one rule of the grammar may lie in itself.
const MAX_DEPTH: u32 = 250;

/// Words that no identifier may be.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

const EXPECTED_EXPR: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, \
                             STRING, BYTES, IDENTIFIER}";

/// Binary operators: the text, the function, and how tightly it binds.
const BINARY: [(&str, &str, u8); 12] = [
    ("<", operator::LESS, 1),
    ("<=", operator::LESS_EQUALS, 1),
    (">=", operator::GREATER_EQUALS, 1),
    (">", operator::GREATER, 1),
    ("==", operator::EQUALS, 1),
    ("!=", operator::NOT_EQUALS, 1),
    ("in", operator::IN, 1),
    ("+", operator::ADD, 2),
    ("-", operator::SUBTRACT, 2),
    ("*", operator::MULTIPLY, 3),
    ("/", operator::DIVIDE, 3),
    ("%", operator::MODULO, 3),
];

/// That an issue was noted, and the parse is over.
#[derive(Debug)]
struct Stop;

type Parsed<T> = Result<T, Stop>;

/// Parses an expression and expands its macros.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Ast, Issues> {
    let size = text.chars().count();
    if size > MAX_CODE_POINTS {
        let message = format!("expression code point size exceeds limit: size: {size}, limit {MAX_CODE_POINTS}");
        return Err(Issues::new(text, vec![Issue { location: None, message }]));
    }
    let lines = Lines::new(text);
    let found = match tokens(text) {
        Ok(found) => found,
        Err(stray) => {
            let message = format!("Syntax error: token recognition error at: '{}'", stray.text);
            return Err(Issues::new(text, vec![Issue { location: Some(lines.locate(stray.offset)), message }]));
        }
    };
    let mut parser = Parser {
        tokens: found,
        at: 0,
        lines,
        offsets: vec![0],
        issues: Vec::new(),
        depth: Depth::default(),
        copies: 0,
    };
    match parser.whole() {
        Ok(root) if parser.issues.is_empty() => Ok(Ast { root, offsets: parser.offsets }),
        _ => Err(Issues::new(text, parser.issues)),
    }
}

/// How deep each rule that can contain itself lies in itself.
#[derive(Debug, Default)]
struct Depth {
    expr: u32,
    binary: u32,
    member: u32,
}

struct Parser<'s> {
    tokens: Vec<Token<'s>>,
    at: usize,
    lines: Lines<'s>,
    /// The byte offset of each node, by id.
    offsets: Vec<usize>,
    issues: Vec<Issue>,
    depth: Depth,
    /// How many nodes macros have copied.
    copies: usize,
}

impl<'s> Parser<'s> {
    fn whole(&mut self) -> Parsed<Expr> {
        let root = self.expr()?;
        if self.peek().kind != TokenKind::End {
            let last = self.tokens.get(self.at + 1).is_some_and(|next| next.kind == TokenKind::End);
            let what = if last { "extraneous" } else { "mismatched" };
            return self.syntax(&format!("{what} input '{}' expecting <EOF>", self.peek().text));
        }
        Ok(root)
    }

    fn peek(&self) -> Token<'s> {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token<'s> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek().kind, TokenKind::Symbol(found) if found == symbol)
    }

    /// Passes a symbol, if it is next.
    fn eat(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Parsed<Token<'s>> {
        if self.is(symbol) {
            return Ok(self.next());
        }
        self.syntax(&format!("mismatched input '{}' expecting '{symbol}'", self.peek().text))
    }

    fn location(&self, offset: usize) -> Location {
        self.lines.locate(offset)
    }

    /// An error of the grammar at the next token.
    fn syntax<T>(&mut self, message: &str) -> Parsed<T> {
        let location = Some(self.location(self.peek().offset));
        self.issues.push(Issue { location, message: format!("Syntax error: {message}") });
        Err(Stop)
    }

    /// An error of what the grammar allows.
    fn report(&mut self, offset: usize, message: impl Into<String>) {
        let location = Some(self.location(offset));
        self.issues.push(Issue { location, message: message.into() });
    }

    fn deeper(&mut self, depth: fn(&mut Depth) -> &mut u32) -> Parsed<()> {
        let depth = depth(&mut self.depth);
        *depth += 1;
        if *depth > MAX_DEPTH {
            let message = format!("expression recursion limit exceeded: {MAX_DEPTH}");
            self.issues.push(Issue { location: None, message });
            return Err(Stop);
        }
        Ok(())
    }

    fn node(&mut self, offset: usize, kind: Kind) -> Expr {
        Expr { id: self.id(offset), kind }
    }

    fn id(&mut self, offset: usize) -> u32 {
        self.offsets.push(offset);
        u32::try_from(self.offsets.len() - 1).unwrap_or(u32::MAX)
    }

    fn call(&mut self, offset: usize, function: &str, args: Vec<Expr>) -> Expr {
        self.node(offset, Kind::Call(Box::new(Call { function: function.into(), target: None, args })))
    }

    fn expr(&mut self) -> Parsed<Expr> {
        self.deeper(|depth| &mut depth.expr)?;
        let condition = self.or()?;
        let result = if self.is("?") {
            let offset = self.next().offset;
            let truthy = self.or()?;
            self.expect(":")?;
            let falsy = self.expr()?;
            self.call(offset, operator::CONDITIONAL, vec![condition, truthy, falsy])
        } else {
            condition
        };
        self.depth.expr -= 1;
        Ok(result)
    }

    fn or(&mut self) -> Parsed<Expr> {
        self.logical("||", operator::OR, |parser| parser.logical("&&", operator::AND, |parser| parser.binary(1)))
    }

    /// Terms with one logical operator between them: one call of all terms.
    fn logical(&mut self, symbol: &str, function: &str, term: fn(&mut Self) -> Parsed<Expr>) -> Parsed<Expr> {
        let first = term(self)?;
        if !self.is(symbol) {
            return Ok(first);
        }
        let offset = self.peek().offset;
        let mut terms = vec![first];
        while self.eat(symbol) {
            terms.push(term(self)?);
        }
        Ok(self.call(offset, function, terms))
    }

    /// Operators that bind at least as tightly as given, each as the left operand of the next.
    fn binary(&mut self, tightness: u8) -> Parsed<Expr> {
        let entered = self.depth.binary;
        self.deeper(|depth| &mut depth.binary)?;
        let mut left = self.unary()?;
        while let TokenKind::Symbol(symbol) = self.peek().kind
            && let Some((_, function, own)) = BINARY.iter().find(|(text, _, own)| *text == symbol && *own >= tightness)
        {
            let offset = self.next().offset;
            self.deeper(|depth| &mut depth.binary)?;
            let right = self.binary(own + 1)?;
            left = self.call(offset, function, vec![left, right]);
        }
        self.depth.binary = entered;
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        for (symbol, function) in [("!", operator::NOT), ("-", operator::NEGATE)] {
            if !self.is(symbol) {
                continue;
            }
            let offset = self.peek().offset;
            let number =
                self.tokens.get(self.at + 1).is_some_and(|t| matches!(t.kind, TokenKind::Int | TokenKind::Float));
            if symbol == "-" && number {
                break;
            }
            let mut count = 0;
            while self.eat(symbol) {
                count += 1;
            }
            let operand = self.member()?;
            return Ok(if count % 2 == 0 { operand } else { self.call(offset, function, vec![operand]) });
        }
        self.member()
    }

    fn member(&mut self) -> Parsed<Expr> {
        let entered = self.depth.member;
        self.deeper(|depth| &mut depth.member)?;
        let mut target = self.primary()?;
        loop {
            if self.is(".") {
                target = self.selection(target)?;
            } else if self.is("[") {
                let offset = self.next().offset;
                let function = if self.eat("?") { operator::OPT_INDEX } else { operator::INDEX };
                let index = self.expr()?;
                self.expect("]")?;
                target = self.call(offset, function, vec![target, index]);
            } else {
                self.depth.member = entered;
                return Ok(target);
            }
            self.deeper(|depth| &mut depth.member)?;
        }
    }

    /// `.field`, `.?field` or `.function(…)` behind a target.
    fn selection(&mut self, target: Expr) -> Parsed<Expr> {
        let dot = self.next().offset;
        let optional = self.eat("?");
        let name = self.field_name()?;
        if optional {
            let field = self.node(name.offset, Kind::Literal(Literal::String(name.text.into())));
            return Ok(self.call(dot, operator::OPT_SELECT, vec![target, field]));
        }
        if self.is("(") && name.kind == TokenKind::Identifier {
            let open = self.next().offset;
            let args = self.args()?;
            return self.call_or_macro(open, name.text, Some(target), args);
        }
        let select = Select { operand: target, field: name.text.into(), test_only: false };
        Ok(self.node(dot, Kind::Select(Box::new(select))))
    }

    fn field_name(&mut self) -> Parsed<Token<'s>> {
        match self.peek().kind {
            TokenKind::Identifier => Ok(self.next()),
            TokenKind::EscapedIdentifier => {
                self.report(self.peek().offset, "unsupported syntax: '`'");
                Ok(self.next())
            }
            TokenKind::Symbol(word @ ("true" | "false" | "null")) => {
                self.syntax(&format!("mismatched input '{word}' expecting IDENTIFIER"))
            }
            _ => self.syntax(&format!("no viable alternative at input '.{}'", self.peek().text)),
        }
    }

    /// Arguments up to the closing parenthesis.
    fn args(&mut self) -> Parsed<Vec<Expr>> {
        let mut args = Vec::new();
        if self.eat(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if !self.eat(",") {
                self.expect(")")?;
                return Ok(args);
            }
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let token = self.peek();
        match token.kind {
            TokenKind::Symbol("(") => {
                self.next();
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Symbol("[") => self.list(),
            TokenKind::Symbol("{") => self.map(),
            TokenKind::Identifier | TokenKind::Symbol(".") => self.name(),
            _ => match self.literal() {
                Some(literal) => Ok(self.node(token.offset, Kind::Literal(literal))),
                None => self.syntax(&format!("mismatched input '{}' expecting {EXPECTED_EXPR}", token.text)),
            },
        }
    }

    /// An identifier, a call, or a struct whose name has dots.
    fn name(&mut self) -> Parsed<Expr> {
        let start = self.peek().offset;
        let leading = if self.eat(".") { "." } else { "" };
        if self.peek().kind != TokenKind::Identifier {
            return self.syntax(&format!("mismatched input '{}' expecting IDENTIFIER", self.peek().text));
        }
        if let Some(name) = self.struct_name() {
            return self.structure(format!("{leading}{name}"));
        }
        let token = self.next();
        if RESERVED.contains(&token.text) {
            self.report(start, format!("reserved identifier: {}", token.text));
        }
        let name = format!("{leading}{}", token.text);
        if self.is("(") {
            let open = self.next().offset;
            let args = self.args()?;
            return self.call_or_macro(open, &name, None, args);
        }
        Ok(self.node(token.offset, Kind::Ident(name.into())))
    }

    /// The name `a.b.c` if a brace follows it; the brace is next then.
    fn struct_name(&mut self) -> Option<String> {
        let mut at = self.at;
        let mut name = self.peek().text.to_owned();
        loop {
            let kind = |at: usize| self.tokens.get(at).map(|token| token.kind);
            match kind(at + 1)? {
                TokenKind::Symbol("{") => {
                    self.at = at + 1;
                    return Some(name);
                }
                TokenKind::Symbol(".") if kind(at + 2) == Some(TokenKind::Identifier) => {
                    at += 2;
                    name.push('.');
                    name.push_str(self.tokens[at].text);
                }
                _ => return None,
            }
        }
    }

    fn structure(&mut self, name: String) -> Parsed<Expr> {
        let brace = self.next().offset;
        let id = self.id(brace);
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let field = self.field_name()?;
            let colon = self.expect(":")?.offset;
            let id = self.id(colon);
            let value = self.expr()?;
            fields.push(FieldExpr { id, name: field.text.into(), value, optional });
            self.separator("}")?;
        }
        Ok(Expr { id, kind: Kind::Struct(Box::new(StructExpr { name: name.into(), fields })) })
    }

    /// A comma, or the closing symbol, which stays.
    fn separator(&mut self, close: &str) -> Parsed<()> {
        if self.eat(",") || self.is(close) {
            return Ok(());
        }
        self.syntax(&format!("mismatched input '{}' expecting {{'{close}', ','}}", self.peek().text))
    }

    fn list(&mut self) -> Parsed<Expr> {
        let offset = self.next().offset;
        let id = self.id(offset);
        let mut list = ListExpr { elements: Vec::new(), optional: Vec::new() };
        while !self.eat("]") {
            list.optional.push(self.eat("?"));
            list.elements.push(self.expr()?);
            self.separator("]")?;
        }
        Ok(Expr { id, kind: Kind::List(Box::new(list)) })
    }

    fn map(&mut self) -> Parsed<Expr> {
        let offset = self.next().offset;
        let id = self.id(offset);
        let mut entries = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let key = self.expr()?;
            self.expect(":")?;
            let value = self.expr()?;
            entries.push(Entry { key, value, optional });
            self.separator("}")?;
        }
        Ok(Expr { id, kind: Kind::Map(entries) })
    }

    fn call_or_macro(&mut self, open: usize, name: &str, target: Option<Expr>, args: Vec<Expr>) -> Parsed<Expr> {
        let function: Arc<str> = name.into();
        match macros::expand(self, open, &function, target, args) {
            Ok(expanded) => Ok(expanded),
            Err((target, args)) => Ok(self.node(open, Kind::Call(Box::new(Call { function, target, args })))),
        }
    }
}
