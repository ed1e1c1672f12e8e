//! How many managers that update an object may have (`managedfields/internal/capmanagers.go`): the oldest become one.

use std::collections::BTreeMap;

use crate::managed::{Manager, Managers, Operation};

/// Managers that update which an object may have.
const MAX_UPDATERS: usize = 10;
/// Who owns what the oldest owned, one for each version.
const ANCIENT: &str = "ancient-changes";

/// Merges the entries that were written longest ago, until there are few enough.
pub fn cap(mut managers: Managers) -> Managers {
    let updates = |manager: &&Manager| manager.operation == Operation::Update;
    let mut updaters: Vec<Manager> = managers.keys().filter(updates).cloned().collect();
    let mut left = updaters.len();
    updaters.sort_by(|a, b| managers[a].time.cmp(&managers[b].time).then_with(|| a.cmp(b)));
    let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
    for manager in updaters {
        if left <= MAX_UPDATERS {
            break;
        }
        let version = managers[&manager].version.clone();
        let Some(first) = first_of.get(&version) else {
            first_of.insert(version, manager);
            continue;
        };
        let bucket = Manager {
            name: ANCIENT.to_owned(),
            operation: Operation::Update,
            version: version.clone(),
            subresource: String::new(),
        };
        if !managers.contains_key(&bucket)
            && let Some(owned) = managers.remove(first)
        {
            managers.insert(bucket.clone(), owned);
        }
        if manager == bucket {
            continue;
        }
        if let (Some(newer), Some(owned)) = (managers.remove(&manager), managers.get_mut(&bucket)) {
            owned.set.extend(&newer.set);
            owned.time = newer.time;
            left -= 1;
        }
    }
    managers
}
