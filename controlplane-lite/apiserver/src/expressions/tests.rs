//! What is said of expressions that are wrong.
#![allow(clippy::unwrap_used)]

use scheme::expressions::Purpose;

use super::{Scope, Variable, compile};

#[test]
fn what_is_wrong_is_said_in_upstreams_words() {
    let variables = [Variable::new("n", "1", &Scope { params: false, mutation: false, variables: &[] })];
    let scope = Scope { params: false, mutation: false, variables: &variables };
    let with_params = Scope { params: true, ..scope };
    let mutating = Scope { mutation: true, ..scope };
    let fine = [
        ("object.spec.replicas > 1", Purpose::Validation, scope),
        ("params.max > 1 && request.operation == 'CREATE'", Purpose::Validation, with_params),
        ("authorizer.requestResource.check('get').allowed()", Purpose::MatchCondition, scope),
        ("variables.n + 1 > 0 && namespaceObject.metadata.name == 'a'", Purpose::Validation, scope),
        ("'said ' + request.userInfo.username", Purpose::Message, scope),
        ("null", Purpose::AuditAnnotation, scope),
        ("Object{spec: Object.spec{replicas: 1}}", Purpose::ApplyConfiguration, mutating),
        ("[JSONPatch{op: 'add', path: '/a', value: 1}]", Purpose::JsonPatch, mutating),
    ];
    for (text, purpose, scope) in fine {
        assert!(compile(text, purpose, &scope).is_ok(), "{text}: {:?}", compile(text, purpose, &scope));
    }
    let wrong = [
        ("1", Purpose::Validation, scope, "must evaluate to bool but got int"),
        ("1", Purpose::AuditAnnotation, scope, "must evaluate to one of [string null_type] but got int"),
        ("params.x", Purpose::Validation, scope, "undeclared reference to 'params' (in container '')"),
        ("variables.m", Purpose::Variable, scope, "undefined field 'm'"),
        ("request.uid == ''", Purpose::Validation, scope, "undefined field 'uid'"),
        ("string(authorizer.path('/').check('get').allowed())", Purpose::Message, scope, "undeclared reference"),
        ("object.a +", Purpose::Validation, scope, "compilation failed: ERROR: <input>:1:11: Syntax error: "),
        ("[JSONPatch{verb: 'x'}]", Purpose::JsonPatch, mutating, "undefined field 'verb'"),
    ];
    for (text, purpose, scope, expected) in wrong {
        let why = compile(text, purpose, &scope).unwrap_err();
        assert!(why.contains(expected), "{text}: {why}");
    }
}
