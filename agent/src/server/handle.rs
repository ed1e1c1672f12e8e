//! One request: may it pass, what is it, who answers.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::auth::Peer;
use super::reply::{self, Body};
use super::route::{self, NoRoute, Route, Target, query};
use super::{Shared, logs, metrics, session, stats};

/// `/run` has no session; its command may not go on forever.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// Answers one request of a connection whose certificate names `peer`.
pub(super) async fn handle(shared: Arc<Shared>, peer: Option<Peer>, request: Request<Incoming>) -> Response<Body> {
    if let Err(refusal) = shared.auth.check(peer.as_ref(), &request).await {
        return reply::error(refusal.status, refusal.message);
    }
    let found = match route::route(request.method().as_str(), request.uri().path()) {
        Ok(found) => found,
        Err(NoRoute::NotFound) => return reply::error(StatusCode::NOT_FOUND, "404 page not found"),
        Err(NoRoute::MethodNotAllowed) => {
            return reply::error(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
        }
    };
    match found {
        Route::Healthz => reply::text(StatusCode::OK, "ok"),
        Route::Pods => pods(&shared),
        Route::RunningPods => running_pods(&shared),
        Route::ContainerLogs(target) => logs::container_logs(shared, target, request).await,
        Route::NodeLogs(path) => logs::node_logs(shared, path).await,
        Route::Exec(target) => session::exec(shared, target, request).await,
        Route::Attach(target) => session::attach(shared, target, request).await,
        Route::PortForward(target) => session::port_forward(shared, target, request).await,
        Route::Run(target) => run(&shared, &target, request.uri().query().unwrap_or_default()).await,
        Route::StatsSummary => match stats::collect(&shared.state, &shared.stats).await {
            Ok(summary) => reply::json(&stats::summary_json(&summary)),
            Err(message) => reply::error(StatusCode::INTERNAL_SERVER_ERROR, message),
        },
        Route::MetricsResource => {
            let collected = stats::collect(&shared.state, &shared.stats).await;
            reply::metrics(metrics::resource(collected.as_ref().ok()))
        }
        Route::MetricsCadvisor => {
            let collected = stats::collect(&shared.state, &shared.stats).await;
            reply::metrics(metrics::cadvisor(collected.as_ref().ok()))
        }
        Route::MetricsProbes => reply::metrics(metrics::probes(&shared.state.probes.counts())),
        Route::Metrics => {
            let panics =
                metrics::Panics { tasks: shared.state.restarts.counts(), workers: shared.state.workers.panics() };
            let (name, pods) = (&shared.state.node_name, shared.state.cache.all());
            reply::metrics(metrics::kubelet(name, &pods, stats::own_rss(), &panics))
        }
        Route::Configz => reply::json(&*shared.state.configz),
    }
}

fn pods(shared: &Shared) -> Response<Body> {
    let pods = shared.state.view.pods();
    let items: Vec<&k8s_openapi::api::core::v1::Pod> = pods.iter().map(|pod| &**pod).collect();
    reply::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// Pods as the runtime knows them: names and containers, no more.
fn running_pods(shared: &Shared) -> Response<Body> {
    let running = shared.state.cache.all();
    let items = running.iter().filter(|pod| pod.is_running()).map(|pod| {
        let containers = pod.containers.iter().filter(|c| c.is_running());
        let containers: Vec<_> =
            containers.map(|c| json!({"name": c.name(), "image": c.status.image, "resources": {}})).collect();
        json!({
            "metadata": {"name": &*pod.name.name, "namespace": &*pod.name.namespace, "uid": pod.uid.as_str()},
            "spec": {"containers": containers}, "status": {},
        })
    });
    let items: Vec<_> = items.collect();
    reply::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// `/run`: a command to its end, its output as the answer.
async fn run(shared: &Arc<Shared>, target: &Target, text: &str) -> Response<Body> {
    let (_, container) = match session::find_container(shared, target) {
        Ok(found) => found,
        Err(refused) => return refused.into(),
    };
    let commands = query(text).into_iter().filter(|(name, _)| name == "cmd" || name == "command");
    let mut command: Vec<String> = commands.map(|(_, value)| value).collect();
    if let [line] = command.as_slice() {
        command = line.split_whitespace().map(str::to_owned).collect();
    }
    match shared.state.runtime.exec_sync(&container, &command, RUN_TIMEOUT).await {
        Ok(output) if output.exit_code == 0 => {
            let mut body = output.stdout;
            body.extend(output.stderr);
            reply::text(StatusCode::OK, body)
        }
        Ok(output) => {
            let message = format!(
                "command '{}' exited with {}: {}{}",
                command.join(" "),
                output.exit_code,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            reply::error(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
        Err(error) => reply::error(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}
