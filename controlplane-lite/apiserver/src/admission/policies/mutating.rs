//! Policies that change the object: one after the other, and once more those that asked for it when others changed the
//! object after them (`policy/mutating/{dispatcher,reinvocationcontext}.go`).

use std::collections::HashSet;
use std::sync::Arc;

use cel::RUNTIME_COST_BUDGET;
use serde_json::{Value, json};

use super::policy::{Binding, Mutation, Policy, program};
use super::source::Bound;
use super::{params, patch};
use crate::admission::webhooks::request::{Asked, Seen, restore_owners};
use crate::admission::{Mutated, Refusal, Request, View};
use crate::expressions::{Asker, Facts, Input, matches};
use scheme::decode::{self, FieldValidation};

const PLUGIN: &str = "MutatingAdmissionPolicy";

/// What is remembered from the first round to the second.
#[derive(Debug, Default)]
struct Rounds {
    /// What the policies left behind.
    last: Option<Value>,
    /// Those that were asked, and are to be asked again should the object change.
    invoked: HashSet<String>,
    /// Those that are to be asked again.
    again: HashSet<String>,
}

impl Rounds {
    fn require(&mut self) {
        self.again.extend(self.invoked.drain());
    }
}

/// What policies did, and what went wrong with those that do not ignore that.
#[derive(Default)]
struct Outcome {
    changed: bool,
    problems: Vec<String>,
}

impl Outcome {
    fn failed(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        if !policy.ignores {
            let name = &policy.name;
            self.problems.push(match binding {
                Some(binding) => format!("policy '{name}' with binding '{}' denied request: {why}", binding.name),
                None => format!("policy \"{name}\" denied request: {why}"),
            });
        }
    }
}

/// Lets all bound policies change the object, in order.
pub(super) async fn dispatch(
    bound: Arc<[Bound]>,
    request: &Request<'_>,
    object: Option<&mut Value>,
    view: &dyn View,
) -> Result<Mutated, Refusal> {
    // Without an object there is nothing to change.
    let Some(object) = object else { return Ok(Mutated::No) };
    let asked = Asked::new(request, view);
    if request.again {
        request.memory.of(PLUGIN, |rounds: &mut Rounds| {
            if rounds.last.as_ref() != Some(&*object) {
                rounds.require();
            }
        });
    }
    let mut outcome = Outcome::default();
    for Bound { policy, bindings } in bound.iter() {
        let Some(seen) = policy.constraints.matches(&asked, Some(object)).await? else { continue };
        let kind = match params::kind(policy, view) {
            Ok(kind) => kind,
            Err(why) => {
                outcome.failed(policy, None, &why);
                continue;
            }
        };
        for binding in bindings {
            if let Some(constraints) = &binding.constraints
                && constraints.matches(&asked, Some(object)).await?.is_none()
            {
                continue;
            }
            let params = match params::collect(kind.as_deref(), binding, request, view).await {
                Ok(params) => params,
                Err(why) => {
                    outcome.failed(policy, Some(binding), &why);
                    continue;
                }
            };
            let namespace = super::namespace(&asked).await?;
            for params in &params {
                let about = About { asked: &asked, seen, params: params.as_ref(), namespace: namespace.as_ref() };
                about.invoke(policy, binding, object, &mut outcome).await;
            }
        }
    }
    request.memory.of(PLUGIN, |rounds: &mut Rounds| {
        // Nobody else has to know what it was.
        rounds.last = if rounds.invoked.is_empty() { None } else { Some(object.clone()) };
    });
    if !outcome.problems.is_empty() {
        return Err(refusal(request, &outcome.problems));
    }
    Ok(if outcome.changed { Mutated::Raw } else { Mutated::No })
}

/// A request with what a policy is evaluated with.
struct About<'a> {
    asked: &'a Asked<'a>,
    seen: Seen,
    params: Option<&'a Value>,
    namespace: Option<&'a Value>,
}

