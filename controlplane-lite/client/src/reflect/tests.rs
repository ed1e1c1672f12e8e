//! An informer against a scripted server: what it does with objects that it
//! cannot read, and that it goes on.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::*;

/// Answers lists and watches in the order of the script, then hangs.
#[derive(Default)]
struct Script {
    lists: Mutex<VecDeque<Value>>,
    watches: Mutex<VecDeque<Vec<String>>>,
    /// The revisions watches were begun from.
    begun: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Source<ConfigMap> for Script {
    async fn list(&self, _params: &ListParams) -> Result<ObjectList<Decoded<ConfigMap>>, kube::Error> {
        let next = self.lists.lock().unwrap().pop_front();
        let Some(list) = next else { return std::future::pending().await };
        serde_json::from_str(&list.to_string()).map_err(kube::Error::SerdeError)
    }
    async fn watch(&self, _params: &WatchParams, revision: &str) -> Result<WatchStream<ConfigMap>, kube::Error> {
        self.begun.lock().unwrap().push(revision.to_owned());
        let next = self.watches.lock().unwrap().pop_front();
        let Some(events) = next else { return std::future::pending().await };
        let events = events.into_iter().map(|e| serde_json::from_str(&e).map_err(kube::Error::SerdeError));
        Ok(stream::iter(events).boxed())
    }
}

fn object(name: &str, revision: u64, data: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": "ns", "uid": format!("uid-{name}"),
        "resourceVersion": revision.to_string()});
    json!({"metadata": metadata, "data": data})
}

fn good(name: &str, revision: u64) -> Value {
    object(name, revision, &json!({"at": revision.to_string()}))
}

fn bad(name: &str, revision: u64) -> Value {
    object(name, revision, &json!(1))
}

fn list(revision: u64, items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMapList",
        "metadata": {"resourceVersion": revision.to_string()}, "items": items})
}

