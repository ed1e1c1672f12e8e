//! What is refused although its types fit (cel-go's `cel/validator.go` and `ext/formatting.go`): literals that could
//! only fail when they are evaluated, aggregates of different types, and templates that do not fit their arguments.

use super::Checker;
use crate::ast::{Call, Expr, Kind};
use crate::library::template;
use crate::types::Type;
use crate::{pattern, time};

/// Reports what is wrong below a node. The arguments of a template may be of different types.
pub(super) fn literals(checker: &mut Checker<'_>, expr: &Expr, in_template: bool) {
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select(select) => literals(checker, &select.operand, in_template),
        Kind::Call(call) => {
            literal_argument(checker, call);
            let is_template = &*call.function == "format";
            if is_template {
                template_arguments(checker, expr, call);
            }
            let inside = in_template || is_template;
            call.target.iter().chain(&call.args).for_each(|arg| literals(checker, arg, inside));
        }
        Kind::List(list) => {
            if !in_template {
                one_type(checker, list.elements.iter().zip(list.optional.iter().copied()), true);
            }
            list.elements.iter().for_each(|element| literals(checker, element, in_template));
        }
        Kind::Map(entries) => {
            if !in_template {
                one_type(checker, entries.iter().map(|entry| (&entry.key, false)), false);
                one_type(checker, entries.iter().map(|entry| (&entry.value, entry.optional)), false);
            }
            for entry in entries {
                literals(checker, &entry.key, in_template);
                literals(checker, &entry.value, in_template);
            }
        }
        Kind::Struct(object) => object.fields.iter().for_each(|field| literals(checker, &field.value, in_template)),
        Kind::Comprehension(fold) => {
            [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result]
                .into_iter()
                .for_each(|part| literals(checker, part, in_template));
        }
    }
}

/// Reports parts of an aggregate whose types differ from the first.
fn one_type<'e>(checker: &mut Checker<'_>, parts: impl Iterator<Item = (&'e Expr, bool)>, first_only: bool) {
    let mut first: Option<Type> = None;
    for (part, optional) in parts {
        let of = checker.type_of(part);
        let of = if optional { of.unwrap_optional().cloned().unwrap_or(of) } else { of };
        match &first {
            None => first = Some(of),
            Some(first) if *first != of => {
                checker.mismatch(part, first, &of);
                if first_only {
                    return;
                }
            }
            Some(_) => {}
        }
    }
}

fn literal_argument(checker: &mut Checker<'_>, call: &Call) {
    let (position, valid): (usize, fn(&str) -> bool) = match (&*call.function, call.target.is_some()) {
        ("duration", false) => (0, |text| time::parse_duration(text).is_ok()),
        ("timestamp", false) => (0, |text| time::parse_timestamp(text).is_ok()),
        ("matches", true) => (0, |text| pattern::compile(text).is_ok()),
        ("matches", false) => (1, |text| pattern::compile(text).is_ok()),
        _ => return,
    };
    if let Some(arg) = call.args.get(position)
        && let Some(text) = arg.as_string()
        && !valid(text)
    {
        checker.report(arg.id, format!("invalid {} argument", call.function));
    }
}

/// Reports a template that does not fit arguments that are written beside it.
fn template_arguments(checker: &mut Checker<'_>, expr: &Expr, call: &Call) {
    let (Some(text), [args]) = (call.target.as_ref().and_then(Expr::as_string), &call.args[..]) else { return };
    let Kind::List(list) = &args.kind else { return };
    let types: Vec<Type> = list.elements.iter().map(|arg| checker.type_of(arg)).collect();
    match template::check(text, &types) {
        Ok(used) if types.len() > used => {
            let message =
                format!("too many arguments supplied to string.format (expected {used}, got {})", types.len());
            checker.report(expr.id, message);
        }
        Ok(_) => {}
        Err((argument, message)) => {
            let id = argument.and_then(|argument| list.elements.get(argument)).map_or(expr.id, |arg| arg.id);
            checker.report(id, message);
        }
    }
}