impl About<'_> {
    /// Lets a policy change the object, if its conditions hold and it is its turn.
    async fn invoke(&self, policy: &Policy, binding: &Binding, object: &mut Value, outcome: &mut Outcome) {
        let request = self.asked.request;
        match self.with_input(object, policy, |input| matches(&policy.conditions, input)).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => return outcome.failed(policy, Some(binding), &why),
        }
        let named = self.params.map(|params| {
            let text = |field: &str| params["metadata"][field].as_str().unwrap_or_default();
            format!("{}/{}", text("namespace"), text("name"))
        });
        let id = format!("{}\n{}\n{}", policy.name, binding.name, named.unwrap_or_default());
        if request.again && !request.memory.of(PLUGIN, |rounds: &mut Rounds| rounds.again.contains(&id)) {
            return;
        }
        let before = object.clone();
        for mutation in &policy.mutations {
            match self.mutate(policy, mutation, object).await {
                Ok(new) => *object = new,
                Err(why) => outcome.failed(policy, Some(binding), &why),
            }
        }
        if *object != before {
            outcome.changed = true;
            request.memory.of(PLUGIN, Rounds::require);
        }
        if policy.reinvoke {
            request.memory.of(PLUGIN, |rounds: &mut Rounds| rounds.invoked.insert(id));
        }
    }

    /// Does something with the variables of expressions about the object as it is now.
    async fn with_input<T>(
        &self,
        object: &Value,
        policy: &Policy,
        work: impl FnOnce(&Input<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let asked = self.asked;
        let form = asked.form(self.seen, object).await?;
        let old = asked.form_of(self.seen, asked.request.old).await?;
        let told = asked.told(self.seen);
        let asker = Asker { user: asked.request.user, view: asked.view() };
        let facts = Facts {
            object: Some(&form),
            old: old.as_deref(),
            request: &told,
            params: self.params,
            namespace: self.namespace,
            authorizer: &asker,
        };
        work(&Input::new(facts, &policy.variables))
    }

    /// The object after a mutation.
    async fn mutate(&self, policy: &Policy, mutation: &Mutation, object: &Value) -> Result<Value, String> {
        let asked = self.asked;
        let kind = if asked.carries_object() { asked.kind(self.seen) } else { asked.request.body };
        let form = asked.form(self.seen, object).await?;
        let work = |input: &Input<'_>| {
            let program = program(&mutation.rule.program)?;
            let mut left = RUNTIME_COST_BUDGET;
            let value = input.eval(&mutation.rule.text, program, &mut left).map_err(|why| why.to_string())??;
            if mutation.operations { patch::operate(&form, &value) } else { patch::apply(&form, &value, kind) }
        };
        let changed = self.with_input(object, policy, work).await?;
        if changed == *form {
            return Ok(object.clone());
        }
        let decoded = decode::decode_value(kind, changed, Vec::new(), true, FieldValidation::Ignore);
        let mut new = decoded.map_err(|why| why.to_string())?.object;
        kind.default(&mut new);
        let mut new = match &kind.conversion {
            // The rules of a write know a custom resource in the version of the request.
            Some(_) if asked.carries_object() && kind.custom => asked.form(0, &new).await?.into_owned(),
            Some(conversion) if asked.carries_object() => (*conversion.to_storage)(new),
            _ => new,
        };
        restore_owners(object, &mut new);
        Ok(new)
    }
}

/// The answer to a request that a policy could not change; the first of what went wrong is its message.
fn refusal(request: &Request<'_>, problems: &[String]) -> Refusal {
    let causes: Vec<Value> = problems.iter().map(|message| json!({"message": message})).collect();
    let mut details = json!({"kind": request.served.plural, "causes": causes});
    for (field, text) in [("name", request.name), ("group", &*request.served.group)] {
        if !text.is_empty() {
            details[field] = text.into();
        }
    }
    Refusal::Denied(Box::new(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": problems[0], "reason": "Invalid", "details": details, "code": 403,
    })))
}
