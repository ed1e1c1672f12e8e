//! Functions of lists: Kubernetes' (`lists.go`, version 0), cel-go's `ext/lists.go` (version 3) and `ext/sets.go`.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::operators::add_values;
use super::{Outcome, Scope, Table};
use crate::error::EvalError;
use crate::schema::{ListType, Schema};
use crate::value::{List, Value, compare, digest, equal, list_map_key};

pub(super) const TABLE: Table = &[
    (
        "isSorted",
        ".list_int_is_sorted_bool(list(int)) -> bool
        .list_uint_is_sorted_bool(list(uint)) -> bool
        .list_double_is_sorted_bool(list(double)) -> bool
        .list_bool_is_sorted_bool(list(bool)) -> bool
        .list_duration_is_sorted_bool(list(duration)) -> bool
        .list_timestamp_is_sorted_bool(list(timestamp)) -> bool
        .list_string_is_sorted_bool(list(string)) -> bool
        .list_bytes_is_sorted_bool(list(bytes)) -> bool",
        is_sorted,
    ),
    (
        "sum",
        ".list_int_sum_int(list(int)) -> int
        .list_uint_sum_uint(list(uint)) -> uint
        .list_double_sum_double(list(double)) -> double
        .list_duration_sum_duration(list(duration)) -> duration",
        sum,
    ),
    ("min", EXTREMES_MIN, min),
    ("max", EXTREMES_MAX, max),
    ("slice", ".list_slice(list(T), int, int) -> list(T)", slice),
    ("flatten", ".list_flatten(list(list(T))) -> list(T)\n.list_flatten_int(list(dyn), int) -> list(dyn)", flatten),
    ("lists.range", "lists_range(int) -> list(int)", range),
    ("reverse", ".list_reverse(list(T)) -> list(T)", reverse),
    ("distinct", ".list_distinct(list(T)) -> list(T)", distinct),
    (
        "sort",
        ".list_int_sort(list(int)) -> list(int)
        .list_uint_sort(list(uint)) -> list(uint)
        .list_double_sort(list(double)) -> list(double)
        .list_bool_sort(list(bool)) -> list(bool)
        .list_duration_sort(list(duration)) -> list(duration)
        .list_timestamp_sort(list(timestamp)) -> list(timestamp)
        .list_string_sort(list(string)) -> list(string)
        .list_bytes_sort(list(bytes)) -> list(bytes)",
        sort,
    ),
    (
        "@sortByAssociatedKeys",
        ".list_int_sortByAssociatedKeys(list(T), list(int)) -> list(T)
        .list_uint_sortByAssociatedKeys(list(T), list(uint)) -> list(T)
        .list_double_sortByAssociatedKeys(list(T), list(double)) -> list(T)
        .list_bool_sortByAssociatedKeys(list(T), list(bool)) -> list(T)
        .list_duration_sortByAssociatedKeys(list(T), list(duration)) -> list(T)
        .list_timestamp_sortByAssociatedKeys(list(T), list(timestamp)) -> list(T)
        .list_string_sortByAssociatedKeys(list(T), list(string)) -> list(T)
        .list_bytes_sortByAssociatedKeys(list(T), list(bytes)) -> list(T)",
        sort_by_keys,
    ),
    ("sets.contains", "list_sets_contains_list(list(T), list(T)) -> bool", sets_contains),
    ("sets.equivalent", "list_sets_equivalent_list(list(T), list(T)) -> bool", sets_equivalent),
    ("sets.intersects", "list_sets_intersects_list(list(T), list(T)) -> bool", sets_intersects),
];

const EXTREMES_MIN: &str = ".list_int_min_int(list(int)) -> int
    .list_uint_min_uint(list(uint)) -> uint
    .list_double_min_double(list(double)) -> double
    .list_bool_min_bool(list(bool)) -> bool
    .list_duration_min_duration(list(duration)) -> duration
    .list_timestamp_min_timestamp(list(timestamp)) -> timestamp
    .list_string_min_string(list(string)) -> string
    .list_bytes_min_bytes(list(bytes)) -> bytes";
