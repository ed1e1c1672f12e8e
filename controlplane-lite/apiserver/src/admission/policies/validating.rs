//! Policies that judge (`policy/validating/{dispatcher,validator}.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{RUNTIME_COST_BUDGET, Value as Val};
use serde_json::{Value, json};

use super::params;
use super::policy::{Binding, Policy, Validation, program};
use super::source::Bound;
use crate::admission::webhooks::request::{Asked, Seen};
use crate::admission::{Refusal, Request, View};
use crate::expressions::{Asker, Exhausted, Facts, Input, matches};
use scheme::field::go_quote;

/// The longest message that an expression may make, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;
/// The longest value of an annotation, in bytes.
const MAX_ANNOTATION: usize = 10 * 1024;
/// The most failures that who audits is told of.
const MAX_FAILURES: usize = 50;

/// What a policy came to.
#[derive(Debug, PartialEq, Eq)]
struct Denial {
    message: String,
    reason: String,
    /// The place of the rule that does not hold.
    rule: usize,
}

impl Denial {
    fn failed(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), reason: String::new(), rule: 0 }
    }
}

/// What becomes of a request.
#[derive(Default)]
struct Verdicts {
    denied: Option<(String, String)>,
    failures: Vec<Value>,
}

impl Verdicts {
    /// The first denial is told.
    fn deny(&mut self, policy: &Policy, binding: Option<&Binding>, denial: &Denial) {
        let bound = binding.map_or(String::new(), |binding| format!(" with binding '{}'", binding.name));
        let name = &policy.name;
        let message = format!("ValidatingAdmissionPolicy '{name}'{bound} denied request: {}", denial.message);
        self.denied.get_or_insert((message, denial.reason.clone()));
    }

    fn failed(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        if !policy.ignores {
            let what = if binding.is_some() { "binding" } else { "policy" };
            self.deny(policy, binding, &Denial::failed(format!("failed to configure {what}: {why}")));
        }
    }

    /// Does what a binding says of a rule that does not hold.
    fn act(&mut self, policy: &Policy, binding: &Binding, denial: &Denial) {
        for action in &binding.actions {
            match action.as_str() {
                "Deny" => self.deny(policy, Some(binding), denial),
                "Warn" => crate::warnings::add(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                    policy.name, binding.name, denial.message
                )),
                _ if self.failures.len() < MAX_FAILURES => self.failures.push(json!({
                    "message": denial.message, "policy": policy.name, "binding": binding.name,
                    "expressionIndex": denial.rule, "validationActions": binding.actions,
                })),
                _ => {}
            }
        }
    }
}

/// Asks all bound policies; the first that denies is told.
pub(super) async fn dispatch(
    bound: Arc<[Bound]>,
    request: &Request<'_>,
    object: Option<&Value>,
    view: &dyn View,
) -> Result<(), Refusal> {
    let asked = Asked::new(request, view);
    let mut verdicts = Verdicts::default();
    for Bound { policy, bindings } in bound.iter() {
        let Some(seen) = policy.constraints.matches(&asked, object).await? else { continue };
        let kind = match params::kind(policy, view) {
            Ok(kind) => kind,
            Err(why) => {
                verdicts.failed(policy, None, &why);
                continue;
            }
        };
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in bindings {
            if let Some(constraints) = &binding.constraints
                && constraints.matches(&asked, object).await?.is_none()
            {
                continue;
            }
            let params = match params::collect(kind.as_deref(), binding, request, view).await {
                Ok(params) => params,
                Err(why) => {
                    verdicts.failed(policy, Some(binding), &why);
                    continue;
                }
            };
            let namespace = super::namespace(&asked).await?;
            for params in &params {
                let about =
                    About { asked: &asked, seen, object, params: params.as_ref(), namespace: namespace.as_ref() };
                about.judge(policy, binding, &mut verdicts, &mut annotations).await;
            }
        }
        for (key, values) in annotations {
            asked.annotate(&format!("{}/{key}", policy.name), &values.join(", "));
        }
    }
    if !verdicts.failures.is_empty() {
        let failures = Value::Array(verdicts.failures).to_string();
        asked.annotate("validation.policy.admission.k8s.io/validation_failure", &failures);
    }
    verdicts.denied.map_or(Ok(()), |(message, reason)| Err(refusal(request, &message, &reason)))
}

/// A request with what a policy is evaluated with.
struct About<'a> {
    asked: &'a Asked<'a>,
    seen: Seen,
    object: Option<&'a Value>,
    params: Option<&'a Value>,
    namespace: Option<&'a Value>,
}

