//! Macros: calls that become other expressions before anything is checked (cel-go's `parser/macro.go`,
//! `ext/comprehensions.go`, `ext/lists.go` and `cel/library.go`). Every node made stands where the macro's call does.

use std::sync::Arc;

use super::Parser;
use crate::ast::{ACCUMULATOR, Call, Comprehension, Expr, Kind, ListExpr, Literal, Select, operator};

/// A call that is no macro.
type NoMacro = (Option<Expr>, Vec<Expr>);

/// A name that older accumulators had, which stays refused as a variable.
const OLD_ACCUMULATOR: &str = "__result__";

const NO_LIST: &str = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";

/// The most nodes that macros may copy. Each `optMap` has its target twice, so that a chain of them doubles with each
/// link.
const MAX_COPIES: usize = 100_000;

/// Expands a call, if it is of a macro. A macro that is used wrongly is reported.
///
/// # Errors
/// The parts of a call of something else.
pub(super) fn expand(
    parser: &mut Parser<'_>,
    at: usize,
    function: &str,
    target: Option<Expr>,
    args: Vec<Expr>,
) -> Result<Expr, NoMacro> {
    let mut maker = Maker { parser, at };
    let expanded = match (function, target.is_some(), args.len()) {
        ("has", false, 1) => maker.has(args),
        ("all" | "exists" | "exists_one" | "existsOne", true, 2 | 3) => maker.quantifier(function, target, args),
        ("map", true, 2 | 3) => maker.map(target, args),
        ("filter", true, 2) => maker.filter(target, args),
        ("transformList", true, 3 | 4) => maker.transform_list(target, args),
        ("transformMap", true, 3 | 4) => maker.transform_map(target, args),
        ("transformMapEntry", true, 3 | 4) => maker.transform_map_entry(target, args),
        ("optMap" | "optFlatMap", true, 2) => maker.opt_map(function, target, args),
        ("sortBy", true, 2) => maker.sort_by(target, args),
        _ => return Err((target, args)),
    };
    Ok(expanded.unwrap_or_else(|(offset, message)| {
        parser.report(offset, message);
        parser.node(at, Kind::Literal(Literal::Null))
    }))
}

/// Where a macro is used wrongly, and how.
type Misuse = (usize, String);

struct Maker<'p, 's> {
    parser: &'p mut Parser<'s>,
    at: usize,
}

/// A comprehension's variables and range.
struct Range {
    over: Expr,
    variable: Arc<str>,
    variable2: Option<Arc<str>>,
}

impl Maker<'_, '_> {
    fn node(&mut self, kind: Kind) -> Expr {
        self.parser.node(self.at, kind)
    }

    fn literal(&mut self, literal: Literal) -> Expr {
        self.node(Kind::Literal(literal))
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.node(Kind::Ident(name.into()))
    }

    fn accumulator(&mut self) -> Expr {
        self.ident(ACCUMULATOR)
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.parser.call(self.at, function, args)
    }

    fn member_call(&mut self, function: &str, target: Expr) -> Expr {
        self.node(Kind::Call(Box::new(Call { function: function.into(), target: Some(target), args: Vec::new() })))
    }

    fn list(&mut self, elements: Vec<Expr>) -> Expr {
        let optional = vec![false; elements.len()];
        self.node(Kind::List(Box::new(ListExpr { elements, optional })))
    }

    fn misuse<T>(&self, arg: &Expr, message: impl Into<String>) -> Result<T, Misuse> {
        let offset = self.parser.offsets.get(arg.id as usize).copied().unwrap_or(self.at);
        Err((offset, message.into()))
    }

    fn variable(&self, arg: &Expr, refusal: &str) -> Result<Arc<str>, Misuse> {
        match &arg.kind {
            Kind::Ident(name) if **name == *ACCUMULATOR || **name == *OLD_ACCUMULATOR => {
                self.misuse(arg, "iteration variable overwrites accumulator variable")
            }
            Kind::Ident(name) => Ok(Arc::clone(name)),
            _ => self.misuse(arg, refusal),
        }
    }

