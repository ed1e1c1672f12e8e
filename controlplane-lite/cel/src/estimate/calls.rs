//! What calls cost at least and at most, and how large their results are (cel-go's `functionCost`, `ext/lists.go`,
//! `ext/sets.go`; `EstimateCallCost` of Kubernetes' library).

use super::{Entries, Estimator, Place, Range};
use crate::ast::{Expr, Kind, Literal};
use crate::cost::{self, REGEX_FACTOR, STRING_FACTOR};
use crate::types::Type;

/// A cost, and the size of the result if that is known.
type Estimate = (Range, Option<Range>);

/// The longest pattern of a named format.
const MAX_FORMAT_PATTERN: f64 = 128.0;

fn only(cost: Range) -> Estimate {
    (cost, None)
}

fn unit() -> Estimate {
    only(Range::fixed(1))
}

impl<'c> Estimator<'c> {
    pub(super) fn overload(
        &mut self,
        expr: &'c Expr,
        function: &str,
        overload: &str,
        target: Option<&'c Expr>,
        args: &'c [Expr],
        costs: &[Range],
    ) -> Estimate {
        let sum = costs.iter().copied().fold(Range::default(), Range::add);
        let found = self
            .listed(overload, target, args)
            .or_else(|| self.kubernetes(function, overload, target, args))
            .or_else(|| self.strings(overload, target, args));
        if let Some((cost, size)) = found {
            return (cost.add(sum), size);
        }
        match (overload, args, costs) {
            ("logical_or" | "logical_and", _, [first, ..]) => only(Range::new(first.min, sum.max)),
            ("conditional", [_, truthy, falsy], [condition, if_true, if_false]) => {
                let size = self.size_or_unknown(truthy).union(self.size_or_unknown(falsy));
                let entries = Entries::union(self.entry_sizes(truthy), self.entry_sizes(falsy));
                self.note_entries(expr, entries);
                (condition.add(if_true.union(*if_false)), Some(size))
            }
            ("add_string" | "add_bytes" | "add_list", [a, b], _) => {
                let size = self.size_or_unknown(a).add(self.size_or_unknown(b));
                let entries = Entries::union(self.entry_sizes(a), self.entry_sizes(b));
                self.note_entries(expr, entries);
                let own = if overload == "add_list" { Range::fixed(1) } else { size.scale(STRING_FACTOR) };
                (own.add(sum), Some(size))
            }
            ("string" | "bytes" | "equals" | "not_equals", [a, b], _) => {
                let most = self.size_or_unknown(a).max.min(self.size_or_unknown(b).max);
                only(Range::new(u64::from(most > 0), most).scale(STRING_FACTOR).add(sum))
            }
            _ => only(Range::fixed(1).add(sum)),
        }
    }

    fn note_entries(&mut self, expr: &Expr, entries: Option<Entries>) {
        if let Some(entries) = entries {
            self.entries.insert(expr.id, entries);
        }
    }

    /// The functions of cel-go's lists and sets.
    fn listed(&mut self, overload: &str, target: Option<&Expr>, args: &[Expr]) -> Option<Estimate> {
        let made = |size: Range, factor: f64| Some((size.scale(factor).add(Range::fixed(1 + cost::LIST)), Some(size)));
        if overload.ends_with("_sort") || overload.ends_with("_sortByAssociatedKeys") {
            let compared = if overload.ends_with("_sort") { target? } else { args.first()? };
            let size = self.size_or_unknown(compared);
            let text = overload.starts_with("list_string") || overload.starts_with("list_bytes");
            return made(size.multiply(size), if text { 2.0 + STRING_FACTOR } else { 2.0 });
        }
        match (overload, args) {
            ("list_slice", [start, end]) => {
                let most = self.size_or_unknown(target?).max;
                made(Range::fixed(number(end).unwrap_or(most).wrapping_sub(number(start).unwrap_or(0))), 1.0)
            }
            ("lists_range", [count]) => made(Range::fixed(number(count).unwrap_or(u64::MAX)), 1.0),
            ("list_reverse", []) => made(self.size_or_unknown(target?), 1.0),
            ("list_flatten", []) => made(self.size_or_unknown(target?), 1.0),
            ("list_flatten_int", [depth]) => {
                #[allow(clippy::cast_precision_loss)]
                let depth = number(depth).unwrap_or(u64::MAX) as f64;
                made(self.size_or_unknown(target?), depth)
            }
            ("list_distinct", []) => {
                let size = self.size_or_unknown(target?);
                made(size.multiply(size), 2.0)
            }
            ("list_sets_contains_list" | "list_sets_intersects_list" | "list_sets_equivalent_list", [a, b]) => {
                let factor = if overload == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
                let size = self.size_or_unknown(a).multiply(self.size_or_unknown(b));
                Some(only(size.scale(factor).add(Range::fixed(1))))
            }
            _ => None,
        }
    }

