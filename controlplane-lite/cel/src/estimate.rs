//! The least and the most that an expression can cost, whatever its variables are (cel-go's `checker/cost.go`).

mod calls;
mod range;

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Call, Comprehension, Entry, Expr, Kind, ListExpr, Literal, Select};
use crate::check::{Checked, Reference};
use crate::cost;
use crate::schema::Declared;
use crate::types::Type;
pub use range::Range;

/// The least and the most that an expression costs. All variables are of the declared type.
pub(crate) fn estimate(checked: &Checked, root: &Declared) -> Range {
    Estimator {
        checked,
        root,
        sizes: HashMap::new(),
        entries: HashMap::new(),
        places: HashMap::new(),
        locals: Vec::new(),
    }
    .cost(&checked.ast.root)
}

/// Where in the declared type a node's value is.
#[derive(Debug, Clone, Copy)]
enum Place<'c> {
    /// It is no part of a variable.
    None,
    At(&'c Declared),
    /// It is a part of which nothing is declared.
    Lost,
}

impl<'c> Place<'c> {
    fn element(self) -> Self {
        self.step(|declared| declared.element.as_deref())
    }

    fn key(self) -> Self {
        self.step(|declared| declared.key.as_deref())
    }

    fn field(self, name: &str) -> Self {
        self.step(|declared| declared.fields.get(name))
    }

    fn step(self, next: impl FnOnce(&'c Declared) -> Option<&'c Declared>) -> Self {
        match self {
            Self::At(declared) => next(declared).map_or(Self::Lost, Self::At),
            other => other,
        }
    }

    fn size(self) -> Option<Range> {
        match self {
            Self::At(declared) => Some(Range::new(0, u64::try_from(declared.max_elements).unwrap_or_default())),
            _ => None,
        }
    }
}

/// The sizes of what a list or map has.
#[derive(Debug, Clone, Copy)]
struct Entries {
    is_list: bool,
    key: Range,
    value: Range,
}

impl Entries {
    fn union(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        let (a, b) = (a?, b?);
        Some(Self { is_list: a.is_list, key: a.key.union(b.key), value: a.value.union(b.value) })
    }
}

#[derive(Debug, Clone, Copy)]
struct Local<'c> {
    place: Place<'c>,
    size: Option<Range>,
    entries: Option<Entries>,
}

struct Estimator<'c> {
    checked: &'c Checked,
    root: &'c Declared,
    sizes: HashMap<u32, Range>,
    entries: HashMap<u32, Entries>,
    places: HashMap<u32, Place<'c>>,
    locals: Vec<(Arc<str>, Local<'c>)>,
}

impl<'c> Estimator<'c> {
    fn cost(&mut self, expr: &'c Expr) -> Range {
        match &expr.kind {
            Kind::Literal(_) => Range::default(),
            Kind::Ident(name) => {
                let place = self.local(name).map_or(Place::At(self.root), |local| local.place);
                self.places.insert(expr.id, place);
                Range::fixed(cost::SELECT)
            }
            Kind::Select(select) => self.select(expr, select),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(list) => self.list(expr, list),
            Kind::Map(entries) => self.map(expr, entries),
            Kind::Struct(object) => {
                let fields = object.fields.iter().map(|field| self.cost(&field.value));
                fields.fold(Range::fixed(cost::STRUCT), Range::add)
            }
            Kind::Comprehension(fold) if is_bind(fold) => self.bind(expr, fold),
            Kind::Comprehension(fold) => self.comprehension(expr, fold),
        }
    }

