//! Keeps the rules of host ports in the kernel for as long as the node runs.
//! Plugins write them and are gone; whoever reloads a firewall flushes them.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::attach::restore_host_ports;
use super::conflist::CniConfig;

/// How often to compare the rules with the leases: as often as the table of Services is looked for.
pub const CHECK_PERIOD: Duration = Duration::from_secs(30);

/// Makes the rules what the leases say, now and every `period`, until `token` is cancelled. Rules
/// stay when it returns.
pub async fn keep_host_ports(config: CniConfig, period: Duration, token: CancellationToken) {
    let mut known = false;
    loop {
        let looked = {
            let config = config.clone();
            tokio::task::spawn_blocking(move || restore_host_ports(&config)).await
        };
        match looked {
            Ok(Ok(restored)) => {
                // It may also have been ahead of a plugin that has its lease and no rules yet.
                if restored && known {
                    tracing::info!("the nftables rules of host ports were not as the leases say, made them so");
                }
                known = true;
            }
            Ok(Err(error)) => tracing::warn!(%error, "the host ports of running pods could not be looked at"),
            Err(error) => tracing::warn!(%error, "looking at host ports failed"),
        }
        if token.run_until_cancelled(tokio::time::sleep(period)).await.is_none() {
            return;
        }
    }
}
