//! Kubernetes' libraries. The cases are facts of upstream's documentation and tests.
#![allow(clippy::unwrap_used)]

use cel::{Authorizer, Budget, Check, Decision, Env, Object, Program, Type, Value, Variables};

/// Allows whatever its name says.
#[derive(Debug)]
struct Names;

impl Authorizer for Names {
    fn authorize(&self, check: &Check) -> Decision {
        let account = check.service_account.as_ref().map_or(String::new(), |(ns, name)| format!("{ns}/{name}:"));
        let subject = check.path.clone().unwrap_or_else(|| {
            format!("{}/{}/{}/{}/{}", check.group, check.resource, check.subresource, check.namespace, check.name)
        });
        let reason = format!("{account}{} {subject}{}{}", check.verb, check.field_selector, check.label_selector);
        Decision { allowed: check.verb == "get", reason, error: None }
    }
}

fn eval(text: &str) -> Result<String, String> {
    let env = Env::new().with_variable("authorizer", Type::named("kubernetes.authorization.Authorizer"));
    let program = Program::compile(text, &env).map_err(|error| error.to_string())?;
    let variables =
        Variables::new().with("authorizer", Value::Object(Object::Authorizer(&Names, Check::default().into())));
    let value = program.eval(&variables, &Budget::default()).map_err(|error| error.to_string())?;
    Ok(value.to_json().map_or_else(|| value.to_string(), |json| json.to_string()))
}

fn holds(cases: &[&str]) {
    for text in cases {
        assert_eq!(eval(text).as_deref(), Ok("true"), "{text}");
    }
}

fn fails(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let error = eval(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn lists_and_sets() {
    holds(&[
        "[1, 2, 2].isSorted() && !['b', 'a'].isSorted()",
        "[1, 2, 3].sum() == 6 && [1.5, 2.5].sum() == 4.0",
        "[3, 1, 2].min() == 1 && ['a', 'c', 'b'].max() == 'c'",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(5) == -1",
        "[1, 2, 3, 4].slice(1, 3) == [2, 3] && [[1], [2, 3]].flatten() == [1, 2, 3]",
        "lists.range(3) == [0, 1, 2] && [1, 2].reverse() == [2, 1] && [1, 2, 1].distinct() == [1, 2]",
        "[3, 1, 2].sort() == [1, 2, 3] && [{'n': 2}, {'n': 1}].sortBy(e, e.n).map(e, e.n) == [1, 2]",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && !sets.intersects([1], [2])",
    ]);
    fails(&[
        ("[1].filter(x, x > 1).min()", "min called on empty list"),
        ("[1].slice(0, 2)", "cannot slice(0, 2), list is length 1"),
        ("[1].includes(1)", "undeclared reference to 'includes'"),
    ]);
}

#[test]
fn quantities_and_versions() {
    holds(&[
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('200M') == quantity('0.2G')",
        "isQuantity('1.5k') && !isQuantity('x') && quantity('50k').asInteger() == 50000",
        "quantity('50k').add(quantity('20')) == quantity('50.02k') && quantity('50k').sub(20) == quantity('49980')",
        "!quantity('0.5').isInteger() && quantity('1').compareTo(quantity('2')) == -1 && sign(quantity('-1')) == -1",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-alpha').isLessThan(semver('1.0.0'))",
        "isSemver('v1.2', true) && !isSemver('v1.2') && semver('v01.1', true).major() == 1",
        "semver('1.2.3') == semver('1.2.3+build') && semver('1.2.3').compareTo(semver('1.2.2')) == 1",
    ]);
    fails(&[
        ("quantity('0.5').asInteger()", "cannot convert value to integer"),
        ("semver('v1.0.0')", "Invalid character(s) found in major number"),
        ("semver('1.0')", "No Major.Minor.Patch elements found"),
        ("quantity('x')", "quantities must match the regular expression"),
        ("quantity('1') == 1", "found no matching overload for '_==_' applied to '(kubernetes.Quantity, int)'"),
        ("quantity('1') == dyn(1)", "no such overload"),
    ]);
}

#[test]
fn addresses_and_urls() {
    holds(&[
        "isIP('10.0.0.1') && !isIP('10.0.0.01') && !isIP('::ffff:1.2.3.4') && ip('::1').family() == 6",
        "ip('127.0.0.1').isLoopback() && ip('169.254.1.1').isLinkLocalUnicast() && ip('8.8.8.8').isGlobalUnicast()",
        "ip.isCanonical('::1') && !ip.isCanonical('0::1') && string(ip('10.0.0.1')) == '10.0.0.1'",
        "cidr('192.168.0.0/24').containsIP('192.168.0.5') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "!cidr('10.0.0.0/16').containsCIDR('10.0.0.0/8') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
        "cidr('10.0.0.0/8').prefixLength() == 8 && cidr('10.0.0.0/8').ip() == ip('10.0.0.0') && !isCIDR('10.0.0.0/33')",
        "url('https://user:pw@example.com:80/a b?k=v&k=w').getHost() == 'example.com:80'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('https://[::1]:80/').getPort() == '80'",
        "url('https://example.com/a%20b').getEscapedPath() == '/a%20b' && url('HTTPS://x/').getScheme() == 'https'",
        "url('/p?k=v&k=w').getQuery()['k'] == ['v', 'w'] && isURL('/p') && !isURL('p') && !isURL('../p')",
    ]);
    fails(&[
        ("ip('fe80::1%eth0')", "IP address \"fe80::1%eth0\" with zone value is not allowed"),
        ("cidr('10.0.0.0')", "network address parse error during conversion from string"),
        ("url('p')", "URL parse error during conversion from string: parse \"p\": invalid URI for request"),
    ]);
}

#[test]
fn formats_and_json_patch() {
    holds(&[
        "!format.dns1123Label().validate('my-name').hasValue() && format.dns1123Label().validate('My').hasValue()",
        "format.named('dns1123Label').hasValue() && !format.named('nothing').hasValue()",
        "!format.dns1123LabelPrefix().validate('a-').hasValue() && format.dns1123Label().validate('a-').hasValue()",
        "!format.qualifiedName().validate('example.com/Name').hasValue()",
        "!format.labelValue().validate('').hasValue()",
        "format.uuid().validate('x') == optional.of(['does not match the UUID format'])",
        "!format.date().validate('2021-01-01').hasValue() && format.byte().validate('*').hasValue()",
        "jsonpatch.escapeKey('k8s.io/a~b') == 'k8s.io~1a~0b'",
    ]);
}

#[test]
fn authorizers() {
    holds(&[
        "authorizer.path('/healthz').check('get').allowed() && !authorizer.path('/healthz').check('post').allowed()",
        "authorizer.group('apps').resource('deployments').subresource('scale').namespace('ns').name('n').check('get')\
         .reason() == 'get apps/deployments/scale/ns/n'",
        "authorizer.serviceAccount('ns', 'sa').group('').resource('pods').check('get').reason() \
         == 'ns/sa:get /pods///'",
        "authorizer.group('').resource('pods').fieldSelector('a=b').labelSelector('c').check('get').reason() \
         == 'get /pods///a=bc'",
        "!authorizer.path('/x').check('get').errored() && authorizer.path('/x').check('get').error() == ''",
    ]);
    fails(&[
        ("authorizer.path(' ').check('get')", "path must not be empty"),
        ("authorizer.serviceAccount('ns', 'A_').path('/').check('get')", "Invalid service account name"),
        ("authorizer.check('get')", "found no matching overload for 'check'"),
    ]);
}