    /// Kubernetes' functions.
    fn kubernetes(&mut self, function: &str, overload: &str, target: Option<&Expr>, args: &[Expr]) -> Option<Estimate> {
        let scanned = |size: Range| (size.scale(STRING_FACTOR), Some(size));
        Some(match (function, args) {
            ("check", _) => only(Range::fixed(cost::AUTHORIZATION)),
            ("fieldSelector" | "labelSelector", [selector]) => {
                let length = self.size_or_unknown(selector);
                let requirements = length.scale(0.5).scale(50.0);
                only(Range::fixed(cost::LIST).add(length.scale(STRING_FACTOR)).add(requirements))
            }
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", _) => only(self.traversal(target?)),
            ("url" | "jsonpatch.escapeKey", [text]) => scanned(self.size_or_unknown(text)),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", _) => scanned(self.size_or_unknown(target?)),
            ("replace", [old, new, ..]) => {
                let text = self.size_or_unknown(target?);
                let size = replaced(text, self.size_or_unknown(old), self.size_or_unknown(new));
                (text.scale(2.0 * STRING_FACTOR), Some(size))
            }
            ("split", _) => {
                let size = self.size_or_unknown(target?);
                let most = args.get(1).and_then(int).map_or(size.max, |limit| u64::from_ne_bytes(limit.to_ne_bytes()));
                (size.scale(2.0 * STRING_FACTOR), Some(Range::new(0, most)))
            }
            ("join", _) => {
                let size = self.joined(target?, args.first());
                (size.scale(STRING_FACTOR), Some(size))
            }
            ("find" | "findAll", [pattern, ..]) => {
                let size = self.size_or_unknown(target?);
                let text = size.add(Range::fixed(1)).scale(STRING_FACTOR);
                let pattern = self.size_or_unknown(pattern).scale(REGEX_FACTOR);
                (text.multiply(pattern), Some(Range::new(0, size.max)))
            }
            ("ip", _) if overload == "cidr_ip" => unit(),
            ("cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver", [text, ..]) => {
                only(self.size_or_unknown(text).scale(STRING_FACTOR))
            }
            ("ip.isCanonical", [text]) => only(self.size_or_unknown(text).scale(2.0 * STRING_FACTOR)),
            ("containsIP" | "containsCIDR", [other]) => only(self.contains(function, overload, other)),
            ("validate", [text]) => {
                let text = self.size_or_unknown(text).scale(STRING_FACTOR);
                only(text.scale(MAX_FORMAT_PATTERN * REGEX_FACTOR))
            }
            ("_==_", [a, b]) => return self.same_library_type(a, b),
            _ => return None,
        })
    }

    /// Values of libraries are compared at a small cost.
    fn same_library_type(&self, a: &Expr, b: &Expr) -> Option<Estimate> {
        let of = self.checked.type_of(a);
        if of != self.checked.type_of(b) {
            return None;
        }
        match of.runtime_name() {
            "net.IP" | "net.CIDR" | "kubernetes.Quantity" | "kubernetes.Semver" => Some(unit()),
            name if name.starts_with("kubernetes.authorization.") => Some(unit()),
            "kubernetes.NamedFormat" => Some(only(Range::new(1, 64).scale(STRING_FACTOR))),
            "kubernetes.URL" => {
                let most = self.sizes.get(&b.id).map_or(1, |size| size.max);
                Some(only(Range::new(1, most).scale(STRING_FACTOR)))
            }
            _ => None,
        }
    }

