//! What an evaluation does, node by node, made once of a checked tree (cel-go's `interpreter/planner.go`). Costs are of
//! these nodes: constants cost nothing, and a chain of selections is one node.

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Call, Comprehension, Expr, Kind, Literal, Select, operator};
use crate::budget::Budget;
use crate::check::{Checked, Reference};
use crate::declare::{Function, function};
use crate::library::{Scope, convert};
use crate::value::{Text, Value};

/// A step of an evaluation.
#[derive(Debug)]
pub(crate) enum Node {
    Constant(Value<'static>),
    Attribute(Box<Attribute>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Conditional(Box<[Node; 3]>),
    Equal(Box<[Node; 2]>),
    Differs(Box<[Node; 2]>),
    /// Membership in constants.
    OneOf(Box<Node>, Vec<Value<'static>>),
    NotStrictlyFalse(Box<Node>),
    /// An optional's value, or else another (`orValue`), or an optional (`or`).
    OrElse {
        first: Box<Node>,
        second: Box<Node>,
        unwrap: bool,
    },
    Call(Box<CallNode>),
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Struct(Box<StructNode>),
    Fold(Box<Fold>),
}

/// A variable or a value, and what is selected of it.
#[derive(Debug)]
pub(crate) struct Attribute {
    pub(crate) base: Base,
    pub(crate) qualifiers: Vec<Qualifier>,
    /// `has(…)`: whether the last qualifier leads to something.
    pub(crate) test_only: bool,
}

/// Where a chain of selections begins.
#[derive(Debug)]
pub(crate) enum Base {
    Variable(Arc<str>),
    /// A variable of a comprehension, by its place.
    Local(usize),
    Value(Node),
    Conditional(Box<[Node; 3]>),
}

/// A step of a chain.
#[derive(Debug)]
pub(crate) struct Qualifier {
    pub(crate) key: QualifierKey,
    pub(crate) optional: bool,
}

/// What a step asks for.
#[derive(Debug)]
pub(crate) enum QualifierKey {
    Field(Arc<str>),
    Constant(Value<'static>),
    Dynamic(Node),
}

/// A call of a function, whose arguments are evaluated first.
#[derive(Debug)]
pub(crate) struct CallNode {
    pub(crate) function: &'static Function,
    /// The overload that the types tell; none if several fit.
    pub(crate) overload: Option<&'static str>,
    pub(crate) args: Vec<Node>,
    /// The place of what a comprehension collects, if that is the first argument and nothing else asks for it.
    pub(crate) grows: Option<usize>,
}

/// A struct that is made.
#[derive(Debug)]
pub(crate) struct StructNode {
    pub(crate) name: Arc<str>,
    pub(crate) fields: Vec<(Arc<str>, Node, bool)>,
}

/// A comprehension.
#[derive(Debug)]
pub(crate) struct Fold {
    pub(crate) range: Node,
    pub(crate) two: bool,
    /// Variables begin at this place: the accumulator, then one or two.
    pub(crate) place: usize,
    pub(crate) init: Node,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
}

/// Makes the plan of a checked tree.
///
/// # Errors
/// A constant's conversion that fails.
pub(crate) fn plan(checked: &Checked) -> Result<Node, String> {
    Planner { checked, locals: Vec::new() }.node(&checked.ast.root)
}

struct Planner<'c> {
    checked: &'c Checked,
    /// Names of variables of comprehensions, by their places.
    locals: Vec<Arc<str>>,
}

impl Planner<'_> {
    fn nodes<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) -> Result<Vec<Node>, String> {
        exprs.into_iter().map(|expr| self.node(expr)).collect()
    }

    fn node(&mut self, expr: &Expr) -> Result<Node, String> {
        if let Some(Reference::Type(of)) = self.checked.reference(expr) {
            return Ok(Node::Constant(Value::Type(of.clone().into())));
        }
        if let Some(Reference::Variable(name)) = self.checked.reference(expr) {
            let base = Base::Variable(Arc::clone(name));
            return Ok(Node::Attribute(Box::new(Attribute { base, qualifiers: Vec::new(), test_only: false })));
        }
        match &expr.kind {
            Kind::Literal(literal) => Ok(Node::Constant(constant(literal))),
            Kind::Ident(name) => Ok(self.ident(name)),
            Kind::Select(select) => self.select(select),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(list) => {
                let elements = self.nodes(&list.elements)?;
                if let Some(values) = constants(&elements).filter(|_| !list.optional.contains(&true)) {
                    return Ok(Node::Constant(Value::list(values)));
                }
                Ok(Node::List(elements.into_iter().zip(list.optional.iter().copied()).collect()))
            }
            Kind::Map(entries) => {
                let mut planned = Vec::with_capacity(entries.len());
                for entry in entries {
                    planned.push((self.node(&entry.key)?, self.node(&entry.value)?, entry.optional));
                }
                constant_map(planned)
            }
            Kind::Struct(object) => {
                let mut fields = Vec::with_capacity(object.fields.len());
                for field in &object.fields {
                    fields.push((Arc::clone(&field.name), self.node(&field.value)?, field.optional));
                }
                let name = object.name.strip_prefix('.').unwrap_or(&object.name).into();
                Ok(Node::Struct(Box::new(StructNode { name, fields })))
            }
            Kind::Comprehension(fold) => self.fold(fold),
        }
    }

    fn ident(&self, name: &Arc<str>) -> Node {
        let base = match name.strip_prefix('.') {
            Some(bare) => Base::Variable(bare.into()),
            None => match self.locals.iter().rposition(|known| known == name) {
                Some(place) => Base::Local(place),
                None => Base::Variable(Arc::clone(name)),
            },
        };
        Node::Attribute(Box::new(Attribute { base, qualifiers: Vec::new(), test_only: false }))
    }

    /// A node as a chain to add to.
    fn attribute(node: Node) -> Attribute {
        let base = match node {
            Node::Attribute(attribute) if !attribute.test_only => return *attribute,
            Node::Conditional(parts) => Base::Conditional(parts),
            other => Base::Value(other),
        };
        Attribute { base, qualifiers: Vec::new(), test_only: false }
    }

    fn select(&mut self, select: &Select) -> Result<Node, String> {
        let mut attribute = Self::attribute(self.node(&select.operand)?);
        let key = QualifierKey::Field(Arc::clone(&select.field));
        attribute.qualifiers.push(Qualifier { key, optional: false });
        attribute.test_only = select.test_only;
        Ok(Node::Attribute(Box::new(attribute)))
    }

    fn index(&mut self, call: &Call, optional: bool) -> Result<Node, String> {
        let [operand, index] = &call.args[..] else { return Err("no such overload".to_owned()) };
        let mut attribute = Self::attribute(self.node(operand)?);
        let key = match (&*call.function, index.as_string()) {
            (operator::OPT_SELECT, Some(field)) => QualifierKey::Field(Arc::clone(field)),
            _ => match self.node(index)? {
                Node::Constant(value) => QualifierKey::Constant(value),
                node => QualifierKey::Dynamic(node),
            },
        };
        attribute.qualifiers.push(Qualifier { key, optional });
        Ok(Node::Attribute(Box::new(attribute)))
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Result<Node, String> {
        match &*call.function {
            operator::INDEX => return self.index(call, false),
            operator::OPT_INDEX | operator::OPT_SELECT => return self.index(call, true),
            _ => {}
        }
        let (function, overload, qualified) = match self.checked.reference(expr) {
            Some(Reference::Call { function, overloads, qualified }) => {
                (*function, if overloads.len() == 1 { overloads.first().copied() } else { None }, *qualified)
            }
            _ => {
                let found = function(&call.function).ok_or_else(|| format!("no such function: {}", call.function))?;
                (found, None, false)
            }
        };
        let target = call.target.as_ref().filter(|_| !qualified);
        let mut args = self.nodes(target.into_iter().chain(&call.args))?;
        Ok(match (function.name, args.len()) {
            (operator::AND, _) => Node::And(args),
            (operator::OR, _) => Node::Or(args),
            (operator::CONDITIONAL, 3) => Node::Conditional(triple(args)),
            (operator::EQUALS, 2) => Node::Equal(pair(args)),
            (operator::NOT_EQUALS, 2) => Node::Differs(pair(args)),
            (operator::NOT_STRICTLY_FALSE, 1) => Node::NotStrictlyFalse(Box::new(args.remove(0))),
            ("or" | "orValue", 2) if overload.is_some() => {
                let [first, second] = *pair(args);
                let unwrap = function.name == "orValue";
                Node::OrElse { first: Box::new(first), second: Box::new(second), unwrap }
            }
            (operator::IN, 2) if overload == Some("in_list") => membership(function, args),
            (name, 1) if convert::is_conversion(name) => return conversion(function, overload, args),
            (name, _) => {
                let grows =
                    matches!(name, operator::ADD | operator::MAP_INSERT).then(|| self.collected(&args)).flatten();
                Node::Call(Box::new(CallNode { function, overload, args, grows }))
            }
        })
    }

    /// The place of what the innermost comprehension collects, if it is the first argument. No text can name it, so
    /// that the other arguments do not.
    fn collected(&self, args: &[Node]) -> Option<usize> {
        match args.first() {
            Some(Node::Attribute(attribute)) if attribute.qualifiers.is_empty() => match attribute.base {
                Base::Local(place) if *self.locals[place] == *ACCUMULATOR => Some(place),
                _ => None,
            },
            _ => None,
        }
    }

    fn fold(&mut self, fold: &Comprehension) -> Result<Node, String> {
        let init = self.node(&fold.init)?;
        let range = self.node(&fold.range)?;
        let place = self.locals.len();
        self.locals.push(Arc::clone(&fold.accumulator));
        self.locals.push(Arc::clone(&fold.variable));
        self.locals.extend(fold.variable2.clone());
        let condition = self.node(&fold.condition)?;
        let step = self.node(&fold.step)?;
        self.locals.truncate(place + 1);
        let result = self.node(&fold.result)?;
        self.locals.truncate(place);
        let two = fold.variable2.is_some();
        Ok(Node::Fold(Box::new(Fold { range, two, place, init, condition, step, result })))
    }
}

fn pair(args: Vec<Node>) -> Box<[Node; 2]> {
    let args: Result<[Node; 2], _> = args.try_into();
    Box::new(args.unwrap_or([Node::Constant(Value::Null), Node::Constant(Value::Null)]))
}

fn triple(args: Vec<Node>) -> Box<[Node; 3]> {
    let args: Result<[Node; 3], _> = args.try_into();
    Box::new(args.unwrap_or_else(|_| [(); 3].map(|()| Node::Constant(Value::Null))))
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Shared(Arc::clone(text))),
        Literal::Bytes(bytes) => Value::Bytes(Arc::clone(bytes)),
    }
}

