//! One object as quotas see it: what it uses, and which scopes it is in.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::amounts::Amounts;
use crate::quota::Selector;

/// What an object uses and where it counts. Small enough to be kept in place of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Used as long as the object is there.
    pub(crate) counts: Amounts,
    /// Used as long as it also lives: what pods that have ended do not use any more.
    pub(crate) lives: Amounts,
    /// When it ends to live without anybody saying so: a pod that should be gone by then.
    pub(crate) until: Option<Timestamp>,
    pub(crate) scopes: Scopes,
    /// Requests and limits that containers do not set, with the containers' names.
    pub(crate) unset: BTreeMap<&'static str, BTreeSet<String>>,
}

/// What decides about scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scopes {
    /// The kind knows none: a quota with scopes does not count it.
    None,
    /// Of a pod.
    Pod {
        /// It has a deadline.
        terminating: bool,
        /// It asks for no CPU and memory.
        best_effort: bool,
        /// Its terms of affinity look into other namespaces.
        across_namespaces: bool,
        /// Empty without one.
        priority_class: String,
    },
    /// The classes of attributes that a claim has, gets or had.
    Claim(BTreeSet<String>),
}

impl Measured {
    pub(crate) fn counting(counts: Amounts) -> Self {
        Self { counts, lives: Amounts::new(), until: None, scopes: Scopes::None, unset: BTreeMap::new() }
    }

    /// What it uses at a time.
    #[must_use]
    pub fn usage(&self, now: Timestamp) -> Amounts {
        let mut usage = self.counts.clone();
        if self.until.is_none_or(|until| now <= until) {
            usage.extend(self.lives.iter().map(|(name, quantity)| (name.clone(), *quantity)));
        }
        usage
    }

    /// Whether it is in a scope. A scope that is not for its kind has none of its objects.
    pub(crate) fn is_in(&self, selector: &Selector) -> bool {
        match &self.scopes {
            Scopes::None => false,
            Scopes::Pod { terminating, best_effort, across_namespaces, priority_class } => match &*selector.scope {
                "Terminating" => *terminating,
                "NotTerminating" => !terminating,
                "BestEffort" => *best_effort,
                "NotBestEffort" => !best_effort,
                "CrossNamespacePodAffinity" => *across_namespaces,
                "PriorityClass" => {
                    let class = Some(priority_class.as_str()).filter(|class| !class.is_empty());
                    selector.allows(class)
                }
                _ => false,
            },
            Scopes::Claim(classes) if selector.scope == "VolumeAttributesClass" => {
                classes.iter().any(|class| selector.allows(Some(class))) || classes.is_empty() && selector.allows(None)
            }
            Scopes::Claim(_) => false,
        }
    }

    /// Which of the resources that a quota restricts the containers do not set, in words; nothing if all is there.
    pub(crate) fn missing(&self, restricted: &[&str]) -> Option<String> {
        let unset = self.unset.iter().filter(|(name, _)| restricted.contains(name));
        let told = unset.map(|(name, containers)| {
            let containers: Vec<&str> = containers.iter().map(String::as_str).collect();
            format!("{name} for: {}", containers.join(","))
        });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| format!("must specify {}", told.join("; ")))
    }
}
