//! The stages of a write: in upstream's order, all of them again for who lost a race, nothing held while one waits, and
//! nothing left behind by who did not finish.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use apiserver::admission::{Answer, Mutated, Mutating, Operation, Plugin, Refusal, Request, Validating, View};
use apiserver::testing::*;
use futures::FutureExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Notify;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// What a plugin was shown.
#[derive(Debug, Clone)]
struct Seen {
    phase: &'static str,
    operation: Operation,
    what: String,
    name: String,
    object: Value,
    old: Value,
    dry_run: bool,
}

/// Remembers what both phases see of namespaced objects.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Seen>>>);

impl Recorder {
    fn plugin(&self) -> Plugin {
        Plugin::mutating("Recorder", self.clone()).and(self.clone())
    }

    fn note(&self, phase: &'static str, request: &Request<'_>, object: Option<&Value>) {
        let shown = |value: Option<&Value>| value.cloned().unwrap_or_default();
        let what = [&*request.kind.plural, request.subresource, &*request.body.kind].join("/");
        self.0.lock().unwrap().push(Seen {
            phase,
            operation: request.operation,
            what,
            name: request.name.to_owned(),
            object: shown(object),
            old: shown(request.old),
            dry_run: request.dry_run,
        });
    }

    /// What was seen since the last call.
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn phases(&self) -> Vec<&'static str> {
        self.take().iter().map(|seen| seen.phase).collect()
    }
}

impl Mutating for Recorder {
    fn mutate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a mut Value>,
        _: &'a dyn View,
    ) -> Answer<'a, Mutated> {
        self.note("mutate", request, object.as_deref());
        Answer::Now(Ok(Mutated::No))
    }
}

impl Validating for Recorder {
    fn validate<'a>(&'a self, request: &'a Request<'a>, object: Option<&'a Value>, _: &'a dyn View) -> Answer<'a, ()> {
        self.note("validate", request, object);
        Answer::Now(Ok(()))
    }
}

/// Holds up the first request whose object bears the label `slow`, in either phase, until it is told to go on.
#[derive(Debug, Clone, Default)]
struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    passed: AtomicUsize,
    reached: Notify,
    open: Notify,
}

impl Gate {
    fn pass<T: Send + 'static>(&self, object: Option<&Value>, answer: T) -> Answer<'_, T> {
        let slow = object.is_some_and(|object| !object["metadata"]["labels"]["slow"].is_null());
        if !slow || self.0.passed.fetch_add(1, Ordering::SeqCst) > 0 {
            return Answer::Now(Ok(answer));
        }
        let later = async move {
            self.0.reached.notify_one();
            self.0.open.notified().await;
            Ok(answer)
        };
        Answer::Later(later.boxed())
    }
}

impl Mutating for Gate {
    fn mutate<'a>(&'a self, _: &'a Request<'a>, object: Option<&'a mut Value>, _: &'a dyn View) -> Answer<'a, Mutated> {
        self.pass(object.as_deref(), Mutated::No)
    }
}

impl Validating for Gate {
    fn validate<'a>(&'a self, _: &'a Request<'a>, object: Option<&'a Value>, _: &'a dyn View) -> Answer<'a, ()> {
        self.pass(object, ())
    }
}

/// Refuses whatever bears the label `bad`.
fn refuse(request: &Request<'_>, object: Option<&Value>, _: &dyn View) -> Result<(), Refusal> {
    let bad = object.is_some_and(|object| !object["metadata"]["labels"]["bad"].is_null());
    if bad { Err(request.forbidden("bad")) } else { Ok(()) }
}

fn service(name: &str, ip: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "selector": {"a": "b"}, "ports": [{"port": 80}]}})
}

fn labelled(mut object: Value, label: &str) -> Value {
    object["metadata"]["labels"] = json!({label: "yes"});
    object
}

