//! Expressions: whatever is read ends, in an error, a value, or at its cost.
#![no_main]

use cel::{Budget, Env, Program, Type, Variables};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let env = Env::new().with_variable("object", Type::Dyn);
    let Ok(program) = Program::compile(text, &env) else { return };
    let object = serde_json::json!({"spec": {"replicas": 3, "names": ["a", "b"]}, "metadata": {"name": "x"}});
    let budget = Budget::default();
    if let Ok(value) = program.eval(&Variables::new().with_json("object", &object), &budget) {
        assert!(budget.cost() <= cel::PER_CALL_LIMIT);
        let _ = value.to_json();
    }
});
