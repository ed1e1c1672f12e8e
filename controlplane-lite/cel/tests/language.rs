//! What expressions evaluate to, and what is said of those that are wrong. The cases are facts of the language's
//! specification and of upstream's tests.
#![allow(clippy::unwrap_used)]

use cel::{Budget, Env, Program, Type, Variables};
use serde_json::{Value as Json, json};

fn object() -> Json {
    json!({
        "metadata": {"name": "web", "labels": {"app": "a", "tier": "front"}, "namespace": "shop"},
        "spec": {"replicas": 3, "ratio": 0.5, "paused": false, "none": null,
                 "containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}
    })
}

/// The value or the error of an expression over an object.
fn eval(text: &str) -> Result<Json, String> {
    let env = Env::new().with_variable("object", Type::Dyn);
    let program = Program::compile(text, &env).map_err(|error| format!("compile: {error}"))?;
    let object = object();
    let value = program
        .eval(&Variables::new().with_json("object", &object), &Budget::default())
        .map_err(|error| error.to_string())?;
    value.to_json().ok_or_else(|| format!("no JSON: {value}"))
}

fn holds(cases: &[&str]) {
    for text in cases {
        assert_eq!(eval(text), Ok(json!(true)), "{text}");
    }
}

fn fails(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        match eval(text) {
            Ok(value) => panic!("{text} is {value}, not: {expected}"),
            Err(error) => assert!(error.contains(expected), "{text}: {error}, not: {expected}"),
        }
    }
}

