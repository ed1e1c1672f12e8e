//! Conditions of webhooks and policies: all must hold (`plugin/webhook/matchconditions/matcher.go`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cel::{MATCH_CONDITIONS_BUDGET, Value as Val};
use scheme::expressions::Purpose;

use super::authorizer::Asker;
use super::compile::{Compiled, Scope, compile};
use super::input::{Facts, Input};
use crate::admission::View;
use crate::admission::webhooks::Condition;

/// The most texts of conditions of webhooks whose programs are kept.
const KEPT: usize = 1000;

/// A condition or rule, compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    pub text: String,
    pub program: Compiled,
}

/// Whether all conditions hold. One that does not decides, whatever became of the others.
///
/// # Errors
/// What became of those that could not be evaluated.
pub(crate) fn matches(conditions: &[Rule], input: &Input<'_>) -> Result<bool, String> {
    let mut left = MATCH_CONDITIONS_BUDGET;
    let mut problems = Vec::new();
    for condition in conditions {
        let value = match &condition.program {
            Ok(program) => input.eval(&condition.text, program, &mut left).map_err(|why| why.to_string())?,
            Err(why) => Err(format!("compilation error: {why}")),
        };
        match value {
            Ok(Val::Bool(true)) => {}
            Ok(_) => return Ok(false),
            Err(why) => problems.push(why),
        }
    }
    match problems.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

/// The program of a webhook's condition, made once.
fn program(text: &str) -> Arc<Compiled> {
    static PROGRAMS: OnceLock<Mutex<HashMap<String, Arc<Compiled>>>> = OnceLock::new();
    let mut programs = PROGRAMS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = programs.get(text) {
        return known.clone();
    }
    if programs.len() >= KEPT {
        programs.clear();
    }
    let scope = Scope { params: false, mutation: false, variables: &[] };
    let made = Arc::new(compile(text, Purpose::MatchCondition, &scope));
    programs.insert(text.to_owned(), made.clone());
    made
}

/// Judges a condition of a webhook.
///
/// # Errors
/// Why it could not be evaluated.
pub(crate) fn webhook_condition(text: &str, about: &Condition<'_>, view: &dyn View) -> Result<bool, String> {
    let program = program(text);
    let program = program.as_ref().as_ref().map_err(|why| format!("compilation error: {why}"))?;
    let asker = Asker { user: about.user, view };
    let facts = Facts {
        object: about.object,
        old: about.old,
        request: about.request,
        params: None,
        namespace: None,
        authorizer: &asker,
    };
    let mut left = MATCH_CONDITIONS_BUDGET;
    let value = Input::new(facts, &[]).eval(text, program, &mut left).map_err(|why| why.to_string())??;
    Ok(value.as_bool() == Some(true))
}