    fn range(&self, over: Option<Expr>, args: &[Expr], refusal: &str) -> Result<Range, Misuse> {
        let Some(over) = over else { return Err((self.at, "macro has no target".to_owned())) };
        let variable = self.variable(&args[0], refusal)?;
        let variable2 = match args.get(1) {
            Some(arg) => {
                let second = self.variable(arg, refusal)?;
                if second == variable {
                    return self.misuse(arg, format!("duplicate variable name: {variable}"));
                }
                Some(second)
            }
            None => None,
        };
        Ok(Range { over, variable, variable2 })
    }

    fn fold(&mut self, range: Range, init: Expr, condition: Expr, step: Expr, result: Expr) -> Expr {
        let Range { over, variable, variable2 } = range;
        let accumulator = ACCUMULATOR.into();
        self.node(Kind::Comprehension(Box::new(Comprehension {
            range: over,
            variable,
            variable2,
            accumulator,
            init,
            condition,
            step,
            result,
        })))
    }

    /// A fold over everything whose result is what it collects.
    fn collect(&mut self, range: Range, init: Expr, filter: Option<Expr>, step: Expr) -> Expr {
        let step = match filter {
            Some(filter) => {
                let unchanged = self.accumulator();
                self.call(operator::CONDITIONAL, vec![filter, step, unchanged])
            }
            None => step,
        };
        let condition = self.literal(Literal::Bool(true));
        let result = self.accumulator();
        self.fold(range, init, condition, step, result)
    }

    fn has(&mut self, mut args: Vec<Expr>) -> Result<Expr, Misuse> {
        let arg = args.remove(0);
        match arg.kind {
            Kind::Select(select) if !select.test_only => {
                Ok(self.node(Kind::Select(Box::new(Select { test_only: true, ..*select }))))
            }
            _ => self.misuse(&arg, "invalid argument to has() macro"),
        }
    }

    fn quantifier(&mut self, name: &str, target: Option<Expr>, mut args: Vec<Expr>) -> Result<Expr, Misuse> {
        let variables = args.len() - 1;
        let range = self.range(target, &args[..variables], "argument must be a simple name")?;
        let predicate = args.remove(variables);
        let accumulator = self.accumulator();
        let (init, condition, step, result) = match name {
            "all" => {
                let condition = self.call(operator::NOT_STRICTLY_FALSE, vec![accumulator]);
                let so_far = self.accumulator();
                let step = self.call(operator::AND, vec![so_far, predicate]);
                (self.literal(Literal::Bool(true)), condition, step, self.accumulator())
            }
            "exists" => {
                let not = self.call(operator::NOT, vec![accumulator]);
                let condition = self.call(operator::NOT_STRICTLY_FALSE, vec![not]);
                let so_far = self.accumulator();
                let step = self.call(operator::OR, vec![so_far, predicate]);
                (self.literal(Literal::Bool(false)), condition, step, self.accumulator())
            }
            _ => {
                let one = self.literal(Literal::Int(1));
                let more = self.call(operator::ADD, vec![accumulator, one]);
                let unchanged = self.accumulator();
                let step = self.call(operator::CONDITIONAL, vec![predicate, more, unchanged]);
                let count = self.accumulator();
                let one = self.literal(Literal::Int(1));
                let result = self.call(operator::EQUALS, vec![count, one]);
                (self.literal(Literal::Int(0)), self.literal(Literal::Bool(true)), step, result)
            }
        };
        Ok(self.fold(range, init, condition, step, result))
    }

    fn append(&mut self, element: Expr) -> Expr {
        let accumulator = self.accumulator();
        let list = self.list(vec![element]);
        self.call(operator::ADD, vec![accumulator, list])
    }

    fn map(&mut self, target: Option<Expr>, mut args: Vec<Expr>) -> Result<Expr, Misuse> {
        let range = self.range(target, &args[..1], "argument is not an identifier")?;
        let filter = (args.len() == 3).then(|| args.remove(1));
        let step = self.append(args.remove(1));
        let init = self.list(Vec::new());
        Ok(self.collect(range, init, filter, step))
    }

