//! Rules through the `nft` program: slower by its own start and listing, but an independent
//! reading of the same transactions. Reads back through the `nftables` crate.

use std::io::Write as _;
use std::process::{Command, Stdio};

use nftables::helper::{DEFAULT_NFT, get_current_ruleset_raw};

use super::netlink::NetlinkBackend;
use super::{Generation, Listing, NftBackend, NftError};
use crate::nft::TABLE;
use crate::nft::render::transaction_text;
use crate::nft::transaction::Transaction;

/// The `nft` program on PATH.
#[derive(Debug)]
pub struct CliBackend {
    reader: NetlinkBackend,
}

impl CliBackend {
    /// Works in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NftError`] when there is no netfilter socket to read back with.
    pub fn new() -> Result<Self, NftError> {
        Ok(Self { reader: NetlinkBackend::new()? })
    }

    fn nft(args: &[&str], input: &str) -> Result<(), NftError> {
        let failed = |e: std::io::Error| NftError::Program(e.to_string());
        let mut child = Command::new("nft")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // When nft stops reading early its own message says more than the broken pipe.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let mut message = String::from_utf8_lossy(&output.stderr).into_owned();
        if let Some((cut, _)) = message.char_indices().nth(2000) {
            message.truncate(cut);
        }
        Err(NftError::Program(message))
    }
}

/// Our table as `nft -j` tells it, as JSON text; for comparing two namespaces.
///
/// # Errors
/// [`NftError::Program`] when nft cannot be run or fails.
pub fn list_json() -> Result<String, NftError> {
    get_current_ruleset_raw(DEFAULT_NFT, ["list", "table", "ip", TABLE]).map_err(|e| NftError::Program(e.to_string()))
}

impl NftBackend for CliBackend {
    fn run(&mut self, tx: &Transaction, _since: Option<Generation>) -> Result<(), NftError> {
        if tx.ops.is_empty() {
            return Ok(());
        }
        Self::nft(&["-f", "-"], &transaction_text(tx))
    }

    fn check(&mut self, tx: &Transaction) -> Result<(), NftError> {
        Self::nft(&["-c", "-f", "-"], &transaction_text(tx))
    }

    fn list(&mut self) -> Result<Listing, NftError> {
        self.reader.list()
    }
}