#[tokio::test]
async fn a_create_passes_the_stages_in_order() {
    let recorder = Recorder::default();
    let (_server, client) = start_with(vec![recorder.plugin()]).await;
    recorder.take();
    expect(post(&client, SERVICES, &service("s", "")).await, StatusCode::CREATED);
    let seen = recorder.take();
    let [mutate, validate] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((mutate.phase, validate.phase), ("mutate", "validate"));
    // Defaulted, and not yet prepared.
    assert_eq!(mutate.object["spec"]["type"], "ClusterIP");
    assert!(mutate.object["metadata"]["uid"].is_null() && mutate.object["status"].is_null(), "{mutate:?}");
    // Prepared, and granted what it asked for.
    assert!(validate.object["metadata"]["uid"].is_string() && validate.object["status"].is_object(), "{validate:?}");
    assert!(validate.object["spec"]["clusterIP"].as_str().unwrap().starts_with("10.43."), "{validate:?}");
    assert!(validate.old.is_null() && validate.operation == Operation::Create);
    // Who is not valid is not judged.
    let mut invalid = service("t", "");
    invalid["spec"]["ports"] = json!([{"port": 0}]);
    expect(post(&client, SERVICES, &invalid).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(recorder.phases(), ["mutate"]);
}

#[tokio::test]
async fn an_update_passes_the_stages_in_order() {
    let recorder = Recorder::default();
    let (_server, client) = start_with(vec![recorder.plugin()]).await;
    let made = expect(post(&client, SERVICES, &service("s", "")).await, StatusCode::CREATED);
    recorder.take();
    let path = format!("{SERVICES}/s");
    let mut sent = service("s", "");
    sent["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    expect(put(&client, &path, &sent).await, StatusCode::OK);
    let seen = recorder.take();
    let [mutate, validate] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(mutate.object["status"], sent["status"], "as it was sent");
    assert_eq!(validate.object["status"], made["status"], "as a write of the main resource leaves it");
    assert_eq!(validate.object["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    for seen in [mutate, validate] {
        assert_eq!(seen.old["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
        assert_eq!((seen.operation, seen.name.as_str()), (Operation::Update, "s"));
    }
    // As upstream: whether the version is the newest is asked after mutation, and before the strategy.
    sent["metadata"]["resourceVersion"] = json!("1");
    expect(put(&client, &path, &sent).await, StatusCode::CONFLICT);
    assert_eq!(recorder.phases(), ["mutate"]);
    sent["metadata"] = json!({"name": "s", "uid": "other"});
    expect(put(&client, &path, &sent).await, StatusCode::CONFLICT);
    assert_eq!(recorder.phases(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_delete_is_mutated_and_validated_and_an_eviction_is_none() {
    let recorder = Recorder::default();
    let (_server, client) = start_with(vec![recorder.plugin()]).await;
    expect(post(&client, MAPS, &json!({"metadata": {"name": "m"}})).await, StatusCode::CREATED);
    expect(
        post(&client, "/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await,
        StatusCode::CREATED,
    );
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    expect(post(&client, PODS, &pod).await, StatusCode::CREATED);
    recorder.take();
    expect(delete(&client, &format!("{MAPS}/m?dryRun=All")).await, StatusCode::OK);
    expect(delete(&client, &format!("{MAPS}/m")).await, StatusCode::OK);
    let seen = recorder.take();
    assert_eq!(seen.iter().map(|s| s.phase).collect::<Vec<_>>(), ["mutate", "validate", "mutate", "validate"]);
    for (seen, dry_run) in seen.iter().zip([true, true, false, false]) {
        assert_eq!((seen.operation, seen.dry_run), (Operation::Delete, dry_run));
        assert!(seen.object.is_null() && seen.old["metadata"]["name"] == "m", "{seen:?}");
    }
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    expect(post(&client, &format!("{PODS}/p/eviction"), &eviction).await, StatusCode::CREATED);
    for seen in recorder.take() {
        assert_eq!((seen.operation, seen.what.as_str()), (Operation::Create, "pods/eviction/Eviction"));
        assert!(seen.object["kind"] == "Eviction" && seen.old.is_null(), "{seen:?}");
    }
}

#[tokio::test]
async fn plugins_see_a_scale_and_a_binding_as_they_are_sent() {
    let recorder = Recorder::default();
    let (_server, client) = start_with(vec![recorder.plugin()]).await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment =
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    expect(post(&client, DEPLOYMENTS, &deployment).await, StatusCode::CREATED);
    recorder.take();
    let scaled =
        patch(&client, &format!("{DEPLOYMENTS}/d/scale"), "merge-patch+json", &json!({"spec": {"replicas": 3}})).await;
    assert_eq!(expect(scaled, StatusCode::OK)["spec"]["replicas"], 3);
    let seen = recorder.take();
    assert_eq!(seen.iter().map(|s| s.phase).collect::<Vec<_>>(), ["mutate", "validate"]);
    for seen in seen {
        assert_eq!(seen.what, "deployments/scale/Scale");
        assert_eq!(
            (&seen.old["spec"]["replicas"], &seen.object["spec"]["replicas"]),
            (&json!(1), &json!(3)),
            "{seen:?}"
        );
    }
    let stored = expect(get(&client, &format!("{DEPLOYMENTS}/d")).await, StatusCode::OK);
    assert_eq!((&stored["metadata"]["generation"], &stored["spec"]["replicas"]), (&json!(2), &json!(3)));
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    for (path, what) in [
        (format!("{PODS}/p/binding"), "pods/binding/Binding"),
        ("/api/v1/namespaces/default/bindings".into(), "bindings//Binding"),
    ] {
        expect(post(&client, &path, &binding).await, StatusCode::NOT_FOUND);
        let seen = recorder.take();
        assert!(seen.len() == 2 && seen.iter().all(|s| s.what == what && s.name == "p"), "{seen:?}");
    }
}

/// Runs a request that is held up by the gate; what it answers once it may go on.
async fn held_up(
    gate: &Gate,
    request: impl Future<Output = (u16, Value)> + Send + 'static,
) -> tokio::task::JoinHandle<(u16, Value)> {
    let running = tokio::spawn(request);
    gate.0.reached.notified().await;
    running
}

fn slow_patch(
    client: &kube::Client,
    path: &str,
    mut body: Value,
) -> impl Future<Output = (u16, Value)> + Send + 'static {
    body["metadata"]["labels"]["slow"] = json!("yes");
    let (client, path) = (client.clone(), path.to_owned());
    async move { patch(&client, &path, "merge-patch+json", &body).await }
}

#[tokio::test]
async fn who_waited_and_lost_the_race_is_written_over_the_newest_object() {
    let (gate, recorder) = (Gate::default(), Recorder::default());
    let (_server, client) = start_with(vec![Plugin::mutating("Gate", gate.clone()), recorder.plugin()]).await;
    let path = format!("{MAPS}/m");
    let made = expect(post(&client, MAPS, &json!({"metadata": {"name": "m"}})).await, StatusCode::CREATED);
    recorder.take();
    let slow = held_up(&gate, slow_patch(&client, &path, json!({"data": {"a": "slow"}}))).await;
    // The store and everybody else, even writers of this object, go on.
    let won = patch(&client, &path, "merge-patch+json", &json!({"data": {"b": "fast"}})).await;
    let won = expect(won, StatusCode::OK);
    expect(post(&client, MAPS, &json!({"metadata": {"name": "other"}})).await, StatusCode::CREATED);
    expect(get(&client, MAPS).await, StatusCode::OK);
    recorder.take();
    gate.0.open.notify_one();
    let written = expect(slow.await.unwrap(), StatusCode::OK);
    assert_eq!(written["data"], json!({"a": "slow", "b": "fast"}));
    let seen = recorder.take();
    assert_eq!(seen.iter().map(|s| s.phase).collect::<Vec<_>>(), ["mutate", "validate", "mutate", "validate"]);
    let versions: Vec<&Value> = seen.iter().map(|seen| &seen.old["metadata"]["resourceVersion"]).collect();
    let [first, last] = [&made, &won].map(|object| &object["metadata"]["resourceVersion"]);
    assert_eq!(versions, [first, first, last, last]);
}

/// A first try that kept its port would be in the way of the second.
#[tokio::test]
async fn a_lost_try_gives_back_what_it_was_granted() {
    let gate = Gate::default();
    let (_server, client) = start_with(vec![Plugin::validating("Gate", gate.clone())]).await;
    let path = format!("{SERVICES}/s");
    expect(post(&client, SERVICES, &service("s", "")).await, StatusCode::CREATED);
    let ports = json!([{"port": 80, "protocol": "TCP", "nodePort": 30333}]);
    let slow = slow_patch(&client, &path, json!({"spec": {"type": "NodePort", "ports": ports}}));
    let slow = held_up(&gate, slow).await;
    let other = labelled(json!({"spec": {"selector": {"a": "c"}}}), "fast");
    expect(patch(&client, &path, "merge-patch+json", &other).await, StatusCode::OK);
    gate.0.open.notify_one();
    let written = expect(slow.await.unwrap(), StatusCode::OK);
    assert_eq!(
        (&written["spec"]["ports"][0]["nodePort"], &written["spec"]["selector"]),
        (&json!(30333), &json!({"a": "c"}))
    );
}

#[tokio::test]
async fn what_is_refused_or_dry_holds_no_address() {
    let recorder = Recorder::default();
    let (_server, client) = start_with(vec![Plugin::validating("Refuser", refuse), recorder.plugin()]).await;
    let ip = "10.43.0.77";
    let bad = post(&client, SERVICES, &labelled(service("s", ip), "bad")).await;
    let said = expect(bad, StatusCode::FORBIDDEN);
    assert_eq!(said["message"], "services \"s\" is forbidden: bad");
    recorder.take();
    expect(post(&client, &format!("{SERVICES}?dryRun=All"), &service("s", ip)).await, StatusCode::CREATED);
    let seen = recorder.take();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.dry_run), "{seen:?}");
    assert_eq!(seen[1].object["spec"]["clusterIP"], ip);
    expect(get(&client, &format!("{SERVICES}/s")).await, StatusCode::NOT_FOUND);
    expect(post(&client, SERVICES, &service("t", ip)).await, StatusCode::CREATED);
    let patched = json!({"metadata": {"labels": {"bad": "yes"}}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30333}]}});
    expect(patch(&client, &format!("{SERVICES}/t"), "merge-patch+json", &patched).await, StatusCode::FORBIDDEN);
    let mut node_port = service("u", "");
    node_port["spec"]["type"] = json!("NodePort");
    node_port["spec"]["ports"][0]["nodePort"] = json!(30333);
    expect(post(&client, SERVICES, &node_port).await, StatusCode::CREATED);
}

#[tokio::test]
async fn a_request_that_is_cut_off_in_a_stage_holds_no_address() {
    let gate = Gate::default();
    let (_server, client) = start_with(vec![Plugin::validating("Gate", gate.clone())]).await;
    let (asking, body) = (client.clone(), labelled(service("s", "10.43.0.77"), "slow"));
    let waiting = held_up(&gate, async move { post(&asking, SERVICES, &body).await }).await;
    expect(post(&client, SERVICES, &service("t", "10.43.0.77")).await, StatusCode::UNPROCESSABLE_ENTITY);
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    expect(post(&client, SERVICES, &service("t", "10.43.0.77")).await, StatusCode::CREATED);
}

/// Takes the names that the server draws, so often.
struct Squatter {
    client: Arc<OnceLock<kube::Client>>,
    left: AtomicUsize,
    names: Arc<Mutex<Vec<(String, String)>>>,
}

impl Validating for Squatter {
    fn validate<'a>(&'a self, request: &'a Request<'a>, object: Option<&'a Value>, _: &'a dyn View) -> Answer<'a, ()> {
        let Some(object) = object.filter(|o| o["metadata"]["generateName"] == "g-") else { return Answer::Now(Ok(())) };
        let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();
        self.names.lock().unwrap().push((request.name.to_owned(), uid));
        let take = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if !take {
            return Answer::Now(Ok(()));
        }
        let later = async move {
            let squatted = json!({"metadata": {"name": request.name, "finalizers": ["example.com/x"]}});
            let client = self.client.get().unwrap().clone();
            // A task of its own: a request in a request is deep.
            let posted = tokio::spawn(async move { post(&client, MAPS, &squatted).await });
            expect(posted.await.unwrap(), StatusCode::CREATED);
            Ok(())
        };
        Answer::Later(later.boxed())
    }
}

#[tokio::test]
async fn a_generated_name_that_is_taken_is_drawn_again() {
    for (taken, code) in [(7, StatusCode::CREATED), (8, StatusCode::CONFLICT)] {
        let (squatting, names) = (Arc::new(OnceLock::new()), Arc::default());
        let squatter = Squatter { client: Arc::clone(&squatting), left: taken.into(), names: Arc::clone(&names) };
        let (_server, client) = start_with(vec![Plugin::validating("Squatter", squatter)]).await;
        assert!(squatting.set(client.clone()).is_ok());
        let answer = expect(post(&client, MAPS, &json!({"metadata": {"generateName": "g-"}})).await, code);
        let names: Vec<(String, String)> = names.lock().unwrap().clone();
        let distinct: std::collections::HashSet<&String> = names.iter().flat_map(|(name, uid)| [name, uid]).collect();
        assert_eq!((names.len(), distinct.len()), (8, 16), "eight names and as many uids");
        let last = &names[7].0;
        if code == StatusCode::CREATED {
            assert_eq!(answer["metadata"]["name"], last.as_str());
            continue;
        }
        assert_eq!((&answer["reason"], &answer["details"]["retryAfterSeconds"]), (&json!("AlreadyExists"), &json!(1)));
        let why = format!(
            "configmaps \"{last}\" already exists, the server was not able to generate a unique name for the object"
        );
        assert_eq!(answer["message"], why.as_str());
        // Of what is going, whoever waits for it reads so.
        expect(delete(&client, &format!("{MAPS}/{last}")).await, StatusCode::OK);
        let again = expect(post(&client, MAPS, &json!({"metadata": {"name": last}})).await, StatusCode::CONFLICT);
        assert_eq!(again["message"], format!("object is being deleted: configmaps \"{last}\" already exists").as_str());
    }
}

/// As an injecting webhook does.
fn inject(request: &Request<'_>, object: Option<&mut Value>, _: &dyn View) -> Result<Mutated, Refusal> {
    let Some(pod) = object.filter(|_| request.kind.plural == "pods" && !request.again) else { return Ok(Mutated::No) };
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "sidecar", "image": "s"}));
    Ok(Mutated::Raw)
}

#[tokio::test]
async fn what_a_plugin_writes_as_clients_do_is_completed() {
    let recorder = Recorder::default();
    let (_server, client) = start_with(vec![Plugin::mutating("Injector", inject), recorder.plugin()]).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    expect(post(&client, accounts, &json!({"metadata": {"name": "default"}})).await, StatusCode::CREATED);
    recorder.take();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = expect(post(&client, PODS, &pod).await, StatusCode::CREATED);
    let [container, sidecar] = made["spec"]["containers"].as_array().unwrap().as_slice() else { panic!("{made}") };
    for field in ["imagePullPolicy", "terminationMessagePath", "volumeMounts"] {
        assert!(!sidecar[field].is_null() && sidecar[field] == container[field], "{field}: {made}");
    }
    let seen = recorder.take();
    assert_eq!(seen.iter().map(|s| s.phase).collect::<Vec<_>>(), ["mutate", "mutate", "validate"]);
    assert_eq!(seen[0].object["spec"]["containers"][1]["imagePullPolicy"], "Always", "defaulted for who comes next");
}
