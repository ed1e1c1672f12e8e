//! Rules through the `nft` program: slower by its own start and listing, but an independent
//! reading of the same objects. Reads back through the `nftables` crate.
//!
//! Every transaction replaces the whole table: nft 1.0.6 cannot change a map it did not declare in
//! the same run when the map's type is given by expressions. So counters and affinity start anew
//! at each change; this backend is for checking, not for service.

use std::io::Write as _;
use std::process::{Command, Stdio};

use nftables::helper::{DEFAULT_NFT, get_current_ruleset_raw};

use super::{Generation, Listing, NftBackend, NftError};
use crate::nft::apply::apply;
use crate::nft::diff::diff;
use crate::nft::object::Table;
use crate::nft::render::transaction_text;
use crate::nft::transaction::Transaction;
use crate::nft::{TABLE, TableName};

/// One table through the `nft` program on PATH. Works in the network namespace of the calling thread.
#[derive(Debug)]
pub struct CliBackend {
    name: TableName,
    /// What was written; `None` when the next transaction starts from nothing.
    table: Option<Table>,
}

impl Default for CliBackend {
    /// For the table of Services.
    fn default() -> Self {
        Self::for_table(TABLE)
    }
}

impl CliBackend {
    /// For another table of ours.
    #[must_use]
    pub fn for_table(name: TableName) -> Self {
        Self { name, table: None }
    }

    /// The text that makes the table what it is after `tx`, and that table.
    fn plan(&self, tx: &Transaction) -> Result<(String, Option<Table>), NftError> {
        let mut table = self.table.clone();
        apply(&mut table, tx).map_err(|e| NftError::Program(e.to_string()))?;
        let mut whole = Transaction::delete_table();
        if let Some(table) = &table {
            whole.ops.extend(diff(None, table).ops);
        }
        Ok((transaction_text(self.name, &whole), table))
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

/// A table as `nft -j` tells it, as JSON text; for comparing two namespaces.
///
/// # Errors
/// [`NftError::Program`] when nft cannot be run or fails.
pub fn list_json(table: TableName) -> Result<String, NftError> {
    get_current_ruleset_raw(DEFAULT_NFT, ["list", "table", "ip", table.as_str()])
        .map_err(|e| NftError::Program(e.to_string()))
}

impl NftBackend for CliBackend {
    fn run(&mut self, tx: &Transaction, _since: Option<Generation>) -> Result<(), NftError> {
        if tx.ops.is_empty() {
            return Ok(());
        }
        let (text, table) = self.plan(tx)?;
        Self::nft(&["-f", "-"], &text)?;
        self.table = table;
        Ok(())
    }

    fn check(&mut self, tx: &Transaction) -> Result<(), NftError> {
        let (text, _) = self.plan(tx)?;
        Self::nft(&["-c", "-f", "-"], &text)
    }

    fn exists(&mut self) -> Result<bool, NftError> {
        let there = list_json(self.name).is_ok();
        if !there {
            self.table = None;
        }
        Ok(there)
    }

    /// What this backend wrote; whatever else is there goes with the next transaction.
    fn list(&mut self) -> Result<Listing, NftError> {
        Ok(Listing { table: self.table.as_ref().map(Table::observe), generation: None })
    }
}