#[test]
fn arithmetic() {
    holds(&[
        "1 + 2 * 3 - 4 / 2 == 5",
        "(1 + 2) * 3 == 9",
        "-7 / 2 == -3 && -7 % 2 == -1",
        "1.5 + 2.5 == 4.0",
        "7u / 2u == 3u",
        "0x10 == 16 && -0x10 == -16",
        "9223372036854775807 > -9223372036854775808",
        "dyn(1) == 1.0 && dyn(1u) == 1 && dyn(1) < 1.5 && 2u > 1",
        "double(1) / 0.0 > 1e308",
        "'a' + 'b' == 'ab' && b'a' + b'b' == b'ab' && [1] + [2] == [1, 2]",
        "!(double('NaN') == double('NaN'))",
    ]);
    fails(&[
        ("9223372036854775807 + 1", "integer overflow"),
        ("-(-9223372036854775808)", "integer overflow"),
        ("-9223372036854775808 - 1", "integer overflow"),
        ("5000000000 * 5000000000", "integer overflow"),
        ("0u - 1u", "unsigned integer overflow"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("object.spec.replicas + object.metadata.name", "no such overload"),
    ]);
}

#[test]
fn logic_absorbs_errors() {
    holds(&[
        "true || 1 / 0 > 1",
        "1 / 0 > 1 || true",
        "!(false && 1 / 0 > 1)",
        "!(1 / 0 > 1 && false)",
        "[1, 0].exists(x, 1 / x > 0)",
        "![1, 0].all(x, 1 / x > 5)",
        "true ? true : 1 / 0 > 1",
    ]);
    fails(&[("false || 1 / 0 > 1", "division by zero"), ("[0, 0].exists(x, 1 / x > 0)", "division by zero")]);
}

#[test]
fn macros_and_comprehensions() {
    holds(&[
        "has(object.spec.replicas) && !has(object.spec.missing)",
        "[1, 2, 3].all(x, x > 0) && ![1, 2, 3].all(x, x > 1)",
        "{'a': 1}.all(k, k == 'a')",
        "[1, 2, 3].exists_one(x, x == 2) && ![1, 2, 2].exists_one(x, x == 2) && [1].existsOne(x, x == 1)",
        "[1, 2, 3].map(x, x * 2) == [2, 4, 6] && [1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "[1, 2, 3].filter(x, x != 2) == [1, 3]",
        "object.spec.containers.map(c, c.name) == ['a', 'b']",
        "[5, 6].all(i, v, v == i + 5) && {'a': 1}.exists(k, v, k == 'a' && v == 1)",
        "[5, 6].transformList(i, v, i * 10 + v) == [5, 16]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "['x', 'y'].transformMapEntry(i, v, {v: i}) == {'x': 0, 'y': 1}",
        "[[1, 2], [3]].map(x, x.map(y, y + 1)) == [[2, 3], [4]]",
        "[1, 2].map(x, [x].map(x, x + 1)) == [[2], [3]]",
        "[1].map(object, object + 1) == [2]",
    ]);
    fails(&[
        ("[1].all(1, true)", "argument must be a simple name"),
        ("[1].map(x.y, true)", "argument is not an identifier"),
        ("has(object)", "invalid argument to has() macro"),
        ("[1].all(i, i, true)", "duplicate variable name: i"),
        ("[1].map(__result__, 1)", "iteration variable overwrites accumulator variable"),
        ("{'a': 1}.transformMapEntry(k, v, {1: v, 1u: v}) == {} && 'x' == 1", "no matching overload"),
        ("['x', 'x'].transformMapEntry(i, v, {v: i})", "insert failed: key x already exists"),
    ]);
}

#[test]
fn optionals() {
    holds(&[
        "object.?spec.?replicas.orValue(7) == 3",
        "object.?spec.?missing.orValue(7) == 7",
        "object.?missing.name.orValue('x') == 'x'",
        "!object.?missing.hasValue() && object.spec.?replicas.hasValue()",
        "[1, 2][?5].orValue(9) == 9 && {'a': 1}[?'a'].value() == 1",
        "optional.of(1).or(optional.of(2)).value() == 1 && optional.none().or(optional.of(2)).value() == 2",
        "optional.of(2).optMap(x, x * x) == optional.of(4) && !optional.none().optMap(x, x).hasValue()",
        "optional.of({'a': 1}).optFlatMap(m, m.?b) == optional.none()",
        "[?optional.of(1), ?optional.none(), 3] == [1, 3]",
        "{?'a': optional.of(1), ?'b': optional.none()} == {'a': 1}",
        "optional.ofNonZeroValue('') == optional.none()",
        "[optional.of(1), optional.none()].unwrapOpt() == [1] && [1, 2].last().value() == 2",
        "has(object.?spec.replicas) && !has(object.?missing.replicas)",
    ]);
    fails(&[
        ("optional.none().value()", "optional.none() dereference"),
        ("[?1]", "expected type 'optional_type(int)' but found 'int'"),
    ]);
}

#[test]
fn strings() {
    holds(&[
        "'tacocat'.charAt(3) == 'o' && 'abc'.charAt(3) == ''",
        "'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3 && 'hello'.indexOf('l', 3) == 3",
        "'hello'.lastIndexOf('l', 2) == 2 && 'hello'.indexOf('') == 0",
        "'AbC é'.lowerAscii() == 'abc é' && 'AbC é'.upperAscii() == 'ABC é'",
        "'a,b,c'.split(',') == ['a', 'b', 'c']",
        "'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'abc'.split('') == ['a', 'b', 'c']",
        "'aaa'.replace('a', 'b', 2) == 'bba' && 'ab'.replace('', '-') == '-a-b-'",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco'",
        "' x '.trim() == 'x' && ['a', 'b'].join('-') == 'a-b'",
        "strings.quote('a\"b\\n') == '\"a\\\\\"b\\\\n\"'",
        "'%s is %d, %.2f'.format(['x', 3, 1.5]) == 'x is 3, 1.50' && '%s'.format([[1, 'a']]) == '[1, \"a\"]'",
        "'%f'.format([1234567.25]) == '1,234,567.250000' && '%x%%'.format([255]) == 'ff%'",
        "'abc'.matches('^a.c$') && 'abc 123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "size('é') == 1 && 'é'.size() == 1 && size(bytes('é')) == 2",
        r"'\u00e9\x41\101' == 'éAA' && r'\n' == '\\n' && b'\xff' != b'\x00' && '''a'b''' == 'a\'b'",
    ]);
    fails(&[
        ("'abc'.charAt(4)", "index out of range: 4"),
        ("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1"),
        ("'%d'.format(['x'])", "decimal clause can only be used on integers, was given string"),
        ("'%d'.format([1, 2])", "too many arguments supplied to string.format (expected 1, got 2)"),
        ("'abc'.reverse()", "found no matching overload for 'reverse' applied to 'string.()'"),
        ("'a'.matches('(')", "invalid matches argument"),
    ]);
}

#[test]
fn times() {
    holds(&[
        "timestamp('2009-02-13T23:31:30Z').getFullYear() == 2009 && timestamp('2009-02-13T23:31:30Z').getMonth() == 1",
        "timestamp('2009-02-13T23:31:30Z').getDate() == 13 && timestamp('2009-02-13T23:31:30Z').getDayOfMonth() == 12",
        "timestamp('2009-02-13T23:31:30Z').getDayOfWeek() == 5",
        "timestamp('2009-02-13T23:31:30Z').getDayOfYear() == 43",
        "timestamp('2009-02-13T23:31:30Z').getHours('+02:00') == 1",
        "timestamp('2009-02-13T23:31:30Z') - timestamp('2009-02-13T23:31:00Z') == duration('30s')",
        "timestamp('2009-02-13T23:31:30Z') + duration('90m') > timestamp('2009-02-14T00:00:00Z')",
        "string(duration('1h30m')) == '5400s' && duration('90m').getHours() == 1",
        "int(timestamp('1970-01-01T00:00:05Z')) == 5 && string(timestamp(0)) == '1970-01-01T00:00:00Z'",
        "string(timestamp('9999-12-31T23:59:59.999999999Z')) == '9999-12-31T23:59:59.999999999Z'",
    ]);
    fails(&[
        ("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "timestamp overflow"),
        ("timestamp('now')", "invalid timestamp argument"),
        ("duration('1x')", "invalid duration argument"),
        ("timestamp(object.metadata.name)", "type conversion error from 'string' to 'google.protobuf.Timestamp'"),
    ]);
}

#[test]
fn fields_and_indices() {
    holds(&[
        "object.metadata.labels['app'] == 'a' && object.metadata.labels.tier == 'front'",
        "object.spec.containers[1].image == 'y:2' && object['spec']['replicas'] == 3",
        "object.spec.ratio == 0.5 && object.spec.none == null && object.metadata.namespace == 'shop'",
        "'app' in object.metadata.labels && !('x' in object.metadata.labels) && 2 in [1, 2] && dyn(1.0) in [1, 2]",
        "{1: 'a'}[dyn(1u)] == 'a' && {true: 1}[true] == 1 && [10, 20][dyn(1.0)] == 20",
        "type(1) == int && type('') == string && type(type(1)) == type && type(null) == null_type",
        "type(timestamp(0)) == google.protobuf.Timestamp",
        "{'a': [1], 'b': [2]} == {'b': [2], 'a': [1]} && {'a': 1} != {'a': 2}",
    ]);
    fails(&[
        ("object.spec.missing", "no such key: missing"),
        ("[1][1]", "index out of bounds: 1"),
        ("{'a': 1}['b']", "no such key: b"),
        ("[1]['a']", "found no matching overload for '_[_]' applied to '(list(int), string)'"),
    ]);
}

#[test]
fn errors_of_types_are_cel_gos() {
    fails(&[
        ("x", "compile: ERROR: <input>:1:1: undeclared reference to 'x' (in container '')\n | x\n | ^"),
        ("1 + 'a'", "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'"),
        ("'a'.foo()", "ERROR: <input>:1:8: undeclared reference to 'foo' (in container '')"),
        ("'a'.contains(1)", "found no matching overload for 'contains' applied to 'string.(int)'"),
        ("'a'.b", "type 'string' does not support field selection"),
        ("1 && true", "expected type 'bool' but found 'int'"),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'"),
        ("'a'.all(x, true)", "cannot be range of a comprehension (must be list, map, or dynamic)"),
        ("Foo{a: 1}", "undeclared reference to 'Foo' (in container '')"),
    ]);
}

#[test]
fn errors_of_the_syntax_are_cel_gos() {
    fails(&[
        ("1 +", "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', "),
        ("1 2", "Syntax error: extraneous input '2' expecting <EOF>"),
        ("(1", "Syntax error: mismatched input '<EOF>' expecting ')'"),
        ("a ? b", "Syntax error: mismatched input '<EOF>' expecting ':'"),
        ("1 $ 2", "Syntax error: token recognition error at: '$'"),
        ("namespace", "reserved identifier: namespace"),
        ("9223372036854775808", "invalid int literal"),
        ("object.true", "mismatched input 'true' expecting IDENTIFIER"),
        ("object.`a-b`", "unsupported syntax: '`'"),
    ]);
    let long = "1".repeat(100_001);
    fails(&[
        (&long, "expression code point size exceeds limit: size: 100001, limit 100000"),
        (&"(".repeat(300), "expression recursion limit exceeded: 250"),
        (&format!("1{}", " + 1".repeat(300)), "expression recursion limit exceeded: 250"),
    ]);
}
