//! Does one set of rules contain another? The algebra behind the check that
//! nobody grants what they do not have.

use super::PolicyRule;

/// True when `owned` allows everything `wanted` does.
pub fn covers(owned: &[PolicyRule], wanted: &[PolicyRule]) -> bool {
    uncovered(owned, wanted).is_empty()
}

/// The atoms of `wanted` that `owned` does not allow: rules of one verb and one
/// resource, name or path each.
pub fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let lacking = |atom: &PolicyRule| !owned.iter().any(|rule| rule_covers(rule, atom));
    wanted.iter().flat_map(atoms).filter(lacking).collect()
}

/// A rule taken apart.
fn atoms(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut atoms = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let atom = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..PolicyRule::default()
                };
                if rule.resource_names.is_empty() {
                    atoms.push(atom);
                    continue;
                }
                let named = |name: &String| PolicyRule { resource_names: vec![name.clone()], ..atom.clone() };
                atoms.extend(rule.resource_names.iter().map(named));
            }
        }
        atoms.extend(rule.non_resource_urls.iter().map(|path| PolicyRule {
            verbs: vec![verb.clone()],
            non_resource_urls: vec![path.clone()],
            ..PolicyRule::default()
        }));
    }
    atoms
}

fn rule_covers(owned: &PolicyRule, atom: &PolicyRule) -> bool {
    let all = |have: &[String], want: &[String]| {
        have.iter().any(|have| have == "*") || want.iter().all(|want| have.contains(want))
    };
    let names = owned.resource_names.is_empty()
        || (!atom.resource_names.is_empty() && atom.resource_names.iter().all(|n| owned.resource_names.contains(n)));
    all(&owned.verbs, &atom.verbs)
        && all(&owned.api_groups, &atom.api_groups)
        && atom.resources.iter().all(|resource| resource_covered(&owned.resources, resource))
        && atom.non_resource_urls.iter().all(|path| path_covered(&owned.non_resource_urls, path))
        && names
}

fn resource_covered(owned: &[String], wanted: &str) -> bool {
    let sub = wanted.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    owned.iter().any(|have| have == "*" || have == wanted || sub.as_ref() == Some(have))
}

fn path_covered(owned: &[String], wanted: &str) -> bool {
    owned.iter().any(|have| match have.strip_suffix('*') {
        Some(prefix) => wanted.starts_with(prefix),
        None => have == wanted,
    })
}
