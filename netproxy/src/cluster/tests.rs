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
    let mut publisher = Publisher::default();
    let (one, two) = (publisher.subscribe(), publisher.subscribe());
    let mut services = publish_services(publisher);
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
    let mut publisher = Publisher::default();
    let subscription = publisher.subscribe();
    let mut services = publish_services(publisher.clone());
    let mut slices = publish_slices(publisher.clone());
    let mut namespaces = publish_namespaces(publisher);
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
    let mut publisher = Publisher::default();
    let subscription = publisher.subscribe();
    let mut slices = publish_slices(publisher);
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
    let mut publisher = Publisher::default();
    let subscription = publisher.subscribe();
    let mut node = publish_node(publisher);
    node(Change::Listed(BTreeSet::new()));
    assert_eq!(take(&subscription).node, None, "not there yet");
    node(Change::Applied(name("here"), Node::default()));
    node(Change::Listed([name("here")].into()));
    assert!(take(&subscription).node.unwrap().is_some());
    node(Change::Listed(BTreeSet::new()));
    assert_eq!(take(&subscription).node, Some(None));
}

#[tokio::test]
async fn a_subscriber_waits_for_a_change() {
    let mut publisher = Publisher::default();
    let subscription = publisher.subscribe();
    let waiting = tokio::spawn(async move { subscription.next().await });
    publisher.publish(|batch| batch.services_listed = true);
    assert!(waiting.await.unwrap().services_listed);
}
