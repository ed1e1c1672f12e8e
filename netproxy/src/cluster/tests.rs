//! What subscribers see of lists, changes, and lists again.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "ns".into(), name: name.into() }
}

fn slice_of(service: &str) -> EndpointSlice {
    serde_json::from_value(json!({"metadata": {"labels": {"kubernetes.io/service-name": service}}})).unwrap()
}

fn take(subscription: &Subscription) -> Batch {
    std::mem::take(&mut *subscription.feed.lock())
}

#[test]
fn only_the_last_state_of_an_object_waits() {
    let publisher = Publisher::default();
    let (one, two) = (publisher.subscribe(), publisher.subscribe());
    let mut services = publish_services((publisher, Arc::default()));
    services(Change::Applied(name("a"), Service::default()));
    services(Change::Deleted(name("a")));
    services(Change::Applied(name("b"), Service::default()));
    let seen = take(&one);
    assert_eq!(
        seen.services.iter().map(|(name, s)| (name.to_string(), s.is_some())).collect::<Vec<_>>(),
        [("ns/a".to_owned(), false), ("ns/b".to_owned(), true)]
    );
    assert_eq!(take(&one), Batch::default(), "each change once");
    assert_eq!(take(&two), seen, "and to everybody");
}

#[test]
fn a_list_takes_away_what_it_does_not_name() {
    let publisher = Publisher::default();
    let subscription = publisher.subscribe();
    let mut services = publish_services((publisher.clone(), Arc::default()));
    let mut slices = publish_slices((publisher.clone(), Arc::default()));
    let mut namespaces = publish_namespaces((publisher, Arc::default()));
    for object in ["gone", "stays", "unreadable"] {
        services(Change::Applied(name(object), Service::default()));
        slices(Change::Applied(name(object), slice_of("web")));
        namespaces(Change::Applied(name(object), Namespace::default()));
    }
    take(&subscription);
    // What cannot be read is still listed, and stays as it was.
    let listed = || BTreeSet::from([name("stays"), name("unreadable")]);
    services(Change::Listed(listed()));
    slices(Change::Listed(listed()));
    namespaces(Change::Listed(listed()));
    let seen = take(&subscription);
    assert_eq!(seen.services, [(name("gone"), None)].into());
    assert_eq!(seen.slices, [((name("web"), "gone".into()), None)].into());
    assert_eq!(seen.namespaces, [("gone".into(), false), ("stays".into(), true), ("unreadable".into(), true)].into());
    assert!(seen.services_listed && seen.slices_listed && seen.namespaces_listed);
}

#[test]
fn a_slice_leaves_the_service_that_it_no_longer_names() {
    let publisher = Publisher::default();
    let subscription = publisher.subscribe();
    let mut slices = publish_slices((publisher, Arc::default()));
    slices(Change::Applied(name("s"), slice_of("web")));
    take(&subscription);
    slices(Change::Applied(name("s"), slice_of("other")));
    let seen = take(&subscription);
    let of = |service: &str| seen.slices[&(name(service), "s".into())].is_some();
    assert!(!of("web") && of("other"));
    slices(Change::Applied(name("s"), EndpointSlice::default()));
    assert_eq!(take(&subscription).slices, [((name("other"), "s".into()), None)].into());
    slices(Change::Deleted(name("s")));
    assert_eq!(take(&subscription), Batch::default(), "it was nobody's");
}

#[test]
fn the_node_is_gone_when_a_list_has_none() {
    let publisher = Publisher::default();
    let subscription = publisher.subscribe();
    let mut node = publish_node((publisher, Arc::default()));
    node(Change::Listed(BTreeSet::new()));
    assert_eq!(take(&subscription).node, None, "not there yet");
    node(Change::Applied(name("here"), Node::default()));
    node(Change::Listed([name("here")].into()));
    assert!(take(&subscription).node.unwrap().is_some());
    node(Change::Listed(BTreeSet::new()));
    assert_eq!(take(&subscription).node, Some(None));
}