/// The values of nodes, if all are constants.
fn constants(nodes: &[Node]) -> Option<Vec<Value<'static>>> {
    let value = |node: &Node| match node {
        Node::Constant(value) => Some(value.clone()),
        _ => None,
    };
    nodes.iter().map(value).collect()
}

/// A map of constants is one.
fn constant_map(entries: Vec<(Node, Node, bool)>) -> Result<Node, String> {
    let fixed = |(key, value, optional): &(Node, Node, bool)| {
        matches!((key, value), (Node::Constant(_), Node::Constant(_))) && !optional
    };
    if !entries.iter().all(fixed) {
        return Ok(Node::Map(entries));
    }
    let mut pairs = Vec::with_capacity(entries.len());
    for (key, value, _) in entries {
        if let (Node::Constant(key), Node::Constant(value)) = (key, value) {
            pairs.push((key, value));
        }
    }
    crate::eval::make_map(pairs).map(Node::Constant).map_err(|error| error.to_string())
}

/// Membership in a list. One of constants is looked up, at no cost.
fn membership(function: &'static Function, mut args: Vec<Node>) -> Node {
    let primitive = |value: &Value<'_>| convert::is_primitive(&value.type_of());
    if let [_, Node::Constant(Value::List(list))] = &args[..]
        && let Ok(items) = list.to_vec()
        && items.iter().all(primitive)
    {
        if items.is_empty() {
            return Node::Constant(Value::Bool(false));
        }
        return Node::OneOf(Box::new(args.remove(0)), items);
    }
    Node::Call(Box::new(CallNode { function, overload: Some("in_list"), args, grows: None }))
}

/// A conversion. One of a constant is made now.
fn conversion(
    function: &'static Function,
    overload: Option<&'static str>,
    mut args: Vec<Node>,
) -> Result<Node, String> {
    match args.pop() {
        Some(Node::Constant(value)) => {
            let budget = Budget::default();
            let scope = Scope { name: function.name, budget: &budget };
            (function.implementation)(&scope, &[value]).map(Node::Constant).map_err(|error| error.to_string())
        }
        Some(arg) => Ok(Node::Call(Box::new(CallNode { function, overload, args: vec![arg], grows: None }))),
        None => Err(format!("no such overload: {}()", function.name)),
    }
}
