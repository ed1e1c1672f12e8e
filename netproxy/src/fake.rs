//! An in-memory nftables: keeps our table, applies transactions with the kernel's rules about
//! references and duplicates, and fails when told to. For tests here and in dependents.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backend::{Generation, Listing, NftBackend, NftError};
use crate::nft::apply::{ApplyError, apply};
use crate::nft::object::Table;
use crate::nft::transaction::Transaction;

#[derive(Debug, Default)]
struct State {
    table: Option<Table>,
    generation: u32,
    transactions: Vec<Transaction>,
    failures: Vec<NftError>,
    /// Whether somebody changes another table between any two looks.
    restless: bool,
    lists: usize,
}

/// A shared in-memory kernel; clones see the same table.
#[derive(Debug, Clone, Default)]
pub struct FakeNft {
    state: Arc<Mutex<State>>,
}

impl FakeNft {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table as it is now.
    #[must_use]
    pub fn table(&self) -> Option<Table> {
        self.lock().table.clone()
    }

    /// Puts a table there behind the proxy's back.
    pub fn set_table(&self, table: Option<Table>) {
        let mut state = self.lock();
        state.table = table;
        state.generation += 1;
    }

    /// Makes the next call of `run` fail; several failures queue up.
    pub fn fail_next(&self, error: NftError) {
        self.lock().failures.push(error);
    }

    /// Lets others change tables of theirs all the time, or stop it.
    pub fn restless(&self, restless: bool) {
        self.lock().restless = restless;
    }

    /// How often the table was read.
    #[must_use]
    pub fn lists(&self) -> usize {
        self.lock().lists
    }

    /// The transactions performed so far.
    #[must_use]
    pub fn transactions(&self) -> Vec<Transaction> {
        self.lock().transactions.clone()
    }
}

impl NftBackend for FakeNft {
    fn run(&mut self, tx: &Transaction, since: Option<Generation>) -> Result<(), NftError> {
        let mut state = self.lock();
        if !state.failures.is_empty() {
            return Err(state.failures.remove(0));
        }
        if since.is_some_and(|since| since.0 != state.generation) {
            return Err(NftError::Changed);
        }
        let mut table = state.table.clone();
        apply(&mut table, tx).map_err(|e| {
            let errno = match e {
                ApplyError::NotFound(_) => libc::ENOENT,
                ApplyError::Exists(_) => libc::EEXIST,
                ApplyError::Busy(_) => libc::EBUSY,
            };
            NftError::Refused { op: e.to_string(), source: std::io::Error::from_raw_os_error(errno) }
        })?;
        state.table = table;
        state.generation += 1;
        state.transactions.push(tx.clone());
        Ok(())
    }

    fn check(&mut self, tx: &Transaction) -> Result<(), NftError> {
        let mut table = self.table();
        apply(&mut table, tx).map_err(|e| NftError::Program(e.to_string()))
    }

    fn exists(&mut self) -> Result<bool, NftError> {
        Ok(self.lock().table.is_some())
    }

    fn list(&mut self) -> Result<Listing, NftError> {
        let mut state = self.lock();
        state.lists += 1;
        let generation = Some(Generation(state.generation));
        state.generation += u32::from(state.restless);
        Ok(Listing { table: state.table.as_ref().map(Table::observe), generation })
    }
}