#[test]
fn networks_of_services_come_and_go() {
    let publisher = Publisher::default();
    let subscription = publisher.subscribe();
    let mut ranges = publish_service_ranges((publisher, Arc::default()));
    let range = |cidrs: &[&str]| serde_json::from_value(json!({"spec": {"cidrs": cidrs}})).unwrap();
    let seen = || take(&subscription).service_ranges.map(|all| all.iter().map(Cidr4::to_string).collect::<Vec<_>>());
    ranges(Change::Applied(name("kubernetes"), range(&["10.43.0.0/16", "fd00::/108"])));
    ranges(Change::Applied(name("added"), range(&["10.99.0.0/24"])));
    assert_eq!(seen().unwrap(), ["10.43.0.0/16", "10.99.0.0/24"]);
    ranges(Change::Applied(name("added"), range(&["10.99.0.0/24"])));
    assert_eq!(seen(), None, "its status changed");
    ranges(Change::Listed([name("kubernetes")].into()));
    assert_eq!(seen().unwrap(), ["10.43.0.0/16"]);
    ranges(Change::Listed([name("kubernetes")].into()));
    assert_eq!(seen().unwrap(), ["10.43.0.0/16"], "for one who came since");
    ranges(Change::Deleted(name("kubernetes")));
    assert_eq!(seen().unwrap(), [] as [&str; 0]);
}

/// An API with these Services, which counts how often they are listed.
fn api(services: &Arc<Mutex<Vec<&'static str>>>, lists: &Arc<Mutex<usize>>) -> Client {
    let (services, lists) = (Arc::clone(services), Arc::clone(lists));
    let answer = move |uri: axum::http::Uri| async move {
        if uri.query().is_some_and(|query| query.contains("watch=true")) {
            std::future::pending::<()>().await;
        }
        let mut items = Vec::new();
        if uri.path() == "/api/v1/services" {
            *lock(&lists) += 1;
            items = lock(&services).iter().map(|name| json!({"metadata": {"namespace": "ns", "name": name}})).collect();
        }
        axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}))
    };
    Client::new(axum::Router::new().fallback(answer), "default")
}

/// What a subscriber knows once everything was listed for it.
async fn all(subscription: &Subscription) -> BTreeMap<ServiceName, bool> {
    let mut seen = BTreeMap::new();
    loop {
        let batch = subscription.next().await;
        seen.extend(batch.services.into_iter().map(|(name, service)| (name, service.is_some())));
        if batch.services_listed {
            return seen;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_comes_later_sees_everything_and_others_what_is_gone() {
    let (services, lists) = (Arc::new(Mutex::new(vec!["a", "b"])), Arc::default());
    let cluster = Cluster::new(api(&services, &lists), "node", Metrics::default());
    let early = cluster.subscribe();
    let token = CancellationToken::new();
    let running = tokio::spawn({
        let (cluster, token) = (cluster.clone(), token.clone());
        async move { cluster.run(token).await }
    });
    assert_eq!(all(&early).await, [(name("a"), true), (name("b"), true)].into());
    assert_eq!(*lock(&lists), 1, "those who are there at the start share a list");
    *lock(&services) = vec!["b", "c"];
    let late = cluster.subscribe();
    assert_eq!(all(&late).await.into_iter().filter(|(_, there)| *there).count(), 2);
    assert_eq!(all(&early).await, [(name("a"), false), (name("b"), true), (name("c"), true)].into());
    drop(early);
    // A run that ended by itself goes on where it was.
    token.cancel();
    running.await.unwrap();
    *lock(&services) = vec!["c"];
    let (cluster, token) = (cluster.clone(), CancellationToken::new());
    let running = tokio::spawn(async move { cluster.run(token).await });
    assert_eq!(all(&late).await, [(name("b"), false), (name("c"), true)].into());
    running.abort();
}

#[test]
fn nothing_is_kept_for_one_who_left() {
    let publisher = Publisher::default();
    let (one, two) = (publisher.subscribe(), publisher.subscribe());
    drop(one);
    publisher.publish(|batch| batch.services_listed = true);
    assert_eq!((lock(&publisher.feeds).len(), take(&two).services_listed), (1, true));
}

#[tokio::test]
async fn a_subscriber_waits_for_a_change() {
    let publisher = Publisher::default();
    let subscription = publisher.subscribe();
    let waiting = tokio::spawn(async move { subscription.next().await });
    publisher.publish(|batch| batch.services_listed = true);
    assert!(waiting.await.unwrap().services_listed);
}
