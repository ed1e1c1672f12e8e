//! Fields of others that a configuration would change (`managedfields/internal/conflict.go`).

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::ops::ControlFlow;

use scheme::field::go_quote;

use crate::managed::{Manager, Operation};
use crate::path::PrintedPath;
use crate::set::Set;

/// Bytes that are told of conflicts, in the message and in the causes: a path can be as long as the object.
const LONGEST: usize = 64 << 10;

/// The fields in conflict, by the manager that owns them; never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicts(BTreeMap<Manager, Set>);

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
    pub(crate) fn of(sets: BTreeMap<Manager, Set>) -> Self {
        Self(sets)
    }

    /// Those outside of `allowed`; none if all are in it.
    pub(crate) fn outside(self, allowed: &Set) -> Option<Self> {
        let left = self.0.into_iter().map(|(manager, set)| (manager, set.difference(allowed)));
        let left: BTreeMap<Manager, Set> = left.filter(|(_, set)| !set.is_empty()).collect();
        (!left.is_empty()).then_some(Self(left))
    }

    /// The causes of the answer, as many as there is room for.
    pub fn causes(&self) -> Vec<Cause> {
        let (mut causes, mut room) = (Vec::new(), LONGEST);
        for (manager, set) in &self.0 {
            let message = format!("conflict with {}", named(manager));
            let told = set.paths(&mut |path| {
                let field = PrintedPath(path).to_string();
                room = room.saturating_sub(field.len() + message.len());
                if room == 0 {
                    return ControlFlow::Break(());
                }
                causes.push(Cause { message: message.clone(), field });
                ControlFlow::Continue(())
            });
            if told.is_break() {
                break;
            }
        }
        causes
    }

    /// The fields of one manager, a line each, as long as there is room.
    fn lines(set: &Set, room: &mut usize) -> String {
        let (mut text, mut told) = (String::new(), 0);
        let _ = set.paths(&mut |path| {
            let line = format!("\n- {}", PrintedPath(path));
            *room = room.saturating_sub(line.len());
            if *room == 0 {
                return ControlFlow::Break(());
            }
            text.push_str(&line);
            told += 1;
            ControlFlow::Continue(())
        });
        let left = set.len() - told;
        if left > 0 {
            let _ = write!(text, "\n- ({left} more)");
        }
        text
    }
}

impl Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: usize = self.0.values().map(Set::len).sum();
        let mut room = LONGEST;
        if let (1, Some((manager, set))) = (count, self.0.first_key_value()) {
            let line = Self::lines(set, &mut room);
            let path = line.trim_start_matches("\n- ");
            return write!(f, "Apply failed with 1 conflict: conflict with {}: {path}", named(manager));
        }
        write!(f, "Apply failed with {count} conflicts: ")?;
        for (at, (manager, set)) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "\n" })?;
            write!(f, "conflicts with {}:{}", named(manager), Self::lines(set, &mut room))?;
            if room == 0 {
                break;
            }
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
