//! Does one set of rules contain another? The algebra behind the check that
//! nobody grants what they do not have.
//!
//! A rule is a product of verbs, groups, resources and names, and a short role can name a product of millions. So the
//! product is never written out: values of one field that the same owned rules cover are one class, and the search
//! goes over classes with a bounded number of steps. What is not decided within them counts as not covered.

use std::collections::{BTreeMap, HashMap};

use super::PolicyRule;

/// Steps that one check may take, each over the sets of 64 owned rules; far more than the largest honest role needs.
const MAX_STEPS: usize = 1 << 23;
/// Missing rules that are named; a refusal needs no more.
const MAX_MISSING: usize = 256;
/// Bytes of all that is named beyond which no more is.
const MAX_MISSING_BYTES: usize = 64 * 1024;

/// True when `owned` allows everything `wanted` does.
pub fn covers(owned: &[PolicyRule], wanted: &[PolicyRule]) -> bool {
    uncovered(owned, wanted).is_empty()
}

/// What of `wanted` the `owned` rules do not allow: rules of one resource and name, or one path, with all the verbs
/// that are missing for it. Names a bounded number of them.
pub fn uncovered<'a>(owned: impl IntoIterator<Item = &'a PolicyRule>, wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let index = Index::new(owned);
    let mut search = Search { steps: Steps(MAX_STEPS), missing: BTreeMap::new(), bytes: 0 };
    for rule in wanted {
        search.resources(&index, rule);
        search.paths(&index, rule);
    }
    search.missing.into_iter().map(|(target, verbs)| target.rule(verbs)).collect()
}

/// What is left of the work that one check may be.
struct Steps(usize);

impl Steps {
    /// Spends some; false when none are left.
    fn take(&mut self, count: usize) -> bool {
        self.0 = self.0.saturating_sub(count);
        self.0 > 0
    }
}

/// A set of owned rules, by their places in the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rules(Vec<u64>);

impl Rules {
    fn insert(&mut self, rule: usize) {
        let word = rule / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (rule % 64);
    }

    fn and(&self, other: &Self) -> Self {
        let mut both: Vec<u64> = self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect();
        while both.last() == Some(&0) {
            both.pop();
        }
        Self(both)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// Which owned rules name a value of one field.
#[derive(Default)]
struct Field<'a> {
    /// Their places: a set for each of many values, and for many rules, would be a table.
    exact: HashMap<&'a str, Vec<usize>>,
    /// Rules that allow any value.
    any: Rules,
}

impl<'a> Field<'a> {
    fn add(&mut self, rule: usize, values: &'a [String], wildcard: Option<&str>) {
        for value in values {
            if Some(value.as_str()) == wildcard {
                self.any.insert(rule);
            }
            self.exact.entry(value).or_default().push(rule);
        }
    }

    /// None once there are no steps left.
    fn covering(&self, value: &str, steps: &mut Steps) -> Rules {
        let exact = self.exact.get(value).map_or(&[][..], Vec::as_slice);
        let words = self.any.0.len().max(exact.last().map_or(0, |last| last / 64 + 1));
        if !steps.take(1 + words + exact.len()) {
            return Rules::default();
        }
        let mut rules = self.any.clone();
        exact.iter().for_each(|rule| rules.insert(*rule));
        rules
    }
}

/// The owned rules, by what they name.
#[derive(Default)]
struct Index<'a> {
    verbs: Field<'a>,
    groups: Field<'a>,
    resources: Field<'a>,
    names: Field<'a>,
    paths: Field<'a>,
    /// Paths that end in `*`, without it, and the rule of each.
    prefixes: Vec<(&'a str, usize)>,
}

impl<'a> Index<'a> {
    fn new(owned: impl IntoIterator<Item = &'a PolicyRule>) -> Self {
        let mut index = Self::default();
        for (i, rule) in owned.into_iter().enumerate() {
            index.verbs.add(i, &rule.verbs, Some("*"));
            index.groups.add(i, &rule.api_groups, Some("*"));
            index.resources.add(i, &rule.resources, Some("*"));
            index.names.add(i, &rule.resource_names, None);
            if rule.resource_names.is_empty() {
                index.names.any.insert(i);
            }
            index.paths.add(i, &rule.non_resource_urls, None);
            index.prefixes.extend(rule.non_resource_urls.iter().filter_map(|p| Some((p.strip_suffix('*')?, i))));
        }
        index.prefixes.sort_unstable();
        index.prefixes.dedup();
        index
    }

    fn resource(&self, wanted: &str, steps: &mut Steps) -> Rules {
        let mut rules = self.resources.covering(wanted, steps);
        if let Some((_, sub)) = wanted.split_once('/')
            && let Some(all) = self.resources.exact.get(format!("*/{sub}").as_str())
            && steps.take(all.len() + all.last().map_or(0, |last| last / 64))
        {
            all.iter().for_each(|rule| rules.insert(*rule));
        }
        rules
    }

