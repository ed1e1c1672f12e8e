//! The cases of k8s.io/client-go/util/jsonpath/{jsonpath,parser}_test.go, but for those of `range`.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn run(text: &str, input: &Value, missing_keys: bool) -> Result<String, String> {
    let template = Template::parse(text).map_err(|why| why.to_string())?;
    template.execute(input, missing_keys).map_err(|why| why.to_string())
}

fn check(input: &Value, rows: &[(&str, &str)]) {
    for (text, expect) in rows {
        assert_eq!(run(text, input, false).as_deref(), Ok(*expect), "{text}");
    }
}

fn fail(input: &Value, rows: &[(&str, &str)]) {
    for (text, expect) in rows {
        assert_eq!(run(text, input, false), Err((*expect).to_owned()), "{text}");
    }
}

#[test]
fn slices_of_all_types() {
    let input = json!({
        "bools": [true, false, true, false],
        "integers": [1, 2, 3, 4],
        "floats": [1.0, 2.2, 3.3, 4.0],
        "strings": ["one", "two", "three", "four"],
        "interfaces": [true, "one", 1, 1.1],
        "maps": [{"name": "one", "value": 1}, {"name": "two", "value": 2.02}, {"name": "three", "value": 3.03},
            {"name": "four", "value": 4.04}],
    });
    check(
        &input,
        &[
            ("{ .bools }", "[true,false,true,false]"),
            ("{ .bools[0] }", "true"),
            ("{ .bools[-1] }", "false"),
            ("{ .bools[0:2] }", "true false"),
            ("{ .bools[:2] }", "true false"),
            ("{ .bools[:4:2] }", "true true"),
            ("{ .integers }", "[1,2,3,4]"),
            ("{ .integers[0] }", "1"),
            ("{ .integers[-2] }", "3"),
            ("{ .integers[:4:2] }", "1 3"),
            ("{ .floats }", "[1,2.2,3.3,4]"),
            ("{ .floats[0] }", "1"),
            ("{ .floats[-2] }", "3.3"),
            ("{ .floats[:2] }", "1 2.2"),
            ("{ .strings }", r#"["one","two","three","four"]"#),
            ("{ .strings[-2] }", "three"),
            ("{ .strings[0:2] }", "one two"),
            ("{ .strings[:4:2] }", "one three"),
            ("{ .interfaces }", r#"[true,"one",1,1.1]"#),
            ("{ .interfaces[:4:2] }", "true 1"),
            ("{ .maps[0] }", r#"{"name":"one","value":1}"#),
            ("{ .maps[-2] }", r#"{"name":"three","value":3.03}"#),
            ("{ .maps[0:2] }", r#"{"name":"one","value":1} {"name":"two","value":2.02}"#),
            ("{ .maps[::2] }", r#"{"name":"one","value":1} {"name":"three","value":3.03}"#),
            ("{ .maps[1::2] }", r#"{"name":"two","value":2.02} {"name":"four","value":4.04}"#),
        ],
    );
}

fn store() -> Value {
    json!({
        "Name": "jsonpath",
        "Book": [
            {"Category": "reference", "Author": "Nigel Rees", "Title": "Sayings of the Centurey", "Price": 8.95},
            {"Category": "fiction", "Author": "Evelyn Waugh", "Title": "Sword of Honour", "Price": 12.99},
            {"Category": "fiction", "Author": "Herman Melville", "Title": "Moby Dick", "Price": 8.99},
        ],
        "Bicycle": [{"Color": "red", "Price": 19.95, "IsNew": true}, {"Color": "green", "Price": 20.01, "IsNew": false}],
        "Labels": {"engieer": 10, "web/html": 15, "k8s-app": 20},
        "Employees": {"jason": "manager", "dan": "clerk"},
    })
}

#[test]
fn expressions() {
    check(&json!(null), &[("hello jsonpath", "hello jsonpath"), (r#"{"{"}"#, "{"), (r#"{"\t"}"#, "\t")]);
    check(&json!([1, 2, 3]), &[("{..}", "[1,2,3]")]);
    check(&json!([2, 6, 3, 7]), &[("{[?(@<5)]}", "2 3")]);
    check(&json!([0, 1, 2, 3, 4]), &[("{[1,3,4]}", "1 3 4")]);
    check(&json!(["Monday", "Tudesday"]), &[("{[0:2]}", "Monday Tudesday")]);
    let moby = r#"{"Author":"Herman Melville","Category":"fiction","Price":8.99,"Title":"Moby Dick"}"#;
    check(
        &store(),
        &[
            ("hello {.Name}", "hello jsonpath"),
            ("{$.Labels.web/html}", "15"),
            ("{$.Employees.jason}", "manager"),
            ("{.Labels.k8s-app}", "20"),
            ("{.Bicycle[*].Color}", "red green"),
            ("{.Book[*].Author}", "Nigel Rees Evelyn Waugh Herman Melville"),
            ("{.Bicycle[0].*}", "red true 19.95"),
            ("{..Price}", "19.95 20.01 8.95 12.99 8.99"),
            ("{...Price}", "19.95 20.01 8.95 12.99 8.99"),
            (
                "{.Bicycle}",
                r#"[{"Color":"red","IsNew":true,"Price":19.95},{"Color":"green","IsNew":false,"Price":20.01}]"#,
            ),
            ("{.Book[-1:]}", moby),
            ("{..Book[2]}", moby),
            ("{.Bicycle[?(@.IsNew==true)]}", r#"{"Color":"red","IsNew":true,"Price":19.95}"#),
            ("{.Book[?(@.Price>8.95)].Price}", "12.99 8.99"),
            ("{.Book[?(@.Price>=8.95)].Price}", "8.95 12.99 8.99"),
            ("{.Book[?(@.Price!=8.95)].Price}", "12.99 8.99"),
            ("{.Book[?(@.Category<='fiction')].Price}", "12.99 8.99"),
        ],
    );
    fail(
        &store(),
        &[
            ("{hello}", "unrecognized identifier hello"),
            ("{.hello}", "hello is not found"),
            ("{.Labels[0]}", "map[string]interface {} is not array or slice"),
            ("{.Name[?(@)]}", "jsonpath is not array or slice and cannot be filtered"),
            ("{.Book[?(@.Price<>10)]}", "unrecognized filter operator <>"),
            ("{.Book[?(@.Price<10)]}", "incompatible types for comparison"),
            ("{.Book[?(@<10)]}", "invalid type for comparison"),
            ("{.Bicycle[?(@.IsNew<true)]}", "invalid type for comparison"),
            ("{.Book[?(@.*=='a')]}", "can only compare one element at a time"),
        ],
    );
    for (text, expect) in [("{.hello}", ""), ("before-{.hello}after", "before-after")] {
        assert_eq!(run(text, &store(), true).as_deref(), Ok(expect), "{text}");
    }
}

#[test]
fn objects_of_kubernetes() {
    let points =
        json!([{"id": "i1", "x": 4}, {"id": "i2", "x": -2, "z": 1}, {"id": "i5", "z": 1}, {"id": "i7", "x": null}]);
    check(&points, &[("{[?(@.z)].id}", "i2 i5"), ("{[0]['id']}", "i1"), ("{[-1]['x']}", "null")]);
    let nodes = json!({
        "items": [
            {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
                "status": {"capacity": {"cpu": "4"}, "ready": true,
                    "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]}},
            {"kind": "None", "metadata": {"name": "127.0.0.2", "labels": {"kubernetes.io/hostname": "127.0.0.2"}},
                "status": {"capacity": {"cpu": "8"}, "ready": false, "addresses": [
                    {"type": "LegacyHostIP", "address": "127.0.0.2"}, {"type": "another", "address": "127.0.0.3"}]}},
        ],
        "users": [{"name": "myself", "user": {}}, {"name": "e2e", "user": {"username": "admin", "password": "secret"}}],
    });
    check(
        &nodes,
        &[
            ("{.items[*].status.addresses[*].address}", "127.0.0.1 127.0.0.2 127.0.0.3"),
            ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
            ("{.items[*]['metadata.name', 'status.capacity']}", r#"127.0.0.1 127.0.0.2 {"cpu":"4"} {"cpu":"8"}"#),
            (r#"{.users[?(@.name=="e2e")].user.password}"#, "secret"),
            (r"{.items[0].metadata.labels.kubernetes\.io/hostname}", "127.0.0.1"),
            (r#"{.items[?(@.metadata.labels.kubernetes\.io/hostname=="127.0.0.1")].kind}"#, "None"),
            ("{.items[?(@..ready==true)].metadata.name}", "127.0.0.1"),
            ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
        ],
    );
    let pods = json!({"items": [
        {"metadata": {"name": "pod1", "annotations": {"color": "blue"}}},
        {"metadata": {"name": "pod2"}},
        {"metadata": {"name": "pod3", "annotations": {"color": "green"}}},
        {"metadata": {"name": "pod4", "annotations": {"color": "blue"}}}]});
    let blue = r#"{.items[?(@.metadata.annotations.color=="blue")].metadata.name}"#;
    assert_eq!(run(blue, &pods, true).as_deref(), Ok("pod1 pod4"));
    assert_eq!(run(blue, &pods, false), Err("annotations is not found".to_owned()));
}

#[test]
fn indices_and_steps() {
    let containers = |count: usize| {
        let list: Value = (0..count).map(|n| json!({"name": format!("fake{n}")})).collect();
        json!({ "c": list })
    };
    let name = |slice: &str| format!("{{.c[{slice}].name}}");
    for (slice, expect) in [
        ("0", "fake0"),
        ("0:0", ""),
        ("0:-1", "fake0 fake1 fake2"),
        ("-1", "fake3"),
        ("-1:", "fake3"),
        ("-2", "fake2"),
        ("-2:", "fake2 fake3"),
        ("-3", "fake1"),
        ("-4", "fake0"),
        ("-4:", "fake0 fake1 fake2 fake3"),
        ("5:5", ""),
        ("-5:-5", ""),
    ] {
        assert_eq!(run(&name(slice), &containers(4), false).as_deref(), Ok(expect), "{slice}");
    }
    for (slice, expect) in [
        ("-1:0", "starting index 3 is greater than ending index 0"),
        ("-5", "array index out of bounds: index -1, length 4"),
        ("4", "array index out of bounds: index 4, length 4"),
        ("0:9", "array index out of bounds: index 8, length 4"),
        ("3:1", "starting index 3 is greater than ending index 1"),
        ("-1:-2", "starting index 3 is greater than ending index 2"),
        ("0:4:0", "step must be > 0"),
        ("0:4:-1", "step must be > 0"),
    ] {
        assert_eq!(run(&name(slice), &containers(4), false), Err(expect.to_owned()), "{slice}");
    }
    for (slice, expect) in [
        ("0:", "fake0 fake1 fake2 fake3 fake4 fake5"),
        ("0:6:", "fake0 fake1 fake2 fake3 fake4 fake5"),
        ("0:6:1", "fake0 fake1 fake2 fake3 fake4 fake5"),
        ("1:4:2", "fake1 fake3"),
        ("1:4:3", "fake1"),
        ("1:4:4", "fake1"),
        ("0:6:2", "fake0 fake2 fake4"),
        ("0:6:5", "fake0 fake5"),
        ("0:6:6", "fake0"),
    ] {
        assert_eq!(run(&name(slice), &containers(6), false).as_deref(), Ok(expect), "{slice}");
    }
}

#[test]
fn what_is_parsed() {
    let field = |name: &str| Node::Field(name.to_owned());
    let text = |text: &str| Node::Text(text.into());
    let slice = |start, end, single| Node::Slice(Slice { start, end, single, step: None });
    let equal = |path: &[&str], right: &str| Node::Filter {
        left: path.iter().map(|name| field(name)).collect(),
        operator: Operator::Equal,
        right: vec![text(right)],
    };
    let os = &["status", "nodeInfo", "osImage"];
    for (input, expect) in [
        ("hello {.jsonpath}", vec![vec![text("hello ")], vec![field("jsonpath")]]),
        ("hello {['jsonpath']}", vec![vec![text("hello ")], vec![field("jsonpath")]]),
        ("{[1:3]}", vec![vec![slice(Some(1), Some(3), false)]]),
        ("{.book[*].author}", vec![vec![field("book"), slice(None, None, false), field("author")]]),
        ("{.bicycle.*}", vec![vec![field("bicycle"), Node::Wildcard]]),
        ("{..}", vec![vec![Node::Recursive]]),
        ("{..price}", vec![vec![Node::Recursive, field("price")]]),
        ("{['book.price']}", vec![vec![field("book"), field("price")]]),
        (
            "{['bicycle.price', 3, 'book.price']}",
            vec![vec![Node::Union(vec![
                vec![field("bicycle"), field("price")],
                vec![slice(Some(3), Some(4), true)],
                vec![field("book"), field("price")],
            ])]],
        ),
        (r#"{[?(@.status.nodeInfo.osImage == "()")]}"#, vec![vec![equal(os, "()")]]),
        (r#"{[?(@.status.nodeInfo.osImage == "(\"\")")]}"#, vec![vec![equal(os, "(\"\")")]]),
        (r#"{[?(@.test == "())(")]}"#, vec![vec![equal(&["test"], "())(")]]),
        ("{[?(@.status.nodeInfo.osImage == 'Linux')]}", vec![vec![equal(os, "Linux")]]),
        (r#"{[?(@.status.nodeInfo.osImage == "{[()]}")]}"#, vec![vec![equal(os, "{[()]}")]]),
        (r#"{[?(@.status.nodeInfo.osImage == "''")]}"#, vec![vec![equal(os, "''")]]),
        (r#"{[?(@.status.nodeInfo.osImage == '""')]}"#, vec![vec![equal(os, "\"\"")]]),
        (r"{[?(@.status.nodeInfo.osImage == '\\\'')]}", vec![vec![equal(os, "\\'")]]),
        ("{[-5:]}", vec![vec![slice(Some(-5), None, false)]]),
        ("{[-1]}", vec![vec![slice(Some(-1), Some(0), true)]]),
        ("{[1:-1]}", vec![vec![slice(Some(1), Some(-1), false)]]),
    ] {
        assert_eq!(Template::parse(input).unwrap().blocks, expect, "{input}");
    }
    for (input, expect) in [
        ("{.hello", "unclosed action"),
        ("{*}", "unrecognized character in action: U+002A '*'"),
        ("{+12.3.0}", "cannot parse number +12.3.0"),
        ("{[1}", "unterminated array"),
        ("{[?(.price]}", "unterminated filter"),
        ("{[?(.price)}", "unclosed array expect ]"),
        ("{........}", "invalid multiple recursive descent"),
        ("{............................................................Price}", "invalid multiple recursive descent"),
        (r"{\\\}", "unrecognized character in action: U+005C '\\'"),
        ("{['a]}", "invalid array index 'a"),
        ("{[99999999999999999999]}", "array index 99999999999999999999 is not a number"),
        ("{'a}", "unterminated quoted string"),
        (r"{'\q'}", r"unquote string '\q' error invalid syntax"),
    ] {
        assert_eq!(Template::parse(input).unwrap_err().to_string(), expect, "{input}");
    }
}

#[test]
fn numbers_and_json_are_printed_as_go_does() {
    for (value, expect) in [
        (json!(1_000_000), "1000000"),
        (json!(1e6), "1e+06"),
        (json!(123_456.5), "123456.5"),
        (json!(1_234_567.5), "1.2345675e+06"),
        (json!(0.0001), "0.0001"),
        (json!(0.00001), "1e-05"),
        (json!(-2.5e-9), "-2.5e-09"),
        (json!([1e6, 1e21, 1e-7, 2.0]), "[1000000,1e+21,1e-7,2]"),
        (json!({"b": "<a&\u{2028}>", "a": []}), "{\"a\":[],\"b\":\"\\u003ca\\u0026\\u2028\\u003e\"}"),
        (json!({}), "{}"),
        (json!(""), ""),
    ] {
        assert_eq!(print(&value), expect);
    }
}

#[test]
fn work_is_bounded() {
    let mut deep = json!([1]);
    for _ in 0..100 {
        deep = json!([deep, deep["x"], 1]);
    }
    let wide: Value = (0..50_000).collect();
    let nested = format!("{{{}}}", "..[*]".repeat(40));
    assert_eq!(run(&nested, &deep, true), Err("looks at too many values".to_owned()));
    assert_eq!(
        run("{[*][*][*]}", &json!([[wide, wide], [wide, wide, wide]]), true),
        Err("looks at too many values".to_owned())
    );
    let text = "a".repeat(1 << 20);
    assert!(Template::expression(&format!("[?({text}")).is_err());
    assert!(Template::expression(&format!(".{text}")).is_ok());
}

proptest::proptest! {
    #[test]
    fn garbage_is_an_error_or_a_text(text in r#"[.\[\]{}?()@$*:,'"a-c0-3 =<!\\-]{0,24}"#) {
        let input = json!({"a": [1, {"b": "c"}, null], "b": {"a": 1.5}});
        let _ = run(&format!("{{{text}}}"), &input, true);
        let _ = run(&text, &input, false);
    }
}
