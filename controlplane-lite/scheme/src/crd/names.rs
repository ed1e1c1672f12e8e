//! Which names a CustomResourceDefinition gets, in a group where others have theirs
//! (k8s.io/apiextensions-apiserver/pkg/controller/status/naming_controller.go).

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{condition, condition_is_true};
use crate::access::{at, copy_field, ensure_map, list_at, str_at};
use crate::field::go_quote;

/// All names that a definition asks for are its own.
pub const NAMES_ACCEPTED: &str = "NamesAccepted";
/// Its objects are served.
pub const ESTABLISHED: &str = "Established";
/// It is being deleted.
pub const TERMINATING: &str = "Terminating";

/// A condition without its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Type.
    pub ty: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Condition {
    /// A condition of these words.
    #[must_use]
    pub fn new(ty: &str, status: &str, reason: &str, message: &str) -> Self {
        Self { ty: ty.into(), status: status.into(), reason: reason.into(), message: message.into() }
    }

    /// What a definition is told once its names are its own and its objects are served
    /// (`pkg/controller/establish/establishing_controller.go`).
    #[must_use]
    pub fn established() -> Self {
        Self::new(ESTABLISHED, "True", "InitialNamesAccepted", "the initial names have been accepted")
    }

    /// What a definition is told when it is deleted (`pkg/registry/customresourcedefinition/etcd.go`).
    #[must_use]
    pub fn terminating() -> Self {
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        Self::new(TERMINATING, "True", "InstanceDeletionPending", message)
    }

    /// The condition of this type that a definition has.
    #[must_use]
    pub fn of(crd: &Value, ty: &str) -> Option<Self> {
        let found = condition(crd, ty)?;
        let text = |key: &str| str_at(found, &[key]);
        Some(Self::new(ty, text("status"), text("reason"), text("message")))
    }

    /// Writes it into a definition. The time is `now` (RFC 3339), or as it was where the status does not change.
    pub fn set(&self, crd: &mut Value, now: &str) {
        let mut since = json!(now);
        if let Some(old) = condition(crd, &self.ty)
            && str_at(old, &["status"]) == self.status
            && !str_at(old, &["lastTransitionTime"]).is_empty()
        {
            since = old["lastTransitionTime"].clone();
        }
        let mut fresh = json!({"type": self.ty, "status": self.status, "lastTransitionTime": since,
            "reason": self.reason, "message": self.message});
        let conditions = ensure_map(crd, &["status"]).entry("conditions").or_insert(Value::Null);
        if !conditions.is_array() {
            *conditions = json!([]);
        }
        let Some(list) = conditions.as_array_mut() else { return };
        match list.iter_mut().find(|old| str_at(old, &["type"]) == self.ty) {
            Some(old) => {
                copy_field(&mut fresh, old, "observedGeneration");
                *old = fresh;
            }
            None => list.push(fresh),
        }
    }
}

/// The names that the definitions of a group have.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl Taken {
    /// What these definitions have been given, of those of a group. Whoever asks may be among them.
    #[must_use]
    pub fn of<'a>(group: &str, crds: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut taken = Self::default();
        for crd in crds.into_iter().filter(|crd| str_at(crd, &["spec", "group"]) == group) {
            let names = at(crd, &["status", "acceptedNames"]);
            let text = |key: &str| str_at(names, &[key]).to_owned();
            taken.resources.extend([text("plural"), text("singular")]);
            taken.resources.extend(list_at(names, &["shortNames"]).iter().filter_map(Value::as_str).map(str::to_owned));
            taken.kinds.extend([text("kind"), text("listKind")]);
        }
        taken
    }
}

/// What becomes of the names that a definition asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// `status.acceptedNames`.
    pub accepted: Value,
    /// Whether that is all.
    pub names_accepted: Condition,
    /// What was said of being served, or that it begins: never that it has begun.
    pub established: Condition,
}