    fn path(&self, wanted: &str, steps: &mut Steps) -> Rules {
        let mut rules = self.paths.covering(wanted, steps);
        for (prefix, rule) in &self.prefixes {
            if !steps.take(1) {
                break;
            }
            if wanted.starts_with(prefix) {
                rules.insert(*rule);
            }
        }
        rules
    }
}

/// Values that the same owned rules cover.
type Classes<'a> = BTreeMap<Rules, Vec<&'a str>>;

fn classes<'a>(values: &'a [String], mut covering: impl FnMut(&str) -> Rules) -> Classes<'a> {
    let mut classes = Classes::new();
    for value in values {
        classes.entry(covering(value)).or_default().push(value);
    }
    classes
}

/// What a missing rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target<'a> {
    Resource { group: &'a str, resource: &'a str, name: Option<&'a str> },
    Path(&'a str),
}

impl Target<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Resource { group, resource, name } => group.len() + resource.len() + name.map_or(0, str::len),
            Self::Path(path) => path.len(),
        }
    }

    fn rule(self, verbs: Vec<&str>) -> PolicyRule {
        let one = |text: &str| vec![text.to_owned()];
        let mut rule =
            PolicyRule { verbs: verbs.into_iter().map(ToOwned::to_owned).collect(), ..PolicyRule::default() };
        match self {
            Self::Resource { group, resource, name } => {
                rule.api_groups = one(group);
                rule.resources = one(resource);
                rule.resource_names = name.map(one).unwrap_or_default();
            }
            Self::Path(path) => rule.non_resource_urls = one(path),
        }
        rule
    }
}

struct Search<'a> {
    steps: Steps,
    missing: BTreeMap<Target<'a>, Vec<&'a str>>,
    /// Of what is missing.
    bytes: usize,
}

impl<'a> Search<'a> {
    fn resources(&mut self, index: &Index<'_>, rule: &'a PolicyRule) {
        let steps = &mut self.steps;
        let verbs = classes(&rule.verbs, |verb| index.verbs.covering(verb, steps));
        let groups = classes(&rule.api_groups, |group| index.groups.covering(group, steps));
        let resources = classes(&rule.resources, |resource| index.resource(resource, steps));
        let names = if rule.resource_names.is_empty() {
            Classes::from([(index.names.any.clone(), Vec::new())])
        } else {
            classes(&rule.resource_names, |name| index.names.covering(name, steps))
        };
        for (by_group, group) in &groups {
            for (by_resource, resource) in &resources {
                let both = by_group.and(by_resource);
                for (by_name, name) in &names {
                    let rules = both.and(by_name);
                    for (by_verb, verb) in &verbs {
                        let covered = self.steps.take(1 + rules.0.len()) && !rules.and(by_verb).is_empty();
                        if !covered && !self.miss_resources(verb, group, resource, name) {
                            return;
                        }
                    }
                }
            }
        }
    }

    fn paths(&mut self, index: &Index<'_>, rule: &'a PolicyRule) {
        let steps = &mut self.steps;
        let verbs = classes(&rule.verbs, |verb| index.verbs.covering(verb, steps));
        let paths = classes(&rule.non_resource_urls, |path| index.path(path, steps));
        for (by_path, path) in &paths {
            for (by_verb, verb) in &verbs {
                let covered = self.steps.take(1 + by_path.0.len()) && !by_path.and(by_verb).is_empty();
                let full = !covered && path.iter().any(|path| !self.miss(Target::Path(path), verb));
                if full {
                    return;
                }
            }
        }
    }

    fn miss_resources(
        &mut self,
        verbs: &[&'a str],
        groups: &[&'a str],
        resources: &[&'a str],
        names: &[&'a str],
    ) -> bool {
        for group in groups {
            for resource in resources {
                if names.is_empty() && !self.miss(Target::Resource { group, resource, name: None }, verbs) {
                    return false;
                }
                for name in names {
                    if !self.miss(Target::Resource { group, resource, name: Some(name) }, verbs) {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Notes what is missing; false when no more needs to be found.
    fn miss(&mut self, target: Target<'a>, verbs: &[&'a str]) -> bool {
        let length = target.length();
        let known = self.missing.entry(target).or_default();
        self.bytes += if known.is_empty() { length } else { 0 };
        // Verbs of different classes are different ones; only several wanted rules can name one twice.
        for verb in verbs.iter().take(MAX_MISSING) {
            if known.len() < MAX_MISSING && !known.contains(verb) {
                self.bytes += verb.len();
                known.push(verb);
            }
        }
        self.missing.len() < MAX_MISSING && self.bytes < MAX_MISSING_BYTES
    }
}
