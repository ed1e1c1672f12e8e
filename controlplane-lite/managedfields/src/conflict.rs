//! Fields of others that a configuration would change (`managedfields/internal/conflict.go`).

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use scheme::field::go_quote;

use crate::managed::{Manager, Operation};
use crate::path::{PathElement, PrintedPath};
use crate::set::Set;

/// Every field in conflict, with the manager that owns it; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicts(Vec<Conflict>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Conflict {
    manager: Manager,
    path: Vec<PathElement>,
}

/// One cause of a 409, as `details.causes` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Who owns the field.
    pub message: String,
    /// The field.
    pub field: String,
}

impl Conflicts {
    /// Those of each manager.
    pub(crate) fn of(sets: &BTreeMap<Manager, Set>) -> Self {
        let mut all = Vec::new();
        for (manager, set) in sets {
            set.paths(&mut |path| all.push(Conflict { manager: manager.clone(), path: path.to_vec() }));
        }
        Self(all)
    }

    /// Those outside of `allowed`; none if all are in it.
    pub(crate) fn outside(self, allowed: &Set) -> Option<Self> {
        let left: Vec<Conflict> = self.0.into_iter().filter(|conflict| !allowed.has(&conflict.path)).collect();
        (!left.is_empty()).then_some(Self(left))
    }

    /// The causes of the answer.
    pub fn causes(&self) -> Vec<Cause> {
        let cause = |conflict: &Conflict| Cause {
            message: format!("conflict with {}", named(&conflict.manager)),
            field: PrintedPath(&conflict.path).to_string(),
        };
        self.0.iter().map(cause).collect()
    }
}

impl Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            let path = PrintedPath(&only.path);
            return write!(f, "Apply failed with 1 conflict: conflict with {}: {path}", named(&only.manager));
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let mut last = None;
        for conflict in &self.0 {
            if last != Some(&conflict.manager) {
                let first = last.replace(&conflict.manager).is_none();
                write!(f, "{}conflicts with {}:", if first { "" } else { "\n" }, named(&conflict.manager))?;
            }
            write!(f, "\n- {}", PrintedPath(&conflict.path))?;
        }
        Ok(())
    }
}

fn named(manager: &Manager) -> String {
    let mut text = go_quote(&manager.name);
    if !manager.subresource.is_empty() {
        text = format!("{text} with subresource {}", go_quote(&manager.subresource));
    }
    match manager.operation {
        Operation::Update => format!("{text} using {}", manager.version),
        Operation::Apply => text,
    }
}
