//! Plugins that wait for what the caches do not show yet.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use tokio::time::Instant;

/// A cluster that shows an object only once it was waited for, and after so many looks more.
struct Late {
    objects: Objects,
    plural: &'static str,
    looks: AtomicUsize,
    waits: AtomicUsize,
}

impl Late {
    fn new(plural: &'static str, looks: usize) -> Self {
        let objects = Objects::cluster();
        Self { objects, plural, looks: looks.into(), waits: 0.into() }
    }

    fn hidden(&self, plural: &str) -> bool {
        let later = |looks: usize| looks.checked_sub(1);
        plural == self.plural
            && (self.waits.load(Ordering::SeqCst) == 0
                || self.looks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later).is_ok())
    }
}

impl View for Late {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        (!self.hidden(plural)).then(|| self.objects.get(group, plural, namespace, name)).flatten()
    }

    fn each_in(&self, group: &str, plural: &str, namespace: &str, visit: &mut dyn FnMut(&Value)) {
        self.objects.each_in(group, plural, namespace, visit);
    }

    fn may(&self, user: &UserInfo, verb: &str, group: &str, resource: (&str, &str), name: &str) -> bool {
        self.objects.may(user, verb, group, resource, name)
    }

    fn is_own_audience(&self, audience: &str) -> bool {
        self.objects.is_own_audience(audience)
    }

    fn suffix(&self) -> String {
        self.objects.suffix()
    }

    fn fresh(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        self.waits.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_was_made_a_moment_ago_is_waited_for() {
    let mut map = json!({"metadata": {"name": "m"}});
    for operation in [Operation::Create, Operation::Update] {
        let late = Late::new("namespaces", 0);
        ask(&Asked { operation, ..creating("configmaps") }, &mut map, &late).await.unwrap();
        assert_eq!(late.waits.into_inner(), 1);
        let gone = Asked { operation, namespace: "nowhere", ..creating("configmaps") };
        let error = ask(&gone, &mut map, &Late::new("namespaces", 0)).await.unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (404, "namespaces \"nowhere\" not found"));
    }
    let ending = Asked { namespace: "ending", ..creating("configmaps") };
    assert_eq!(ask(&ending, &mut map, &Late::new("namespaces", 0)).await.unwrap_err().code(), 403);
    let seen = Late::new("nothing", 0);
    ask(&creating("configmaps"), &mut map, &seen).await.unwrap();
    assert_eq!(seen.waits.into_inner(), 0, "who sees it does not wait");
}

#[tokio::test(start_paused = true)]
async fn an_account_that_a_controller_makes_is_waited_for() {
    let late = Late::new("serviceaccounts", 5);
    let mut waits = pod();
    ask(&creating("pods"), &mut waits, &late).await.unwrap();
    assert_eq!(waits["spec"]["volumes"][0]["name"], "kube-api-access-xxxxx");
    // It does not come.
    let never = Late::new("serviceaccounts", usize::MAX);
    let error = ask(&creating("pods"), &mut pod(), &never).await.unwrap_err().to_string();
    let why = "error looking up service account default/default: serviceaccount \"default\" not found";
    assert_eq!(error, format!("pods \"p\" is forbidden: {why}"));
    // Other accounts are somebody's to make: they are there, or they are not.
    let mut named = pod();
    named["spec"]["serviceAccountName"] = json!("robot");
    let with_robot = || {
        let mut late = Late::new("serviceaccounts", 0);
        late.objects =
            Objects::cluster().with("serviceaccounts", json!({"metadata": {"name": "robot", "namespace": "default"}}));
        late
    };
    ask(&creating("pods"), &mut named.clone(), &with_robot()).await.unwrap();
    let absent = Late { looks: 1.into(), ..with_robot() };
    assert_eq!(ask(&creating("pods"), &mut named, &absent).await.unwrap_err().code(), 403);
}

/// The pods of a namespace that goes meanwhile do not wait for an account that nobody makes there.
#[tokio::test(start_paused = true)]
async fn nobody_waits_in_a_namespace_that_is_gone() {
    let pods = builtin().by_gvr("", "v1", "pods").unwrap();
    let user = UserInfo::new("jane", Vec::<String>::new());
    let request = Request {
        operation: Operation::Create,
        kind: pods,
        served: pods,
        body: pods,
        subresource: "",
        namespace: "gone",
        name: "p",
        user: &user,
        old: None,
        dry_run: false,
        again: false,
        options: Options::None,
        memory: &Memory::default(),
    };
    let mut pod = pod();
    let (objects, began) = (Objects::cluster(), Instant::now());
    let answer = match service_account::ServiceAccount.mutate(&request, Some(&mut pod), &objects) {
        Answer::Now(answer) => answer,
        Answer::Later(answer) => answer.await,
    };
    assert!(matches!(answer, Err(Refusal::Forbidden { .. })));
    assert_eq!(began.elapsed(), std::time::Duration::ZERO);
}
