//! Which overloads of a function fit a call.

use super::{Checker, Reference, is_logical, unify};
use crate::ast::{Call, Expr, operator};
use crate::declare::{Function, Overload, function};
use crate::types::{Listed, Type};

impl Checker<'_> {
    pub(super) fn call(&mut self, expr: &Expr, call: &Call) {
        if &*call.function == operator::OPT_SELECT {
            return self.optional_select(expr, call);
        }
        for arg in &call.args {
            self.check(arg);
        }
        let name = call.function.strip_prefix('.').unwrap_or(&call.function);
        let qualified = call.target.as_ref().and_then(Expr::qualified_name);
        if let Some(found) = qualified.and_then(|prefix| function(&format!("{prefix}.{name}"))) {
            return self.resolve(expr, found, None, &call.args, true);
        }
        if let Some(target) = &call.target {
            self.check(target);
        }
        match function(name) {
            Some(found) => self.resolve(expr, found, call.target.as_ref(), &call.args, false),
            None => {
                self.set_type(expr, Type::Error);
                self.report(expr.id, format!("undeclared reference to '{}' (in container '')", call.function));
            }
        }
    }

    fn optional_select(&mut self, expr: &Expr, call: &Call) {
        let [operand, field] = &call.args[..] else {
            return self.report(expr.id, "unsupported optional field selection".to_owned());
        };
        let Some(name) = field.as_string() else {
            return self.report(field.id, "unsupported optional field selection".to_owned());
        };
        let of = self.field(expr, operand, &name.clone(), true);
        let of = self.mapping.substitute(&of, false);
        self.set_type(field, Type::String);
        self.set_type(expr, of);
    }

    fn resolve(
        &mut self,
        expr: &Expr,
        function: &'static Function,
        target: Option<&Expr>,
        args: &[Expr],
        qualified: bool,
    ) {
        let types: Vec<Type> = target.into_iter().chain(args).map(|arg| self.type_of(arg)).collect();
        if is_logical(function.name) {
            return self.logical(expr, function, args);
        }
        let mut result: Option<Type> = None;
        let mut overloads = Vec::new();
        for overload in function.overloads.iter().filter(|overload| overload.member == target.is_some()) {
            let Some(found) = self.try_overload(overload, &types) else { continue };
            overloads.push(overload.id);
            result = Some(match result {
                None => found,
                Some(before) if before.is_dyn() || before == found => before,
                Some(_) => Type::Dyn,
            });
        }
        let Some(result) = result else {
            self.set_type(expr, Type::Error);
            let types: Vec<Type> = types.iter().map(|of| self.mapping.substitute(of, true)).collect();
            let signature = match (target, types.split_first()) {
                (Some(_), Some((first, rest))) => format!("{first}.({})", Listed(rest)),
                _ => format!("({})", Listed(&types)),
            };
            let message = format!("found no matching overload for '{}' applied to '{signature}'", function.name);
            return self.report(expr.id, message);
        };
        self.set_type(expr, result);
        self.refer(expr, Reference::Call { function, overloads, qualified });
    }

    fn logical(&mut self, expr: &Expr, function: &'static Function, args: &[Expr]) {
        let mut fits = true;
        for arg in args {
            let found = self.type_of(arg);
            if !self.mapping.assignable(&found, &Type::Bool) {
                self.mismatch(arg, &Type::Bool, &found);
                fits = false;
            }
        }
        self.set_type(expr, if fits { Type::Bool } else { Type::Error });
        let overloads = function.overloads.iter().map(|overload| overload.id).collect();
        self.refer(expr, Reference::Call { function, overloads, qualified: false });
    }

    /// The result of an overload, if it takes arguments of these types.
    fn try_overload(&mut self, overload: &'static Overload, types: &[Type]) -> Option<Type> {
        if overload.args.len() != types.len() {
            return None;
        }
        let names: Vec<(&str, Type)> = overload.params.iter().map(|name| (*name, self.new_variable())).collect();
        let fits = if names.is_empty() {
            self.mapping.all_assignable(types, &overload.args)
        } else {
            let args: Vec<Type> = overload.args.iter().map(|arg| unify::rename(arg, &names)).collect();
            self.mapping.all_assignable(types, &args)
        };
        fits.then(|| self.mapping.substitute(&unify::rename(&overload.result, &names), false))
    }
}