    fn local(&self, name: &str) -> Option<Local<'c>> {
        self.locals.iter().rev().find(|(known, _)| **known == *name).map(|(_, local)| *local)
    }

    fn place(&self, expr: &Expr) -> Place<'c> {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.place;
        }
        self.places.get(&expr.id).copied().unwrap_or(Place::None)
    }

    fn select(&mut self, expr: &'c Expr, select: &'c Select) -> Range {
        let operand = self.cost(&select.operand);
        if select.test_only {
            return operand;
        }
        let own = match self.checked.type_of(&select.operand) {
            Type::Map(..) | Type::Struct(_) | Type::Param(_) => Range::fixed(cost::SELECT),
            _ => Range::default(),
        };
        let place = match self.place(&select.operand) {
            // Upstream looks the first step of a path up as if it were the variable.
            Place::None => Place::At(self.root),
            place => place.field(&select.field),
        };
        self.places.insert(expr.id, place);
        operand.add(own)
    }

    fn list(&mut self, expr: &'c Expr, list: &'c ListExpr) -> Range {
        let mut sum = Range::fixed(cost::LIST);
        let mut item = Range::nothing(list.elements.is_empty());
        for element in &list.elements {
            sum = sum.add(self.cost(element));
            item = item.union(self.size_or_unknown(element));
        }
        self.entries.insert(expr.id, Entries { is_list: true, key: Range::fixed(1), value: item });
        sum
    }

    fn map(&mut self, expr: &'c Expr, entries: &'c [Entry]) -> Range {
        let mut sum = Range::fixed(cost::MAP);
        let (mut key, mut value) = (Range::nothing(entries.is_empty()), Range::nothing(entries.is_empty()));
        for entry in entries {
            sum = sum.add(self.cost(&entry.key)).add(self.cost(&entry.value));
            key = key.union(self.size_or_unknown(&entry.key));
            value = value.union(self.size_or_unknown(&entry.value));
        }
        self.entries.insert(expr.id, Entries { is_list: false, key, value });
        sum
    }

    fn call(&mut self, expr: &'c Expr, call: &'c Call) -> Range {
        if &*call.function == "dyn"
            && let [arg] = &call.args[..]
        {
            let cost = self.cost(arg);
            self.copy_sizes(expr, arg);
            return cost.add(Range::fixed(1));
        }
        let costs: Vec<Range> = call.args.iter().map(|arg| self.cost(arg)).collect();
        let Some(Reference::Call { function, overloads, qualified }) = self.checked.reference(expr) else {
            return costs.into_iter().fold(Range::default(), Range::add);
        };
        let target = call.target.as_ref().filter(|_| !qualified);
        let target_cost = target.map_or(Range::default(), |target| self.cost(target));
        let mut sum = Range::new(u64::MAX, 0);
        let mut size: Option<Range> = None;
        for overload in overloads {
            let (cost, result) = self.overload(expr, function.name, overload, target, &call.args, &costs);
            sum = sum.union(cost);
            size = match (size, result) {
                (Some(size), Some(result)) => Some(size.union(result)),
                (size, result) => size.or(result),
            };
            if let ("index_list" | "index_map", Some(operand)) = (*overload, call.args.first()) {
                size = self.entry_sizes(operand).map(|entries| entries.value);
                let place = self.place(operand);
                let place = if matches!(place, Place::None) { Place::At(self.root) } else { place.element() };
                self.places.insert(expr.id, place);
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
        target_cost.add(sum)
    }

    fn comprehension(&mut self, expr: &'c Expr, fold: &'c Comprehension) -> Range {
        let mut sum = self.cost(&fold.range).add(self.cost(&fold.init));
        let outer = self.locals.len();
        let init =
            Local { place: self.place(&fold.init), size: self.size(&fold.init), entries: self.entry_sizes(&fold.init) };
        self.locals.push((Arc::clone(&fold.accumulator), init));
        let entries = self.entry_sizes(&fold.range);
        let is_list = entries
            .map_or_else(|| matches!(self.checked.type_of(&fold.range), Type::List(_)), |entries| entries.is_list);
        let place = self.place(&fold.range);
        let part = |part: Place<'c>| if matches!(place, Place::None) { Place::At(self.root) } else { part };
        let value = Local { place: part(place.element()), size: entries.map(|e| e.value), entries: None };
        let key = Local { place: part(place.key()), size: entries.map(|e| e.key), entries: None };
        match &fold.variable2 {
            None => self.locals.push((Arc::clone(&fold.variable), if is_list { value } else { key })),
            Some(second) => {
                self.locals.push((Arc::clone(&fold.variable), key));
                self.locals.push((Arc::clone(second), value));
            }
        }
        let each = self.cost(&fold.condition).add(self.cost(&fold.step));
        self.locals.truncate(outer + 1);
        sum = sum.add(self.cost(&fold.result));
        self.locals.truncate(outer);
        let count = self.size_or_unknown(&fold.range);
        match &fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.sizes.insert(expr.id, count);
                if let Some(entries) = self.entry_sizes(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum.add(count.multiply(each))
    }

    fn bind(&mut self, expr: &'c Expr, fold: &'c Comprehension) -> Range {
        let sum = self.cost(&fold.range).add(self.cost(&fold.init));
        let value =
            Local { place: self.place(&fold.init), size: self.size(&fold.init), entries: self.entry_sizes(&fold.init) };
        self.locals.push((Arc::clone(&fold.accumulator), value));
        let result = self.cost(&fold.result);
        self.locals.pop();
        self.copy_sizes(expr, &fold.result);
        sum.add(result)
    }

    fn copy_sizes(&mut self, to: &Expr, from: &'c Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entries) = self.entry_sizes(from) {
            self.entries.insert(to.id, entries);
        }
    }

    fn entry_sizes(&self, expr: &Expr) -> Option<Entries> {
        if let Some(entries) = self.entries.get(&expr.id) {
            return Some(*entries);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.entries,
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    /// The size of a node's value, if anything tells.
    fn size(&mut self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        if let Some(size) = literal_size(expr) {
            return Some(Range::fixed(size as u64));
        }
        if let Some(size) = self.place(expr).size() {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.checked.type_of(expr)) {
            return Some(Range::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }
}

/// Whether a comprehension only names a value.
fn is_bind(fold: &Comprehension) -> bool {
    let empty = matches!(&fold.range.kind, Kind::List(list) if list.elements.is_empty());
    empty && matches!(fold.condition.kind, Kind::Literal(Literal::Bool(false)))
}

fn literal_size(expr: &Expr) -> Option<usize> {
    match &expr.kind {
        Kind::Literal(Literal::String(text)) => Some(text.chars().count()),
        Kind::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
        Kind::Literal(_) => Some(1),
        Kind::List(list) => Some(list.elements.len()),
        Kind::Map(entries) => Some(entries.len()),
        _ => None,
    }
}

fn is_scalar(of: &Type) -> bool {
    match of {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        other => other.unwrap_optional().is_some_and(is_scalar),
    }
}
