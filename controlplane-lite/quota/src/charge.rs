//! Whether what is about to be stored fits into the quotas of its namespace, and what is used of them then:
//! `CheckRequest` of `k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go`.

use crate::amounts::{Amounts, add, grown, names, print};
use crate::evaluator::Evaluator;
use crate::measured::Measured;
use crate::quota::Quota;
use jiff::Timestamp;

/// What a write demands.
#[derive(Debug, Clone)]
pub struct Demand {
    /// How its kind is measured.
    pub evaluator: Evaluator,
    /// The object as it will be.
    pub new: Measured,
    /// As it is, for an update.
    pub old: Option<Measured>,
    /// Whether it is only told what is so already, as by a status: then nothing is refused.
    pub told: bool,
    /// When it is asked for.
    pub now: Timestamp,
}

/// Charges a demand to every quota that counts it, or to none; whether any has changed.
///
/// # Errors
/// Why it is refused, in upstream's words.
pub fn charge(quotas: &mut [Quota], demand: &Demand) -> Result<bool, String> {
    let mut interesting = Vec::new();
    for (index, quota) in quotas.iter().enumerate() {
        if !quota.matches(&demand.evaluator, &demand.new) {
            continue;
        }
        let restricted = quota.hard.keys().map(String::as_str).filter(|name| demand.evaluator.tracks(name));
        let restricted: Vec<&str> = restricted.collect();
        if let Some(missing) = demand.new.missing(&restricted) {
            return Err(format!("failed quota: {}: {missing}", quota.name));
        }
        if restricted.iter().any(|name| !quota.used.contains_key(*name)) {
            return Err(format!("status unknown for quota: {}, resources: {}", quota.name, names(restricted)));
        }
        interesting.push(index);
    }
    let usage = demand.new.usage(demand.now);
    let negative = usage.iter().filter(|(_, quantity)| quantity.is_negative()).map(|(name, _)| name.as_str());
    let negative = names(negative);
    if !negative.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {negative}"));
    }
    let mut charged: Vec<(usize, Amounts)> = Vec::new();
    for index in interesting {
        if let Some(used) = used_after(&quotas[index], demand, &usage)? {
            charged.push((index, used));
        }
    }
    let changed = !charged.is_empty();
    for (index, used) in charged {
        quotas[index].used = used;
    }
    Ok(changed)
}

/// What is used of a quota after the write; nothing when that is as before.
fn used_after(quota: &Quota, demand: &Demand, usage: &Amounts) -> Result<Option<Amounts>, String> {
    let before = demand.old.as_ref().filter(|old| quota.matches(&demand.evaluator, old));
    let mut more = before.map_or_else(|| usage.clone(), |old| grown(usage, &old.usage(demand.now)));
    more.retain(|name, quantity| !quantity.is_zero() && quota.hard.contains_key(name));
    if more.is_empty() {
        return Ok(None);
    }
    let mut used = quota.used.clone();
    add(&mut used, &more);
    let exceeds = |name: &str| quota.hard.get(name).is_some_and(|hard| used.get(name).is_some_and(|used| used > hard));
    let exceeded: Vec<&String> = more.keys().filter(|name| exceeds(name)).collect();
    if exceeded.is_empty() || demand.told {
        return Ok(Some(used));
    }
    let only = |amounts: &Amounts| {
        let of = exceeded.iter().filter_map(|name| Some(((*name).clone(), *amounts.get(*name)?)));
        print(&of.collect())
    };
    let (requested, used, limited) = (only(&more), only(&quota.used), only(&quota.hard));
    let name = &quota.name;
    Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"))
}

#[cfg(test)]
mod tests;
