//! postStart and preStop hooks.

use std::time::Duration;

use cri::{ContainerId, CriError, RuntimeService};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::probe::{http, target};

/// How a hook failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HookError {
    #[error("Exec lifecycle hook ({command:?}) failed - error: command exited with {code}, message: {output:?}")]
    Exit { command: Vec<String>, code: i32, output: String },
    #[error("Exec lifecycle hook ({command:?}) failed - error: {source}")]
    Exec {
        command: Vec<String>,
        #[source]
        source: CriError,
    },
    #[error("HTTP lifecycle hook failed - error: {0}")]
    Http(String),
    #[error("invalid handler: {0}")]
    Invalid(String),
    #[error("not done within {0:?}")]
    Timeout(Duration),
}

/// Runs a hook, for at most `limit`.
pub(super) async fn run(
    runtime: &dyn RuntimeService,
    hook: &LifecycleHandler,
    container: &Container,
    id: &ContainerId,
    pod_host: &str,
    limit: Duration,
) -> Result<(), HookError> {
    let work = perform(runtime, hook, container, id, pod_host, limit);
    tokio::time::timeout(limit, work).await.unwrap_or(Err(HookError::Timeout(limit)))
}

async fn perform(
    runtime: &dyn RuntimeService,
    hook: &LifecycleHandler,
    container: &Container,
    id: &ContainerId,
    pod_host: &str,
    limit: Duration,
) -> Result<(), HookError> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match runtime.exec_sync(id, &command, limit).await {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                let output_text = String::from_utf8_lossy(&text[..text.len().min(1024)]).into_owned();
                Err(HookError::Exit { command, code: output.exit_code, output: output_text })
            }
            Err(source) => Err(HookError::Exec { command, source }),
        };
    }
    if let Some(get) = &hook.http_get {
        let target = target::resolve_http(get, container, pod_host).map_err(HookError::Invalid)?;
        return http::send(&target, limit).await.map_err(HookError::Http);
    }
    if let Some(sleep) = &hook.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    if hook.tcp_socket.is_some() {
        // The API takes it for old objects' sake; upstream fails such a hook, too.
        return Err(HookError::Invalid("tcpSocket is not supported".to_owned()));
    }
    Err(HookError::Invalid("neither exec, httpGet nor sleep".to_owned()))
}