const EXTREMES_MAX: &str = ".list_int_max_int(list(int)) -> int
    .list_uint_max_uint(list(uint)) -> uint
    .list_double_max_double(list(double)) -> double
    .list_bool_max_bool(list(bool)) -> bool
    .list_duration_max_duration(list(duration)) -> duration
    .list_timestamp_max_timestamp(list(timestamp)) -> timestamp
    .list_string_max_string(list(string)) -> string
    .list_bytes_max_bytes(list(bytes)) -> bytes";

fn elements<'a>(scope: &Scope<'_>, list: &List<'a>) -> Result<Vec<Value<'a>>, EvalError> {
    scope.budget.steps(list.len())?;
    list.to_vec()
}

fn is_sorted<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return scope.refuse(args) };
    for pair in elements(scope, list)?.windows(2) {
        if compare(&pair[0], &pair[1])?.is_gt() {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return scope.refuse(args) };
    let mut total: Option<Value<'a>> = None;
    for element in elements(scope, list)? {
        total = Some(match total {
            None => element,
            Some(total) => add_values(scope, total, &element)?,
        });
    }
    Ok(total.unwrap_or(Value::Int(0)))
}

fn min<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    extreme(scope, args, Ordering::Greater)
}

fn max<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    extreme(scope, args, Ordering::Less)
}

/// The element that gives way to none: an element does that stands in the given order to a later one.
fn extreme<'a>(scope: &Scope<'_>, args: &[Value<'a>], gives_way: Ordering) -> Outcome<'a> {
    let [Value::List(list)] = args else { return scope.refuse(args) };
    let mut best: Option<Value<'a>> = None;
    for element in elements(scope, list)? {
        best = Some(match best {
            Some(best) if compare(&best, &element)? != gives_way => best,
            _ => element,
        });
    }
    best.ok_or_else(|| EvalError::new(format!("{} called on empty list", scope.name)))
}

/// The place of an element.
pub(super) fn position<'a>(scope: &Scope<'_>, list: &List<'a>, item: &Value<'a>, last: bool) -> Outcome<'a> {
    let mut found = -1;
    for (index, element) in list.iter().enumerate() {
        match equal(&element?, item, scope.budget) {
            Ok(true) => found = i64::try_from(index).unwrap_or(i64::MAX),
            Err(error) if error.ends() => return Err(error),
            _ => continue,
        }
        if !last {
            break;
        }
    }
    Ok(Value::Int(found))
}

fn slice<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else { return scope.refuse(args) };
    let wrong = |why: &str| Err(EvalError::new(format!("cannot slice({start}, {end}), {why}")));
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return wrong("negative indexes not supported");
    };
    if from > to {
        return wrong("start index must be less than or equal to end index");
    }
    if to > list.len() {
        return wrong(&format!("list is length {}", list.len()));
    }
    scope.budget.steps(to - from)?;
    (from..to).filter_map(|index| list.get(index)).collect::<Result<_, _>>().map(Value::list)
}

fn flatten<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, depth) = match args {
        [Value::List(list)] => (list, 1),
        [Value::List(list), Value::Int(depth)] => (list, *depth),
        _ => return scope.refuse(args),
    };
    if depth < 0 {
        return Err(EvalError::new("level must be non-negative"));
    }
    let mut out = Vec::new();
    flatten_into(scope, &mut out, list, depth)?;
    Ok(Value::list(out))
}

fn flatten_into<'a>(scope: &Scope<'_>, out: &mut Vec<Value<'a>>, list: &List<'a>, depth: i64) -> Result<(), EvalError> {
    scope.budget.steps(1)?;
    for element in elements(scope, list)? {
        match element {
            Value::List(inner) if depth > 0 => flatten_into(scope, out, &inner, depth - 1)?,
            other => out.push(other),
        }
    }
    Ok(())
}

fn range<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Int(count)] = args else { return scope.refuse(args) };
    scope.budget.steps(usize::try_from(*count).unwrap_or(0))?;
    Ok(Value::list((0..*count).map(Value::Int).collect()))
}

