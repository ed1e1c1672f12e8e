//! ResourceQuota: what is stored in a namespace is charged to its quotas first, and refused if it is too much. Follows
//! `k8s.io/apiserver/pkg/admission/plugin/resourcequota`.
//!
//! Usage is in the quotas' status, and it is compared and put: of writes that race, none is judged by what another has
//! used already. Those of one namespace that come together are charged together, in their order, with one put. A write
//! that fails afterwards stays charged until the controller counts again, as upstream's. A namespace without a quota
//! costs a look into the cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use quota::{Demand, Evaluator, Quota, Write, charge, ignored, to_value};
use scheme::access::ensure_map;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Answer, Operation, Refusal, Request, Validating, View};
use crate::registry::{Change, Commit, Opened, RegistryError, Resource};
use storage::Revision;
use storage::watch_cache::Filter;

const GROUP: &str = "";
const PLURAL: &str = "resourcequotas";
/// How often a charge is put again after somebody else has written the quota: its controller or a person.
const TRIES: usize = 16;

#[derive(Default)]
pub(super) struct ResourceQuota {
    lines: Mutex<HashMap<String, Arc<Line>>>,
}

/// The writes of one namespace that wait for being charged.
#[derive(Default)]
struct Line {
    waiting: Mutex<Vec<Waiter>>,
    turn: tokio::sync::Mutex<()>,
}

/// What becomes of a write: it is charged, or refused with these words.
type Judged = Result<(), String>;

struct Waiter {
    demand: Demand,
    dry_run: bool,
    told: oneshot::Sender<Judged>,
}

impl Validating for ResourceQuota {
    fn validate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a Value>,
        view: &'a dyn View,
    ) -> Answer<'a, ()> {
        // Most namespaces have none, and are asked first.
        if request.operation == Operation::Delete || !view.any_in(GROUP, PLURAL, request.namespace) {
            return Answer::Now(Ok(()));
        }
        let asked = object.and_then(|object| Some((object, counted(request)?)));
        let (Some((object, evaluator)), Some(quotas)) = (asked, view.stored(GROUP, PLURAL)) else {
            return Answer::Now(Ok(()));
        };
        let demand = Demand {
            new: evaluator.measure(object),
            old: request.old.map(|old| evaluator.measure(old)),
            told: request.subresource == "status",
            now: jiff::Timestamp::now(),
            evaluator,
        };
        Answer::Later(self.judge(request, demand, quotas).boxed())
    }
}

/// How the request's object is measured, if the request can use more of anything.
fn counted(request: &Request<'_>) -> Option<Evaluator> {
    let write = match request.operation {
        Operation::Create => Write::Create,
        Operation::Update => Write::Update,
        Operation::Delete | Operation::Connect => return None,
    };
    let (group, plural) = (&*request.kind.group, &*request.kind.plural);
    if request.namespace.is_empty() || !request.kind.namespaced || ignored(group, plural) {
        return None;
    }
    let evaluator = Evaluator::of(group, plural);
    evaluator.handles(write, request.subresource).then_some(evaluator)
}

impl ResourceQuota {
    fn line(&self, namespace: &str) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.entry(namespace.to_owned()).or_default().clone()
    }

    /// Forgets the line of a namespace where nobody waits.
    fn leave(&self, namespace: &str, line: Arc<Line>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        drop(line);
        if lines.get(namespace).is_some_and(|line| Arc::strong_count(line) == 1) {
            lines.remove(namespace);
        }
    }

    async fn judge(&self, request: &Request<'_>, demand: Demand, quotas: Arc<Resource>) -> Result<(), Refusal> {
        let line = self.line(request.namespace);
        let judged = stand(&line, &demand, request, &quotas).await;
        self.leave(request.namespace, line);
        judged?.map_err(|why| request.forbidden(why))
    }
}

/// Waits in line; whoever is first charges for all who wait then. One who charges may leave, or fail, before the others
/// were told: they stand in line once more.
async fn stand(
    line: &Line,
    demand: &Demand,
    request: &Request<'_>,
    quotas: &Resource,
) -> Result<Judged, RegistryError> {
    let waiting = || line.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let (told, mut hears) = oneshot::channel();
        waiting().push(Waiter { demand: demand.clone(), dry_run: request.dry_run, told });
        let turn = line.turn.lock().await;
        if let Ok(judged) = hears.try_recv() {
            return Ok(judged);
        }
        let mut all = std::mem::take(&mut *waiting());
        // Who has left is not charged.
        all.retain(|waiter| !waiter.told.is_closed());
        charge_all(quotas, request.namespace, all).await?;
        drop(turn);
        if let Ok(judged) = hears.try_recv() {
            return Ok(judged);
        }
    }
}

/// Charges the writes and tells each what has become of it.
async fn charge_all(quotas: &Resource, namespace: &str, all: Vec<Waiter>) -> Result<(), RegistryError> {
    let mut judged: Vec<Judged> = all.iter().map(|_| Ok(())).collect();
    let mut names = names(quotas, namespace);
    for _ in 0..TRIES {
        let opened = open(quotas, namespace, &names).await?;
        let before: Vec<Quota> = opened.iter().map(|opened| Quota::read(&opened.value)).collect();
        let mut after = before.clone();
        for (waiter, judged) in all.iter().zip(&mut judged).filter(|(_, judged)| judged.is_ok()) {
            let charged = match waiter.dry_run {
                true => charge(&mut after.clone(), &waiter.demand),
                false => charge(&mut after, &waiter.demand),
            };
            *judged = charged.map(drop);
        }
        let pairs = opened.into_iter().zip(before.into_iter().zip(after));
        let changed = pairs.filter_map(|(opened, (before, after))| (before != after).then_some((opened, after)));
        names = put(quotas, changed).await?;
        if names.is_empty() {
            for (waiter, judged) in all.into_iter().zip(judged) {
                drop(waiter.told.send(judged));
            }
            return Ok(());
        }
    }
    Err(quotas.modified(&names[0]))
}

/// The quotas of a namespace that the cache shows.
fn names(quotas: &Resource, namespace: &str) -> Vec<String> {
    let mut names = Vec::new();
    quotas.cache().for_each(&Filter::all().in_namespace(namespace), |quota| names.push(quota.name().to_owned()));
    names
}

/// Opens the quotas that are still there.
async fn open(quotas: &Resource, namespace: &str, names: &[String]) -> Result<Vec<Opened>, RegistryError> {
    let mut opened = Vec::new();
    for name in names {
        match quotas.open(namespace, name).await {
            Ok(quota) => opened.push(quota),
            Err(RegistryError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(opened)
}

/// Writes what is used now; which quotas somebody else wrote first. What was charged to the others stays, as
/// upstream's.
async fn put(quotas: &Resource, changed: impl Iterator<Item = (Opened, Quota)>) -> Result<Vec<String>, RegistryError> {
    let (mut lost, mut last) = (Vec::new(), Revision::default());
    for (opened, after) in changed {
        let mut value = opened.value.clone();
        ensure_map(&mut value, &["status"]).insert("used".into(), to_value(&after.used));
        if let Commit::Lost { winner } = quotas.commit(&opened, Change::Write(value), false).await? {
            lost.push(after.name);
            last = last.max(winner.unwrap_or_default());
        }
    }
    if !lost.is_empty() {
        quotas.after_loss(Some(last)).await;
    }
    Ok(lost)
}