/// As servers write it: the type first.
fn event(kind: &str, object: &Value) -> String {
    format!(r#"{{"type":"{kind}","object":{object}}}"#)
}

fn names(store: &Store<ConfigMap>) -> Vec<String> {
    store.list().iter().map(|o| format!("{}@{}", ObjectKey::of(&o.metadata).name, revision(&o.metadata))).collect()
}

/// Runs an informer until the script hangs.
async fn run(lists: Vec<Value>, watches: Vec<Vec<String>>) -> (Arc<Store<ConfigMap>>, Script, Observer) {
    let store = Store::<ConfigMap>::new(false);
    let (source, observer) = run_into(&*store, lists, watches).await;
    (store, source, observer)
}

async fn run_into(sink: &dyn Sink<ConfigMap>, lists: Vec<Value>, watches: Vec<Vec<String>>) -> (Script, Observer) {
    let wanted = watches.len() + 1;
    let source = Script { lists: Mutex::new(lists.into()), watches: Mutex::new(watches.into()), ..Script::default() };
    let observer = Observer::new("configmaps", &Status::default());
    let hung = async {
        while source.begun.lock().unwrap().len() < wanted {
            // Time is paused: this only lets the informer go on.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (token, filter) = (CancellationToken::new(), Filter::default());
    tokio::select! {
        () = reflect(&source, &filter, sink, &observer, token) => {}
        () = hung => {}
    }
    (source, observer)
}

#[tokio::test(start_paused = true)]
async fn a_list_goes_past_an_item_that_cannot_be_read() {
    let (store, _, observer) = run(vec![list(9, &[good("a", 1), bad("b", 2), good("c", 3)])], vec![]).await;
    assert_eq!(names(&store), ["a@1", "c@3"]);
    assert_eq!(observer.status.unreadable(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_past_an_event_that_cannot_be_read_and_keeps_the_last_state() {
    let events = vec![event("MODIFIED", &bad("a", 10)), event("ADDED", &bad("b", 11)), event("ADDED", &good("c", 12))];
    let (store, source, observer) = run(vec![list(9, &[good("a", 1)])], vec![events]).await;
    assert_eq!(names(&store), ["a@1", "c@12"], "the last readable state of a stays, b is absent");
    assert_eq!(*source.begun.lock().unwrap(), ["9", "12"], "the watch resumes behind what it skipped");
    assert_eq!(observer.status.unreadable(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_at_an_unreadable_event_does_not_meet_it_again() {
    let (_, source, _) = run(vec![list(9, &[])], vec![vec![event("ADDED", &bad("a", 10))]]).await;
    assert_eq!(*source.begun.lock().unwrap(), ["9", "10"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_unreadable_can_be_read_again_or_go() {
    let events = vec![
        event("MODIFIED", &bad("a", 10)),
        event("MODIFIED", &bad("b", 11)),
        event("MODIFIED", &good("a", 12)),
        event("DELETED", &bad("b", 13)),
    ];
    let (store, _, observer) = run(vec![list(9, &[good("a", 1), good("b", 2)])], vec![events]).await;
    assert_eq!(names(&store), ["a@12"]);
    assert_eq!(observer.status.unreadable(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_relist_keeps_the_last_state_of_the_same_object_only() {
    let gone = event("ERROR", &json!({"code": 410, "status": "Failure", "message": "", "reason": "Expired"}));
    let mut other = bad("b", 21);
    other["metadata"]["uid"] = "another".into();
    let lists = vec![list(9, &[good("a", 1), good("b", 2)]), list(30, &[bad("a", 20), other])];
    let (store, _, observer) = run(lists, vec![vec![gone]]).await;
    assert_eq!(names(&store), ["a@1"]);
    assert_eq!(observer.status.unreadable(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_no_event_leads_to_a_new_list() {
    let lists = vec![list(9, &[]), list(12, &[good("a", 11)])];
    let (store, source, _) = run(lists, vec![vec![r#"{"type":"NONSENSE"}"#.to_owned()]]).await;
    assert_eq!(names(&store), ["a@11"]);
    assert_eq!(*source.begun.lock().unwrap(), ["9", "12"]);
}

#[tokio::test(start_paused = true)]
async fn a_frame_whose_type_comes_last_leads_to_a_new_list() {
    let lists = vec![list(9, &[]), list(12, &[good("a", 11)])];
    let frame = format!(r#"{{"object":{},"type":"ADDED"}}"#, good("a", 11));
    let (store, source, _) = run(lists, vec![vec![frame]]).await;
    assert_eq!(names(&store), ["a@11"]);
    assert_eq!(*source.begun.lock().unwrap(), ["9", "12"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lists_and_refuses_to_watch_is_asked_ever_less_often() {
    let refused =
        || event("ERROR", &json!({"code": 500, "status": "Failure", "message": "", "reason": "InternalError"}));
    let (lists, watches) = ((1..=7).map(|n| list(n, &[])).collect(), (1..=6).map(|_| vec![refused()]).collect());
    let began = tokio::time::Instant::now();
    let (_, source, _) = run(lists, watches).await;
    assert_eq!(source.begun.lock().unwrap().len(), 7);
    // Each pause is twice the one before.
    assert!(began.elapsed() >= FIRST_DELAY * 63, "{:?}", began.elapsed());
}

/// Says when it is asked what it does not answer: a list, a watch, or one that it has begun.
struct Silent {
    lists: bool,
    watches: bool,
    asked: tokio::sync::mpsc::UnboundedSender<()>,
}

#[async_trait::async_trait]
impl Source<ConfigMap> for Silent {
    async fn list(&self, _params: &ListParams) -> Result<ObjectList<Decoded<ConfigMap>>, kube::Error> {
        if !self.lists {
            self.asked.send(()).unwrap();
            std::future::pending::<()>().await;
        }
        serde_json::from_str(&list(9, &[]).to_string()).map_err(kube::Error::SerdeError)
    }
    async fn watch(&self, _params: &WatchParams, _revision: &str) -> Result<WatchStream<ConfigMap>, kube::Error> {
        self.asked.send(()).unwrap();
        if !self.watches {
            std::future::pending::<()>().await;
        }
        Ok(stream::pending().boxed())
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_is_asked_again() {
    for (lists, watches) in [(false, false), (true, false), (true, true)] {
        let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let source = Silent { lists, watches, asked };
        let (store, observer) = (Store::<ConfigMap>::new(false), Observer::new("configmaps", &Status::default()));
        let (filter, token) = (Filter::default(), CancellationToken::new());
        let thrice = async {
            for _ in 0..3 {
                heard.recv().await.unwrap();
            }
        };
        tokio::select! {
            () = reflect(&source, &filter, &*store, &observer, token) => {}
            asked = tokio::time::timeout(Duration::from_secs(86_400), thrice) => asked.expect("it is asked again"),
        }
    }
}

/// A store's sink that panics at the first event.
struct Shaky {
    store: Arc<Store<ConfigMap>>,
    panicked: AtomicBool,
}

impl Sink<ConfigMap> for Shaky {
    fn replace(&self, objects: Vec<ConfigMap>, unreadable: &[Unreadable], revision: u64) {
        Sink::replace(&*self.store, objects, unreadable, revision);
    }
    fn apply(&self, object: ConfigMap) {
        assert!(self.panicked.swap(true, Ordering::SeqCst), "the first one");
        Sink::apply(&*self.store, object);
    }
    fn delete(&self, object: ConfigMap) {
        Sink::delete(&*self.store, object);
    }
    fn forget(&self, object: &Unreadable) {
        Sink::forget(&*self.store, object);
    }
    fn progressed(&self, revision: u64) {
        Sink::progressed(&*self.store, revision);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_leads_to_a_new_list_and_is_told() {
    let store = Store::<ConfigMap>::new(false);
    let sink = Shaky { store: store.clone(), panicked: AtomicBool::default() };
    let lists = vec![list(9, &[]), list(11, &[good("a", 10)])];
    let watches = vec![vec![event("ADDED", &good("a", 10))], vec![event("ADDED", &good("b", 12))]];
    let (_, observer) = run_into(&sink, lists, watches).await;
    assert_eq!((names(&store), observer.status.panics()), (vec!["a@10".to_owned(), "b@12".to_owned()], 1));
}
