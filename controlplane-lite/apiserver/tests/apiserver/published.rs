//! Kinds that come and go while the server runs, as clients see them over TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use serde_json::{Value, json};

use apiserver::testing::*;
use scheme::access::{ensure_map, int_at, set_default, str_at};
use scheme::kind::{Conversion, Shared};
use scheme::selector::Selectable;
use scheme::strategy::Facts;
use scheme::table::{Column, Print};
use scheme::{FieldErrors, Kind, Names, Path, Schema, Strategy, Text};

use crate::Kubectl;
use crate::watches::Watch;

/// Rules that no built-in kind has.
struct Widgets;

impl Strategy for Widgets {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        set_default(ensure_map(object, &["spec"]), "size", 1);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        if let Some(size) = int_at(object, &["spec", "size"]).filter(|size| *size > 9) {
            errors.invalid(&Path::new("spec").child("size"), size, "must be at most 9");
        }
    }
}

/// Columns of its own.
struct Sizes(Vec<String>);

impl Print for Sizes {
    fn columns(&self) -> Vec<Column<'_>> {
        self.0.iter().map(|name| Column { name, ty: "string", format: "", priority: 0, description: "" }).collect()
    }

    fn cells(&self, object: &Value, _: jiff::Timestamp) -> Vec<Value> {
        vec![str_at(object, &["metadata", "name"]).into(), object["spec"]["size"].clone()]
    }
}

fn owned(text: &str) -> Text {
    Text::Owned(text.to_owned())
}

/// One of them.
pub(crate) fn widget() -> Kind {
    kind("com.example", "v1", "Widget")
}

/// A kind that nothing static names. It reads what was stored in its other versions.
fn kind(group: &str, version: &str, name: &str) -> Kind {
    let plural = format!("{}s", name.to_lowercase());
    let names = Names {
        group: owned(group),
        version: owned(version),
        kind: owned(name),
        plural: owned(&plural),
        singular: owned(&name.to_lowercase()),
        short_names: vec![owned(&name.to_lowercase()[..2])],
        categories: vec![owned("things")],
    };
    let spec = json!({"type": "object", "properties": {"size": {"type": "integer"}, "color": {"type": "string"}}});
    let definition = json!({"type": "object", "description": format!("A {name} of {version}."),
        "properties": {"spec": spec}});
    let schema = Schema::own(format!("com.example.{version}.{name}"), &definition);
    let mut kind = Kind::new(names, Arc::new(Widgets), schema);
    kind.printer = Shared::Own(Arc::new(Sizes(vec!["Name".to_owned(), "Size".to_owned()])));
    kind.fields = Selectable::plain(vec![owned("spec.color")]);
    let api_version = kind.api_version();
    kind.conversion = Some(Conversion {
        group: kind.group.clone(),
        version: kind.version.clone(),
        kind: kind.kind.clone(),
        plural: kind.plural.clone(),
        to_storage: Shared::Static(&std::convert::identity),
        from_storage: Shared::Own(Arc::new(move |mut object: Value| {
            object["apiVersion"] = api_version.clone().into();
            object
        })),
        stored_field: str::to_owned,
    });
    kind
}

