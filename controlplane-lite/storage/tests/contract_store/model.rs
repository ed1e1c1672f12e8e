//! Random histories on a store and on the plainest model of one; both must agree
//! on every answer, every past state and every watch.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures::StreamExt;
use harness::time;
use storage::{Event, Key, Precondition, Put, Range, Revision, Store, StoreError};

/// A small generator, so that a seed tells the whole story.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

type State = BTreeMap<String, (String, Revision)>;

/// Plays one history; `open` is called again in the middle to reopen the store.
pub async fn compare<F: Future<Output = Arc<dyn Store>>>(seed: u64, open: impl Fn() -> F) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut store = open().await;
    let mut model = State::new();
    let mut states: Vec<(Revision, State)> = vec![(store.current_revision().await.unwrap(), State::new())];
    for step in 0..150 {
        if step == 75 {
            // The old handle must be gone before the file is opened again.
            drop(store);
            store = open().await;
        }
        let name = format!("/k/{}", dice.roll(6));
        if let Some(revision) = turn(&store, &mut model, &mut dice, &name, step).await {
            states.push((revision, model.clone()));
        }
    }
    for (revision, state) in &states {
        let page = store.list(Range { at: Some(*revision), ..Range::default() }).await.unwrap();
        let seen: State = page.entries.iter().map(|e| (e.key.to_string(), (text(&e.value), e.revision))).collect();
        assert_eq!(&seen, state, "seed {seed} at {revision}");
    }
    let from = usize::try_from(dice.roll(states.len() as u64)).unwrap();
    replay(&store, &states, from, seed).await;
}

async fn turn(store: &Arc<dyn Store>, model: &mut State, dice: &mut Dice, name: &str, step: u64) -> Option<Revision> {
    let key = Key::new(name).unwrap();
    let have = model.get(name).map(|(_, revision)| *revision);
    let precondition = match dice.roll(4) {
        0 => Precondition::NotExists,
        1 => Precondition::Revision(Revision(dice.roll(60))),
        2 => have.map_or(Precondition::Any, Precondition::Revision),
        _ => Precondition::Any,
    };
    let holds = match precondition {
        Precondition::Any => true,
        Precondition::NotExists => have.is_none(),
        Precondition::Revision(wanted) => have == Some(wanted),
    };
    if dice.roll(4) == 0 {
        return match store.delete(&key, precondition).await {
            Ok((revision, removed)) => {
                assert!(holds);
                assert_eq!(model.remove(name), Some((text(&removed.value), removed.revision)));
                Some(revision)
            }
            Err(StoreError::NotFound(_)) => {
                assert!(have.is_none());
                None
            }
            Err(StoreError::Conflict { current, .. }) => {
                assert!(!holds && current == have);
                None
            }
            Err(error) => panic!("{error:?}"),
        };
    }
    let value = format!("{step}");
    let mut put = Put { precondition, ..Put::create(key, value.clone()) };
    if dice.roll(2) == 0 {
        put = put.eventually();
    }
    match store.put(put).await {
        Ok(revision) => {
            assert!(holds);
            model.insert(name.to_owned(), (value, revision));
            Some(revision)
        }
        Err(StoreError::NotFound(_)) => {
            assert!(!holds && have.is_none());
            None
        }
        Err(StoreError::Conflict { current, .. }) => {
            assert!(!holds && current == have);
            None
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// A watch from any state leads through all later ones.
async fn replay(store: &Arc<dyn Store>, states: &[(Revision, State)], from: usize, seed: u64) {
    let (start, state) = &states[from];
    let mut state = state.clone();
    let mut watch = store.watch("", *start).await.unwrap();
    for (revision, expected) in &states[from + 1..] {
        let event = time::within("a change", watch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(event.revision(), *revision, "seed {seed}");
        match event {
            Event::Put { entry, created } => {
                let value = (text(&entry.value), entry.revision);
                assert_eq!(state.insert(entry.key.to_string(), value).is_none(), created, "seed {seed}");
            }
            Event::Delete { previous, .. } => {
                let removed = state.remove(previous.key.as_str());
                assert_eq!(removed, Some((text(&previous.value), previous.revision)), "seed {seed}");
            }
            Event::Progress(_) => panic!("nobody asked"),
        }
        assert_eq!(&state, expected, "seed {seed} at {revision}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
