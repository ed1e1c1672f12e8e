//! What evaluations cost. The numbers are cel-go's and upstream's, less what they ask for lists, maps and conversions
//! of constants, which Kubernetes' environment folds.
#![allow(clippy::unwrap_used)]

use cel::schema::{Schema, SchemaType, declare};
use cel::{Budget, Env, EvalError, Program, Type, Variables};
use serde_json::json;

fn env() -> Env {
    ["list", "strings", "map", "text", "x"].into_iter().fold(Env::new(), |env, name| match name {
        "list" => env.with_variable(name, Type::list(Type::Int)),
        "strings" => env.with_variable(name, Type::list(Type::String)),
        "map" => env.with_variable(name, Type::map(Type::String, Type::Int)),
        "text" => env.with_variable(name, Type::String),
        _ => env.with_variable(name, Type::Dyn),
    })
}

fn cost(text: &str) -> u64 {
    let program = Program::compile(text, &env()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let values = json!({"list": [1, 2, 3, 4, 5], "strings": ["a", "b"], "map": {"a": 1, "b": 2},
        "text": "x".repeat(500), "x": {"y": {"z": 1}}});
    let variables = ["list", "strings", "map", "text", "x"]
        .into_iter()
        .fold(Variables::new(), |variables, name| variables.with_json(name, &values[name]));
    let budget = Budget::default();
    program.eval(&variables, &budget).unwrap_or_else(|error| panic!("{text}: {error}"));
    budget.cost()
}

#[test]
fn each_step_costs_what_it_costs_upstream() {
    let cases = [
        ("true", 0),
        ("x.y.z", 3),
        ("x.y['z']", 3),
        ("list[0]", 2),
        ("list[x.y.z]", 4),
        ("list[3 - 3]", 3),
        ("has(x.y.z)", 2),
        ("has(x.y)", 1),
        ("x.?y.?missing", 2),
        ("1 + 1", 1),
        ("x.y.z == 1", 4),
        ("true || x.y.z == 1", 0),
        ("true ? x.y.z == 1 : false", 4),
        ("(true ? x : x).y.z == 1", 3),
        ("[1, 2, 3]", 0),
        ("[x.y.z]", 13),
        ("{'a': x.y.z}", 33),
        ("2 in [1, 2, 3]", 0),
        ("2 in list", 6),
        ("int('3')", 0),
        ("list.all(x, true)", 17),
        ("[1, 2, 3].all(x, true)", 10),
        ("list.filter(x, x % 2 == 0)", 43),
        ("list.map(x, x)", 67),
        ("list.exists_one(x, x == 3)", 15),
        ("map.transformMap(k, v, v + 1)", 12),
        ("{'a': 1, 'b': 2}.all(k, v, v > 0)", 11),
        ("text.matches('[0-9]')", 103),
        ("text.startsWith('xx')", 51),
        ("text.contains(text)", 2502),
        ("bytes(text)", 51),
        ("text + text", 102),
        ("'12345678901234567890' == '123456789012345678901234567890'", 2),
        ("text == text", 52),
        ("list.sum()", 6),
        ("strings.join(',')", 2),
        ("'abc 123 def 123'.split(' ')", 3),
        ("'abc 123 def 123'.find('123')", 2),
        ("quantity('50k').add(20).sub(quantity('100k')).asInteger() > 0", 6),
        ("quantity('200M') == quantity('0.2G')", 3),
        ("cidr('192.168.0.0/16').containsCIDR(cidr('192.168.10.0/24'))", 7),
        ("format.named('dns1123Label').value().validate('my-name')", 10),
        ("sets.contains(list, [1, 2])", 12),
        ("list.distinct()", 62),
        ("optional.of(1).optMap(v, v + 1)", 7),
    ];
    for (text, expected) in cases {
        assert_eq!(cost(text), expected, "{text}");
    }
}

#[test]
fn an_evaluation_ends_when_its_budget_does() {
    let program = Program::compile("list.all(x, true) || true", &env()).unwrap();
    let list = json!([1, 2, 3]);
    let budget = Budget::new(5);
    let outcome = program.eval(&Variables::new().with_json("list", &list), &budget);
    assert_eq!(outcome.unwrap_err(), EvalError::CostLimit);
    assert_eq!(EvalError::CostLimit.to_string(), "operation cancelled: actual cost limit exceeded");
}

/// Expressions whose work would grow beyond all bounds: each ends, and in a stack of the size that tasks have.
#[test]
fn attacks_end() {
    let doubled = format!("['x']{}", ".map(x, x + x)".repeat(60));
    let lists = format!("[[1, 2]]{}", ".map(x, x + x)".repeat(60));
    let shared = format!("[[1]]{}.all(x, x == x)", ".map(x, [x, x])".repeat(60));
    let keyed = format!("[1]{}", ".map(y, {'a': y, 'b': y})".repeat(60));
    let nested = format!("{}true{}", "list.all(a, ".repeat(12), ")".repeat(12));
    let optional = format!("optional.of(1){}", ".optMap(v, v)".repeat(60));
    let deep = format!("{}1{}", "[".repeat(240), "]".repeat(240));
    let parentheses = format!("{}x{}", "(".repeat(120), " == x)".repeat(120));
    let wide = format!("[{}1]", "[],".repeat(20_000));
    let inner = format!("{}true{}", "[1].all(a, ".repeat(120), ")".repeat(120));
    let attacks = [doubled, lists, shared, keyed, nested, optional, deep, parentheses, wide, inner];
    let run = move || {
        let list = json!(vec![1; 5000]);
        for text in attacks {
            let Ok(program) = Program::compile(&text, &env()) else { continue };
            let variables = Variables::new().with_json("list", &list).with_json("x", &list);
            let _ = program.eval(&variables, &Budget::default());
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn estimates_follow_the_schema() {
    let bounded = Schema {
        max_items: Some(10),
        ..Schema::array(Schema { max_length: Some(20), ..Schema::new(SchemaType::String) })
    };
    let unbounded = Schema::array(Schema::new(SchemaType::String));
    let object = Schema::object([("few", bounded), ("many", unbounded), ("n", Schema::new(SchemaType::Integer))]);
    let (declared, structs) = declare(&object, false, "self").unwrap();
    let env = Env::new().with_variable("self", declared.of.clone()).with_structs(structs);
    let most = |text: &str| Program::compile(text, &env).unwrap().estimate(&declared).max;
    let cases = [
        ("self.n > 0", 3),
        ("self.few.all(s, true)", 33),
        ("self.few.all(s, s.startsWith('a'))", 53),
        ("self.few.all(s, s.matches('a'))", 133),
        ("has(self.few)", 1),
    ];
    for (text, expected) in cases {
        assert_eq!(most(text), expected, "{text}");
    }
    assert!(most("self.many.all(s, s.contains(s))") > 10_000_000);
    assert_eq!(declared.max_cardinality(), 3 * 1024 * 1024 / 3);
}
