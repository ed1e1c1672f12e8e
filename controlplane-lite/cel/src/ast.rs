//! The tree of an expression after its macros are expanded. Operators are calls of functions such as `_+_`.

use std::sync::Arc;

/// Names of operators as functions (cel-go's `common/operators`).
pub(crate) mod operator {
    pub(crate) const CONDITIONAL: &str = "_?_:_";
    pub(crate) const AND: &str = "_&&_";
    pub(crate) const OR: &str = "_||_";
    pub(crate) const NOT: &str = "!_";
    pub(crate) const NEGATE: &str = "-_";
    pub(crate) const EQUALS: &str = "_==_";
    pub(crate) const NOT_EQUALS: &str = "_!=_";
    pub(crate) const LESS: &str = "_<_";
    pub(crate) const LESS_EQUALS: &str = "_<=_";
    pub(crate) const GREATER: &str = "_>_";
    pub(crate) const GREATER_EQUALS: &str = "_>=_";
    pub(crate) const IN: &str = "@in";
    pub(crate) const ADD: &str = "_+_";
    pub(crate) const SUBTRACT: &str = "_-_";
    pub(crate) const MULTIPLY: &str = "_*_";
    pub(crate) const DIVIDE: &str = "_/_";
    pub(crate) const MODULO: &str = "_%_";
    pub(crate) const INDEX: &str = "_[_]";
    pub(crate) const OPT_INDEX: &str = "_[?_]";
    pub(crate) const OPT_SELECT: &str = "_?._";
    pub(crate) const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
    pub(crate) const MAP_INSERT: &str = "cel.@mapInsert";
    pub(crate) const SORT_BY_KEYS: &str = "@sortByAssociatedKeys";
}

/// The variable that a comprehension collects its result in. No identifier of a text can have this name.
pub(crate) const ACCUMULATOR: &str = "@result";

/// One node of the tree. Ids index what is known of nodes: their places and types.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) id: u32,
    pub(crate) kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(Arc<str>),
    Select(Box<Select>),
    Call(Box<Call>),
    List(Box<ListExpr>),
    Map(Vec<Entry>),
    Struct(Box<StructExpr>),
    Comprehension(Box<Comprehension>),
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

/// `operand.field`, or `has(operand.field)`.
#[derive(Debug, Clone)]
pub(crate) struct Select {
    pub(crate) operand: Expr,
    pub(crate) field: Arc<str>,
    pub(crate) test_only: bool,
}

/// `function(args)` or `target.function(args)`.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) function: Arc<str>,
    pub(crate) target: Option<Expr>,
    pub(crate) args: Vec<Expr>,
}

/// `[a, ?b]`.
#[derive(Debug, Clone)]
pub(crate) struct ListExpr {
    pub(crate) elements: Vec<Expr>,
    /// Which elements are optional.
    pub(crate) optional: Vec<bool>,
}

/// `key: value` of a map.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// `Name{field: value}`.
#[derive(Debug, Clone)]
pub(crate) struct StructExpr {
    pub(crate) name: Arc<str>,
    pub(crate) fields: Vec<FieldExpr>,
}

/// `field: value` of a struct.
#[derive(Debug, Clone)]
pub(crate) struct FieldExpr {
    pub(crate) id: u32,
    pub(crate) name: Arc<str>,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// What `all`, `map` and their like become: `accumulator` begins as `init`; for each element of `range`, while
/// `condition` holds, it becomes `step`; the value is `result`.
#[derive(Debug, Clone)]
pub(crate) struct Comprehension {
    pub(crate) range: Expr,
    pub(crate) variable: Arc<str>,
    /// The second variable: the value beside an index or key.
    pub(crate) variable2: Option<Arc<str>>,
    pub(crate) accumulator: Arc<str>,
    pub(crate) init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

/// A whole expression.
#[derive(Debug, Clone)]
pub(crate) struct Ast {
    pub(crate) root: Expr,
    /// The byte offset of each node, by id.
    pub(crate) offsets: Vec<usize>,
}

impl Expr {
    /// The string that a literal is.
    pub(crate) fn as_string(&self) -> Option<&Arc<str>> {
        match &self.kind {
            Kind::Literal(Literal::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The nodes right below it.
    fn parts(&self) -> Vec<&Self> {
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) => Vec::new(),
            Kind::Select(select) => vec![&select.operand],
            Kind::Call(call) => call.target.iter().chain(&call.args).collect(),
            Kind::List(list) => list.elements.iter().collect(),
            Kind::Map(entries) => entries.iter().flat_map(|entry| [&entry.key, &entry.value]).collect(),
            Kind::Struct(object) => object.fields.iter().map(|field| &field.value).collect(),
            Kind::Comprehension(fold) => {
                vec![&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result]
            }
        }
    }

    fn is_named(&self, name: &str) -> bool {
        matches!(&self.kind, Kind::Ident(own) if **own == *name)
    }

    /// Whether an identifier in it has a name.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.is_named(name) || self.parts().into_iter().any(|part| part.names(name))
    }

    /// How many nodes lie in each other at most.
    pub(crate) fn height(&self) -> usize {
        1 + self.parts().into_iter().map(Self::height).max().unwrap_or(0)
    }

    /// Visits the fields of a variable that are selected by name; nothing stands for the variable as a whole.
    pub(crate) fn fields_of<'e>(&'e self, variable: &str, visit: &mut dyn FnMut(Option<&'e str>)) {
        match &self.kind {
            Kind::Select(select) if select.operand.is_named(variable) => visit(Some(&select.field)),
            _ if self.is_named(variable) => visit(None),
            _ => self.parts().into_iter().for_each(|part| part.fields_of(variable, visit)),
        }
    }

    /// How many nodes it consists of.
    pub(crate) fn size(&self) -> usize {
        self.parts().into_iter().map(Self::size).fold(1, usize::saturating_add)
    }

    /// The name `a.b.c` that a chain of selections spells.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select(select) if !select.test_only => {
                let mut name = select.operand.qualified_name()?;
                name.push('.');
                name.push_str(&select.field);
                Some(name)
            }
            _ => None,
        }
    }
}