/// An administrator's client over TLS.
async fn over_tls(served: &Served) -> kube::Client {
    let file = kube::config::Kubeconfig::read_from(served.dir.path().join("admin")).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

fn path(version: &str) -> String {
    format!("/apis/example.com/{version}/namespaces/default/widgets")
}

async fn hashes(client: &kube::Client) -> Value {
    expect(get(client, "/openapi/v3").await, StatusCode::OK)["paths"].clone()
}

#[tokio::test]
async fn a_kind_is_served_and_served_no_longer() {
    let served = serve().await;
    let registry = &served.server().server().registry;
    let client = over_tls(&served).await;
    expect(get(&client, &path("v1")).await, StatusCode::NOT_FOUND);
    let before = hashes(&client).await;

    registry.publish(kind("example.com", "v1", "Widget")).await.unwrap();
    assert!(registry.publish(kind("example.com", "v1", "Widget")).await.is_err());
    let mut watch = Watch::open(&client, &format!("{}?watch=1", path("v1"))).await;
    let body = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"},
        "spec": {"color": "red", "unheard": 1}});
    let made = expect(post(&client, &path("v1"), &body).await, StatusCode::CREATED);
    assert_eq!(made["spec"], json!({"color": "red", "size": 1}));
    assert_eq!(made["metadata"]["generation"], 1);
    Watch::same(&watch.next().await, "ADDED", "w");
    assert_eq!(expect(get(&client, &format!("{}/w", path("v1"))).await, StatusCode::OK), made);
    let bad = json!({"metadata": {"name": "x"}, "spec": {"size": 10}});
    let refused = expect(post(&client, &path("v1"), &bad).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains("spec.size: Invalid value: 10"), "{refused}");
    for (selector, count) in [("spec.color%3Dred", 1), ("spec.color%3Dblue", 0)] {
        let listed = expect(get(&client, &format!("{}?fieldSelector={selector}", path("v1"))).await, StatusCode::OK);
        assert_eq!((listed["items"].as_array().unwrap().len(), &listed["kind"]), (count, &json!("WidgetList")));
    }
    let kubectl = Kubectl::of(&served);
    let printed = kubectl.run(&["get", "wi"], "").await;
    assert_eq!(printed.split_whitespace().collect::<Vec<_>>(), ["NAME", "SIZE", "w", "1"]);
    let explained = kubectl.run(&["explain", "widgets.spec.color"], "").await;
    assert!(explained.contains("FIELD: color <string>"), "{explained}");

    let list = expect(get(&client, "/apis/example.com/v1").await, StatusCode::OK);
    assert_eq!(
        (&list["resources"][0]["name"], &list["resources"][0]["shortNames"]),
        (&json!("widgets"), &json!(["wi"]))
    );
    let with = hashes(&client).await;
    let address = with["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = expect(get(&client, address).await, StatusCode::OK);
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["com.example.v1.Widget"]["properties"]["spec"]["properties"]["size"]["type"], "integer");
    assert!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
    // Nothing else changed, and says so.
    let mut others = with.clone();
    others.as_object_mut().unwrap().remove("apis/example.com/v1");
    assert_eq!(others, before);
    let whole = expect(get(&client, "/openapi/v2").await, StatusCode::OK);
    assert!(whole["definitions"]["com.example.v1.Widget"].is_object());

    assert!(registry.withdraw("example.com", "widgets").await);
    watch.end().await;
    expect(get(&client, &path("v1")).await, StatusCode::NOT_FOUND);
    expect(get(&client, "/apis/example.com/v1").await, StatusCode::NOT_FOUND);
    assert_eq!(hashes(&client).await, before);
    let whole = expect(get(&client, "/openapi/v2").await, StatusCode::OK);
    assert!(whole["definitions"]["com.example.v1.Widget"].is_null());
    assert!(!get(&client, "/metrics").await.1.to_string().contains("resource=\\\"widgets\\\""));
    assert!(registry.cache().resource("example.com", "widgets").is_none());
    assert!(!registry.withdraw("example.com", "widgets").await);
    assert!(!registry.withdraw("", "pods").await);
    expect(get(&client, "/api/v1/pods").await, StatusCode::OK);

    registry.publish(kind("example.com", "v2", "Widget")).await.unwrap();
    expect(get(&client, &path("v1")).await, StatusCode::NOT_FOUND);
    let mut again = Watch::open(&client, &format!("{}?watch=1", path("v2"))).await;
    let event = again.next().await;
    Watch::same(&event, "ADDED", "w");
    assert_eq!(event["object"]["apiVersion"], "example.com/v2");
    let kept = expect(get(&client, &format!("{}/w", path("v2"))).await, StatusCode::OK);
    assert_eq!((&kept["spec"], &kept["metadata"]["uid"]), (&made["spec"], &made["metadata"]["uid"]));
    let counted = get(&client, "/metrics").await.1.to_string();
    assert!(counted.contains("version=\\\"v2\\\",resource=\\\"widgets\\\""), "{counted}");
}

/// Turns of the one who publishes, and clients who ask meanwhile.
const TURNS: usize = 60;
const CLIENTS: usize = 4;

