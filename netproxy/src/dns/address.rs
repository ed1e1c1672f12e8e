//! Brings the cluster DNS's address to this node, so that questions never
//! leave it. The kernels we run on need not have dummy links, so the address
//! sits on the pods' bridge, as a /32 that nothing else is reached through.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures::TryStreamExt;
use rtnetlink::Handle;
use tokio_util::sync::CancellationToken;

use super::DnsError;

/// Pause between two looks for a link that is made meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Adds `address` to `link`, as soon as the link is there; an address that is
/// there already stays. Returns early when `token` is cancelled.
pub async fn bring(address: Ipv4Addr, link: &str, token: &CancellationToken) -> Result<(), DnsError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(DnsError::Socket)?;
    let connection = tokio::spawn(connection);
    let index = loop {
        if let Some(index) = index_of(&handle, link).await {
            break index;
        }
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    };
    let added = handle.address().add(index, IpAddr::V4(address), 32).execute().await;
    connection.abort();
    match added {
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::EEXIST => Ok(()),
        Err(source) => Err(DnsError::Address { address, link: link.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

async fn index_of(handle: &Handle, name: &str) -> Option<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    links.try_next().await.ok().flatten().map(|link| link.header.index)
}