impl Decision {
    /// Writes it into a definition. Returns whether there was anything to write.
    pub fn apply(&self, crd: &mut Value, now: &str) -> bool {
        let before = Condition::of(crd, NAMES_ACCEPTED);
        if super::same(at(crd, &["status", "acceptedNames"]), &self.accepted)
            && before.as_ref() == Some(&self.names_accepted)
        {
            return false;
        }
        ensure_map(crd, &["status"]).insert("acceptedNames".to_owned(), self.accepted.clone());
        self.names_accepted.set(crd, now);
        self.established.set(crd, now);
        true
    }
}

/// Whether nothing is to be decided: a definition has what it asks for.
#[must_use]
pub fn settled(crd: &Value) -> bool {
    super::same(at(crd, &["spec", "names"]), at(crd, &["status", "acceptedNames"]))
}

/// Gives a definition what is free of the names that it asks for; of what is not it keeps what it had. The last problem
/// is the one that it is told.
#[must_use]
pub fn decide(crd: &Value, taken: &Taken) -> Decision {
    let (asked, had) = (at(crd, &["spec", "names"]), at(crd, &["status", "acceptedNames"]));
    let mut accepted = had.as_object().cloned().unwrap_or_default();
    let mut problem = None;
    for (field, reason) in [("plural", "PluralConflict"), ("singular", "SingularConflict")] {
        one(asked, field, &taken.resources, &mut accepted).unwrap_or_else(|why| problem = Some((reason, why)));
    }
    short_names(asked, &taken.resources, &mut accepted)
        .unwrap_or_else(|why| problem = Some(("ShortNamesConflict", why)));
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        one(asked, field, &taken.kinds, &mut accepted).unwrap_or_else(|why| problem = Some((reason, why)));
    }
    take(&mut accepted, asked, "categories");
    let names_accepted = match problem {
        Some((reason, why)) => Condition::new(NAMES_ACCEPTED, "False", reason, &why),
        None => Condition::new(NAMES_ACCEPTED, "True", "NoConflicts", "no conflicts found"),
    };
    let established = match Condition::of(crd, ESTABLISHED) {
        _ if names_accepted.status == "True" && !condition_is_true(crd, ESTABLISHED) => {
            Condition::new(ESTABLISHED, "False", "Installing", "the initial names have been accepted")
        }
        Some(old) => old,
        None => Condition::new(ESTABLISHED, "False", "NotAccepted", "not all names are accepted"),
    };
    Decision { accepted: accepted.into(), names_accepted, established }
}

/// Takes a field over, or its absence.
fn take(accepted: &mut Map<String, Value>, asked: &Value, field: &str) {
    match &asked[field] {
        Value::Null => accepted.remove(field),
        value => accepted.insert(field.to_owned(), value.clone()),
    };
}

fn free(name: &str, had: &str, taken: &HashSet<String>) -> Result<(), String> {
    if name == had || !taken.contains(name) { Ok(()) } else { Err(format!("{} is already in use", go_quote(name))) }
}

fn one(asked: &Value, field: &str, taken: &HashSet<String>, accepted: &mut Map<String, Value>) -> Result<(), String> {
    let had = accepted.get(field).and_then(Value::as_str).unwrap_or("");
    free(str_at(asked, &[field]), had, taken)?;
    take(accepted, asked, field);
    Ok(())
}

/// All of them, or as it was.
fn short_names(asked: &Value, taken: &HashSet<String>, accepted: &mut Map<String, Value>) -> Result<(), String> {
    let had: HashSet<&str> =
        accepted.get("shortNames").into_iter().flat_map(|list| list_at(list, &[])).filter_map(Value::as_str).collect();
    let mut problems: Vec<String> = Vec::new();
    let mut told = HashSet::new();
    for name in list_at(asked, &["shortNames"]).iter().filter_map(Value::as_str).filter(|name| !had.contains(name)) {
        if let Err(problem) = free(name, "", taken)
            && told.insert(name)
        {
            problems.push(problem);
        }
    }
    match problems.as_slice() {
        [] => take(accepted, asked, "shortNames"),
        [one] => return Err(one.clone()),
        many => return Err(format!("[{}]", many.join(", "))),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
