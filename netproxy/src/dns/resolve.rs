//! From a question to its reply: the zone's names at once, aliases as far as they lead, others
//! through the upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};

use super::forward::{Upstream, UpstreamAnswer};
use super::message::Reply;
use super::watch::SharedZone;
use super::zone::{Answer, Zone};

/// Aliases that are followed, as upstream's server does: beyond there is most likely a circle.
const CHAIN: usize = 8;

/// What the zone alone can say.
#[derive(Clone, Debug, PartialEq)]
pub enum LocalAnswer {
    /// All of it.
    Known(Reply),
    /// A name outside the cluster, and the aliases that led there.
    Outside { aliases: Vec<Record>, name: Name },
}

/// Answers questions from one shared zone and one upstream.
#[derive(Debug)]
pub struct NameResolver<U> {
    zone: Arc<SharedZone>,
    upstream: U,
    answered: AtomicU64,
}

impl<U: Upstream> NameResolver<U> {
    /// Names of `zone`, and of whatever `upstream` knows.
    pub fn new(zone: Arc<SharedZone>, upstream: U) -> Self {
        Self { zone, upstream, answered: AtomicU64::new(0) }
    }

    /// Whether names outside the cluster are asked of somebody.
    pub fn recursion_available(&self) -> bool {
        self.upstream.available()
    }

    /// Whether a name is the cluster's.
    pub fn covers(&self, name: &Name) -> bool {
        self.zone.read(|zone, _| zone.covers(name)).unwrap_or(false)
    }

    /// What can be said without asking anybody.
    pub fn local(&self, query: &Query) -> LocalAnswer {
        let local = self.zone.read(|zone, complete| follow(zone, complete, query.name(), query.query_type()));
        match local {
            Some(LocalAnswer::Known(reply)) => LocalAnswer::Known(self.shuffled(reply)),
            Some(outside) => outside,
            None => LocalAnswer::Known(Reply::code(ResponseCode::ServFail)),
        }
    }

    /// Asks the upstream for what [`Self::local`] left open.
    pub async fn outside(&self, query: &Query, aliases: Vec<Record>, name: &Name) -> Reply {
        let forwarded = self.upstream.lookup(name, query.query_type()).await;
        self.shuffled(joined(query, aliases, forwarded))
    }

    /// Addresses change places from answer to answer, so that clients that take the first one
    /// spread over all.
    fn shuffled(&self, mut reply: Reply) -> Reply {
        if reply.answers.len() + reply.additionals.len() > 1 {
            let mut random = Random(self.answered.fetch_add(1, Ordering::Relaxed));
            shuffle(&mut reply.answers, &mut random);
            shuffle(&mut reply.additionals, &mut random);
        }
        reply
    }
}

/// Looks a name up, and what it is an alias of. Names of the cluster are not known before the zone
/// is complete: an answer out of half a picture would be kept by its client.
fn follow(zone: &Zone, complete: bool, name: &Name, kind: RecordType) -> LocalAnswer {
    let mut aliases: Vec<Record> = Vec::new();
    let mut name = name.clone();
    loop {
        if !zone.covers(&name) {
            return LocalAnswer::Outside { aliases, name };
        }
        if !complete {
            return LocalAnswer::Known(Reply::code(ResponseCode::ServFail));
        }
        match zone.answer(&name, kind) {
            Answer::Records { answers, additionals } => {
                aliases.extend(answers);
                return LocalAnswer::Known(Reply {
                    authoritative: true,
                    answers: aliases,
                    additionals,
                    ..Reply::default()
                });
            }
            Answer::Alias { alias, target } if aliases.len() < CHAIN => {
                aliases.push(*alias);
                name = target;
            }
            // An alias of nothing has no data, as upstream's server says.
            Answer::NameError if aliases.is_empty() => {
                return LocalAnswer::Known(Reply::negative(ResponseCode::NXDomain, zone.soa()));
            }
            Answer::NameError | Answer::NoData | Answer::Alias { .. } => {
                return LocalAnswer::Known(Reply::negative(ResponseCode::NoError, zone.soa()));
            }
        }
    }
}

/// The reply to a question whose name, or the end of its aliases, somebody else knows.
fn joined(query: &Query, mut aliases: Vec<Record>, forwarded: UpstreamAnswer) -> Reply {
    match forwarded {
        UpstreamAnswer::Records(mut answers) => {
            if aliases.is_empty() {
                // As it was asked: clients that mix cases check for it.
                for answer in answers.iter_mut().filter(|answer| answer.name == *query.name()) {
                    answer.name = query.name().clone();
                }
            }
            let authoritative = !aliases.is_empty();
            aliases.extend(answers);
            Reply { authoritative, answers: aliases, ..Reply::default() }
        }
        UpstreamAnswer::Negative { code, soa } if aliases.is_empty() => Reply { code, soa, ..Reply::default() },
        // The alias exists, whether or not its target does.
        UpstreamAnswer::Negative { .. } => Reply { authoritative: true, answers: aliases, ..Reply::default() },
        UpstreamAnswer::Failed => Reply::code(ResponseCode::ServFail),
        UpstreamAnswer::Refused => Reply::code(ResponseCode::Refused),
    }
}

/// A sequence of numbers without a pattern that a client would meet (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % u64::try_from(bound.max(1)).unwrap_or(1)).unwrap_or(0)
    }
}

/// Brings the addresses among `records` into another order; everything else stays where it is.
fn shuffle(records: &mut [Record], random: &mut Random) {
    let address = |record: &Record| matches!(record.record_type(), RecordType::A | RecordType::AAAA);
    let places: Vec<usize> = (0..records.len()).filter(|at| address(&records[*at])).collect();
    for last in (1..places.len()).rev() {
        records.swap(places[last], places[random.below(last + 1)]);
    }
}

#[cfg(test)]
mod tests;