impl About<'_> {
    /// Evaluates a policy.
    async fn judge(
        &self,
        policy: &Policy,
        binding: &Binding,
        verdicts: &mut Verdicts,
        annotations: &mut BTreeMap<String, Vec<String>>,
    ) {
        let asked = self.asked;
        let forms = async {
            let object = asked.form_of(self.seen, self.object).await?;
            Ok::<_, String>((object, asked.form_of(self.seen, asked.request.old).await?))
        };
        let (object, old) = match forms.await {
            Ok(forms) => forms,
            Err(why) => return verdicts.failed(policy, Some(binding), &why),
        };
        let told = asked.told(self.seen);
        let asker = Asker { user: asked.request.user, view: asked.view() };
        let facts = Facts {
            object: object.as_deref(),
            old: old.as_deref(),
            request: &told,
            params: self.params,
            namespace: self.namespace,
            authorizer: &asker,
        };
        let input = Input::new(facts, &policy.variables);
        match matches(&policy.conditions, &input) {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => {
                if !policy.ignores {
                    verdicts.act(policy, binding, &Denial::failed(why));
                }
                return;
            }
        }
        match validate(policy, &input) {
            Ok(denials) => denials.iter().for_each(|denial| verdicts.act(policy, binding, denial)),
            Err(exhausted) if !policy.ignores => verdicts.act(policy, binding, &Denial::failed(exhausted)),
            Err(_) => {}
        }
        annotate(policy, binding, &input, verdicts, annotations);
    }
}

/// The rules of a policy that do not hold.
fn validate(policy: &Policy, input: &Input<'_>) -> Result<Vec<Denial>, Exhausted> {
    let mut left = RUNTIME_COST_BUDGET;
    let mut outcomes = Vec::with_capacity(policy.validations.len());
    for Validation { rule, .. } in &policy.validations {
        outcomes.push(match program(&rule.program) {
            Ok(program) => input.eval(&rule.text, program, &mut left)?,
            Err(why) => Err(why),
        });
    }
    let mut denials = Vec::new();
    for (place, (validation, outcome)) in policy.validations.iter().zip(outcomes).enumerate() {
        match outcome {
            Ok(Val::Bool(true)) => {}
            Err(_) if policy.ignores => {}
            Err(why) => denials.push(Denial { rule: place, ..Denial::failed(why) }),
            Ok(_) => {
                let message = match message(validation, input, &mut left) {
                    Ok(message) => message,
                    Err(_) if policy.ignores => continue,
                    Err(exhausted) => format!("failed messageExpression: {exhausted}"),
                };
                denials.push(Denial { message, reason: validation.reason.clone(), rule: place });
            }
        }
    }
    Ok(denials)
}

/// What is said of a rule that does not hold.
fn message(validation: &Validation, input: &Input<'_>, left: &mut u64) -> Result<String, Exhausted> {
    if let Some(says) = &validation.says
        && let Ok(program) = &says.program
        && let Ok(Val::String(text)) = input.eval(&says.text, program, left)?
    {
        let text = text.trim();
        if !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n') {
            return Ok(text.to_owned());
        }
    }
    if !validation.message.is_empty() {
        return Ok(validation.message.clone());
    }
    Ok(format!("failed expression: {}", validation.rule.text.trim()))
}

/// Evaluates what a policy tells who audits.
fn annotate(
    policy: &Policy,
    binding: &Binding,
    input: &Input<'_>,
    verdicts: &mut Verdicts,
    annotations: &mut BTreeMap<String, Vec<String>>,
) {
    let mut left = RUNTIME_COST_BUDGET;
    for annotation in &policy.annotations {
        let value = match program(&annotation.rule.program) {
            Ok(program) => input.eval(&annotation.rule.text, program, &mut left),
            Err(why) => Ok(Err(why)),
        };
        match value {
            Ok(Ok(Val::String(text))) if !text.trim().is_empty() => {
                let text = text.trim();
                let end = (0..=text.len().min(MAX_ANNOTATION)).rev().find(|end| text.is_char_boundary(*end));
                let value = text[..end.unwrap_or(0)].to_owned();
                let values = annotations.entry(annotation.key.clone()).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            Ok(Ok(_)) => {}
            _ if policy.ignores => {}
            Ok(Err(why)) => verdicts.deny(policy, Some(binding), &Denial::failed(why)),
            Err(exhausted) => return verdicts.act(policy, binding, &Denial::failed(exhausted)),
        }
    }
}

/// The answer to a request that is denied.
pub(super) fn refusal(request: &Request<'_>, message: &str, reason: &str) -> Refusal {
    let reason = if reason.is_empty() { "Invalid" } else { reason };
    let code = match reason {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    let (group, plural) = (&*request.served.group, &*request.served.plural);
    let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    let told = match request.name {
        "" => format!("{resource} is forbidden: {message}"),
        name => format!("{resource} {} is forbidden: {message}", go_quote(name)),
    };
    let mut details = json!({"kind": plural, "causes": [{"message": message}]});
    for (field, text) in [("name", request.name), ("group", group)] {
        if !text.is_empty() {
            details[field] = text.into();
        }
    }
    Refusal::Denied(Box::new(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": told, "reason": reason, "details": details, "code": code,
    })))
}