    fn filter(&mut self, target: Option<Expr>, mut args: Vec<Expr>) -> Result<Expr, Misuse> {
        let range = self.range(target, &args[..1], "argument is not an identifier")?;
        let filter = args.remove(1);
        let step = self.append(args.remove(0));
        let init = self.list(Vec::new());
        Ok(self.collect(range, init, Some(filter), step))
    }

    fn transform_list(&mut self, target: Option<Expr>, mut args: Vec<Expr>) -> Result<Expr, Misuse> {
        let range = self.range(target, &args[..2], "argument must be a simple name")?;
        let filter = (args.len() == 4).then(|| args.remove(2));
        let step = self.append(args.remove(2));
        let init = self.list(Vec::new());
        Ok(self.collect(range, init, filter, step))
    }

    fn transform_map(&mut self, target: Option<Expr>, mut args: Vec<Expr>) -> Result<Expr, Misuse> {
        let range = self.range(target, &args[..2], "argument must be a simple name")?;
        let filter = (args.len() == 4).then(|| args.remove(2));
        let accumulator = self.accumulator();
        let key = self.ident(&range.variable);
        let step = self.call(operator::MAP_INSERT, vec![accumulator, key, args.remove(2)]);
        let init = self.node(Kind::Map(Vec::new()));
        Ok(self.collect(range, init, filter, step))
    }

    fn transform_map_entry(&mut self, target: Option<Expr>, mut args: Vec<Expr>) -> Result<Expr, Misuse> {
        let range = self.range(target, &args[..2], "argument must be a simple name")?;
        let filter = (args.len() == 4).then(|| args.remove(2));
        let accumulator = self.accumulator();
        let step = self.call(operator::MAP_INSERT, vec![accumulator, args.remove(2)]);
        let init = self.node(Kind::Map(Vec::new()));
        Ok(self.collect(range, init, filter, step))
    }

    /// A fold over nothing, which names a value: `value` is the accumulator, and `result` reads it.
    fn bind(&mut self, name: Arc<str>, value: Expr, result: Expr) -> Expr {
        let nothing = self.list(Vec::new());
        let condition = self.literal(Literal::Bool(false));
        let step = self.ident(&name);
        self.node(Kind::Comprehension(Box::new(Comprehension {
            range: nothing,
            variable: "#unused".into(),
            variable2: None,
            accumulator: name,
            init: value,
            condition,
            step,
            result,
        })))
    }

    fn opt_map(&mut self, name: &str, target: Option<Expr>, mut args: Vec<Expr>) -> Result<Expr, Misuse> {
        let Some(target) = target else { return Err((self.at, "macro has no target".to_owned())) };
        let Kind::Ident(variable) = &args[0].kind else {
            return self.misuse(&args[0], format!("{name}() variable name must be a simple identifier"));
        };
        let variable = Arc::clone(variable);
        self.parser.copies = self.parser.copies.saturating_add(target.size());
        if self.parser.copies > MAX_COPIES {
            return self.misuse(&target, format!("{name}() repeats too large an expression"));
        }
        let present = self.member_call("hasValue", target.clone());
        let value = self.member_call("value", target);
        let bound = self.bind(variable, value, args.remove(1));
        let mapped = if name == "optMap" { self.call("optional.of", vec![bound]) } else { bound };
        let none = self.call("optional.none", Vec::new());
        Ok(self.call(operator::CONDITIONAL, vec![present, mapped, none]))
    }

    fn sort_by(&mut self, target: Option<Expr>, args: Vec<Expr>) -> Result<Expr, Misuse> {
        let Some(target) = target else { return Err((self.at, "macro has no target".to_owned())) };
        if !matches!(
            target.kind,
            Kind::Select(_) | Kind::List(_) | Kind::Comprehension(_) | Kind::Call(_) | Kind::Ident(_)
        ) {
            return self.misuse(&target, NO_LIST);
        }
        const BOUND: &str = "@__sortBy_input__";
        let input = self.ident(BOUND);
        let mapped = self.map(Some(input), args)?;
        let input = self.ident(BOUND);
        let sorted = self.node(Kind::Call(Box::new(Call {
            function: operator::SORT_BY_KEYS.into(),
            target: Some(input),
            args: vec![mapped],
        })));
        Ok(self.bind(BOUND.into(), target, sorted))
    }
}