/// What an answer says of the state it comes from: none, or all of it. Panics at a mixture.
fn whole(version: &str, asked: &str, (code, body): (u16, Value)) {
    if code == 404 {
        return;
    }
    assert_eq!(code, 200, "{asked}: {body}");
    let api_version = format!("example.com/{version}");
    match asked {
        "list" => {
            assert_eq!(body["apiVersion"], api_version.as_str());
            let items = body["items"].as_array().unwrap();
            let kept: Vec<&Value> = items.iter().filter(|item| item["metadata"]["name"] == "kept").collect();
            assert_eq!(kept.len(), 1, "{body}");
            assert!(items.iter().all(|item| item["apiVersion"] == api_version.as_str()), "{body}");
        }
        "object" => assert_eq!(body["apiVersion"], api_version.as_str()),
        "group" => {
            let versions = body["versions"].as_array().unwrap();
            assert_eq!((versions.len(), &body["preferredVersion"]), (1, &versions[0]), "{body}");
        }
        "resources" => {
            let names: Vec<&Value> = body["resources"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
            assert_eq!(names, ["widgets"]);
        }
        _ => {
            assert!(body["paths"][format!("/apis/{api_version}/widgets")].is_object());
            assert!(body["components"]["schemas"][format!("com.example.{version}.Widget")].is_object());
        }
    }
}

async fn ask_on(client: kube::Client, version: &str, done: &AtomicBool) -> Vec<String> {
    let mut stored = Vec::new();
    let base = format!("/apis/example.com/{version}");
    for turn in 0.. {
        if done.load(Ordering::SeqCst) {
            break;
        }
        for (asked, path) in [
            ("list", path(version)),
            ("object", format!("{}/kept", path(version))),
            ("group", "/apis/example.com".to_owned()),
            ("resources", base.clone()),
            ("document", format!("/openapi/v3{base}")),
        ] {
            whole(version, asked, get(&client, &path).await);
        }
        let name = format!("{version}-{}-{turn}", stored.len());
        match post(&client, &path(version), &json!({"metadata": {"name": &name}})).await {
            (201, made) => {
                assert_eq!(made["apiVersion"], format!("example.com/{version}"));
                stored.push(name);
            }
            (409, _) => {}
            other => assert_eq!(other.0, 404, "{}", other.1),
        }
    }
    stored
}

/// Clients that ask while kinds come and go get all of a state or nothing of it, and what was stored stays stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn answers_come_from_one_state() {
    let served = serve().await;
    let server = served.server().server().clone();
    let client = over_tls(&served).await;
    server.registry.publish(kind("example.com", "v1", "Widget")).await.unwrap();
    expect(post(&client, &path("v1"), &json!({"metadata": {"name": "kept"}})).await, StatusCode::CREATED);
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for place in 0..CLIENTS {
        let (client, done) = (over_tls(&served).await, done.clone());
        let version = ["v1", "v2"][place % 2];
        clients.push(tokio::spawn(async move { ask_on(client, version, &done).await }));
    }
    // Another one changes other kinds at the same time: neither undoes what the other did.
    let other = {
        let (server, client) = (server.clone(), client.clone());
        tokio::spawn(async move {
            for _ in 0..TURNS {
                server.registry.publish(kind("example.org", "v3", "Gadget")).await.unwrap();
                expect(get(&client, "/apis/example.org/v3/gadgets").await, StatusCode::OK);
                assert!(server.registry.withdraw("example.org", "gadgets").await);
                expect(get(&client, "/apis/example.org/v3/gadgets").await, StatusCode::NOT_FOUND);
            }
        })
    };
    for turn in 0..TURNS {
        let (old, new) = [("v1", "v2"), ("v2", "v1")][turn % 2];
        let mut watch = Watch::open(&client, &format!("{}?watch=1&resourceVersion=0", path(old))).await;
        assert!(server.registry.withdraw("example.com", "widgets").await);
        expect(get(&client, &path(old)).await, StatusCode::NOT_FOUND);
        while watch.more().await {}
        server.registry.publish(kind("example.com", new, "Widget")).await.unwrap();
        expect(get(&client, &format!("{}/kept", path(new))).await, StatusCode::OK);
    }
    done.store(true, Ordering::SeqCst);
    other.await.unwrap();
    let mut stored = Vec::new();
    for client in clients {
        stored.extend(client.await.unwrap());
    }
    let listed = expect(get(&client, &path("v1")).await, StatusCode::OK);
    let names: Vec<&str> =
        listed["items"].as_array().unwrap().iter().map(|i| str_at(i, &["metadata", "name"])).collect();
    let lost: Vec<&String> = stored.iter().filter(|name| !names.contains(&name.as_str())).collect();
    assert!(lost.is_empty() && !stored.is_empty(), "{} stored, lost: {lost:?}", stored.len());
    let panics = get(&client, "/metrics").await.1.to_string();
    assert!(panics.contains("apiserver_handler_panics_total 0"), "{panics}");
}

/// Whoever stops waiting for a change leaves either state behind, and the next one is made of it.
#[tokio::test]
async fn a_change_that_nobody_waits_for_is_whole() {
    let (server, client) = start().await;
    let registry = &server.server().registry;
    for polls in 0..6 {
        let mut publishing = Box::pin(registry.publish(kind("example.com", "v1", "Widget")));
        for _ in 0..polls {
            if futures::poll!(&mut publishing).is_ready() {
                break;
            }
            // The caches go on meanwhile.
            registry.fresh().await.unwrap();
        }
        drop(publishing);
        let is_there = registry.served().scheme.by_gvr("example.com", "v1", "widgets").is_some();
        let code = if is_there { StatusCode::OK } else { StatusCode::NOT_FOUND };
        expect(get(&client, &path("v1")).await, code);
        let mut withdrawing = Box::pin(registry.withdraw("example.com", "widgets"));
        let _ = futures::poll!(&mut withdrawing);
        drop(withdrawing);
        expect(get(&client, &path("v1")).await, StatusCode::NOT_FOUND);
    }
    registry.publish(kind("example.com", "v2", "Widget")).await.unwrap();
    expect(post(&client, &path("v2"), &json!({"metadata": {"name": "w"}})).await, StatusCode::CREATED);
    let listed = expect(get(&client, &path("v2")).await, StatusCode::OK);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}