    /// cel-go's functions of strings.
    fn strings(&mut self, overload: &str, target: Option<&Expr>, args: &[Expr]) -> Option<Estimate> {
        Some(match (overload, args) {
            ("string_format", _) => only(self.size_or_unknown(target?).scale(STRING_FACTOR)),
            ("string_to_bytes", [text]) => {
                let size = self.size_or_unknown(text);
                (size.scale(STRING_FACTOR), Some(Range::new(size.min, size.max.wrapping_mul(4))))
            }
            ("bytes_to_string", [bytes]) => {
                let size = self.size_or_unknown(bytes);
                (size.scale(STRING_FACTOR), Some(Range::new(size.min / 4, size.max)))
            }
            ("strings_quote", [text]) => {
                let size = self.size_or_unknown(text);
                let quoted = Range::new(size.min.wrapping_add(2), size.max.wrapping_mul(2).wrapping_add(2));
                (size.scale(STRING_FACTOR), Some(quoted))
            }
            ("starts_with_string" | "ends_with_string", [part]) => {
                only(self.size_or_unknown(part).scale(STRING_FACTOR))
            }
            ("in_list", [_, list]) => only(self.size_or_unknown(list).scale(1.0)),
            ("matches_string", [pattern]) => {
                let text = self.size_or_unknown(target?).add(Range::fixed(1)).scale(STRING_FACTOR);
                only(text.multiply(self.size_or_unknown(pattern).scale(REGEX_FACTOR)))
            }
            ("contains_string", [part]) => {
                let text = self.size_or_unknown(target?).scale(STRING_FACTOR);
                only(text.multiply(self.size_or_unknown(part).scale(STRING_FACTOR)))
            }
            _ => return None,
        })
    }

    /// The size of a list's elements.
    fn element_size(&self, list: &Expr) -> Range {
        match self.place(list) {
            Place::None => None,
            place => place.element().size(),
        }
        .unwrap_or(Range::UNKNOWN)
    }

    /// What looking at every element costs.
    fn traversal(&mut self, target: &Expr) -> Range {
        let size = self.size_or_unknown(target);
        match self.checked.type_of(target) {
            Type::List(element) => {
                let text = matches!(**element, Type::String | Type::Bytes);
                let own = if text { self.element_size(target).scale(STRING_FACTOR) } else { Range::default() };
                size.multiply(Range::fixed(1).add(own))
            }
            _ => size.scale(STRING_FACTOR),
        }
    }

    fn joined(&mut self, target: &Expr, separator: Option<&Expr>) -> Range {
        let list = self.size_or_unknown(target);
        let mut size = match self.checked.type_of(target) {
            Type::List(_) => list.multiply(self.element_size(target)),
            _ => Range::default(),
        };
        if let Some(separator) = separator {
            let between = Range::new(list.min.saturating_sub(1), list.max.saturating_sub(1));
            size = size.add(self.size_or_unknown(separator).multiply(between));
        }
        size
    }

    fn contains(&mut self, function: &str, overload: &str, other: &Expr) -> Range {
        let address = Range::new(4, 16);
        let mut cost = address.add(address).scale(STRING_FACTOR);
        if function == "containsCIDR" {
            cost = cost.add(address.scale(STRING_FACTOR)).add(Range::fixed(1));
        }
        if overload.ends_with("_string") {
            cost = cost.add(self.size_or_unknown(other).scale(STRING_FACTOR));
        }
        cost
    }
}

fn int(expr: &Expr) -> Option<i64> {
    match expr.kind {
        Kind::Literal(Literal::Int(value)) => Some(value),
        _ => None,
    }
}

/// The number that a literal is, which is zero if it is below that.
fn number(expr: &Expr) -> Option<u64> {
    int(expr).map(|value| u64::try_from(value).unwrap_or(0))
}

/// The size of a text in which parts are replaced.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn replaced(text: Range, old: Range, new: Range) -> Range {
    let count = |size: u64, old: u64| (size as f64 / old as f64).ceil() as u64;
    let (most, kept_most) = if old.min == 0 {
        (text.max.saturating_add(1), text.max)
    } else if new.max <= old.min {
        (0, text.max)
    } else {
        (count(text.max, old.min), 0)
    };
    let (least, kept_least) = if old.max == 0 {
        (text.min.saturating_add(1), text.min)
    } else if old.max <= new.min {
        (0, text.min)
    } else {
        (count(text.min, old.max), 0)
    };
    Range::new(least, most).multiply(new).add(Range::new(kept_least, kept_most))
}