fn reverse<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return scope.refuse(args) };
    let mut items = elements(scope, list)?;
    items.reverse();
    Ok(Value::list(items))
}

fn distinct<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return scope.refuse(args) };
    let mut kept: Vec<Value<'a>> = Vec::new();
    for element in elements(scope, list)? {
        if !holds(scope, &kept, &element)? {
            kept.push(element);
        }
    }
    Ok(Value::list(kept))
}

/// Whether an element is among others.
fn holds(scope: &Scope<'_>, items: &[Value<'_>], item: &Value<'_>) -> Result<bool, EvalError> {
    for other in items {
        match equal(other, item, scope.budget) {
            Ok(true) => return Ok(true),
            Err(error) if error.ends() => return Err(error),
            _ => {}
        }
    }
    Ok(false)
}

fn sort<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::List(list)] => sorted(scope, list, list),
        _ => scope.refuse(args),
    }
}

fn sort_by_keys<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::List(list), Value::List(keys)] => sorted(scope, list, keys),
        _ => scope.refuse(args),
    }
}

fn sorted<'a>(scope: &Scope<'_>, list: &List<'a>, keys: &List<'a>) -> Outcome<'a> {
    if list.len() != keys.len() {
        return Err(EvalError::new(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} \
             elements respectively",
            list.len(),
            keys.len()
        )));
    }
    let items = elements(scope, list)?;
    let keys = elements(scope, keys)?;
    let Some(first) = keys.first().map(Value::type_of) else { return Ok(Value::list(items)) };
    if compare(&keys[0], &keys[0]).is_err() {
        return Err(EvalError::new("list elements must be comparable"));
    }
    if keys.iter().any(|key| key.type_of() != first) {
        return Err(EvalError::new("list elements must have the same type"));
    }
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys.into_iter().zip(items).collect();
    pairs.sort_by(|(a, _), (b, _)| compare(a, b).unwrap_or(Ordering::Equal));
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

/// Whether all elements of the second are in the first.
fn includes_all(scope: &Scope<'_>, list: &List<'_>, of: &List<'_>) -> Result<bool, EvalError> {
    let items = elements(scope, list)?;
    for item in of.iter() {
        if !holds(scope, &items, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sets_contains<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::List(a), Value::List(b)] => includes_all(scope, a, b).map(Value::Bool),
        _ => scope.refuse(args),
    }
}

fn sets_equivalent<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::List(a), Value::List(b)] => Ok(Value::Bool(includes_all(scope, a, b)? && includes_all(scope, b, a)?)),
        _ => scope.refuse(args),
    }
}

fn sets_intersects<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(a), Value::List(b)] = args else { return scope.refuse(args) };
    let items = elements(scope, b)?;
    for item in a.iter() {
        if holds(scope, &items, &item?)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

/// The sum of a list that is a set or a map with another: elements that are there already are not added, and those with
/// the keys of others take their places (`pkg/cel/common/valuesunstructured.go`).
pub(super) fn merge<'a>(scope: &Scope<'_>, a: &List<'a>, b: &List<'a>, schema: &Schema) -> Outcome<'a> {
    let mut items = elements(scope, a)?;
    scope.budget.steps((items.len() + b.len()).saturating_mul(4))?;
    if schema.list_type == ListType::Set {
        let mut known: HashSet<String> = items.iter().map(digest).collect();
        for item in b.iter() {
            let item = item?;
            if known.insert(digest(&item)) {
                items.push(item);
            }
        }
        return Ok(Value::list(items));
    }
    let keys = &schema.list_map_keys;
    let mut places: std::collections::HashMap<String, usize> =
        items.iter().enumerate().map(|(index, item)| (list_map_key(item, keys), index)).collect();
    for item in b.iter() {
        let item = item?;
        let key = list_map_key(&item, keys);
        match places.get(&key) {
            Some(place) => items[*place] = item,
            None => {
                places.insert(key, items.len());
                items.push(item);
            }
        }
    }
    Ok(Value::list(items))
}
