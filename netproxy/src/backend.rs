//! Writing rules: the contract of a backend. Implementations: [`netlink`], and for tests `cli` (the
//! `nft` program) and an in-memory fake.
//!
//! Backends work in the network namespace of the thread that created them, and block: callers in
//! async code run them on a blocking thread.

use thiserror::Error;

use crate::nft::object::Observed;
use crate::nft::transaction::Transaction;
use crate::nft::wire::WireError;

#[cfg(feature = "testing")]
pub mod cli;
pub mod netlink;

/// The kernel's ruleset counter at some moment; it grows with every commit of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub u32);

/// Our table as the kernel has it.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The table; `None` when there is none.
    pub table: Option<Observed>,
    /// When it was like that, as far as the backend can tell.
    pub generation: Option<Generation>,
}

/// Why rules could not be written or read.
#[derive(Debug, Error)]
pub enum NftError {
    /// The kernel refused one request, and with it the transaction.
    #[error("nftables refused `{op}`: {source}")]
    Refused {
        /// The request in nft's syntax, shortened.
        op: String,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// Somebody changed a ruleset since it was listed; list again.
    #[error("the ruleset changed since it was read")]
    Changed,
    /// Sending or receiving failed.
    #[error("netlink: {doing}")]
    Socket {
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The kernel's answer makes no sense.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The kernel did not say whether the transaction happened.
    #[error("no answer to a transaction")]
    Unanswered,
    /// A name is longer than the kernel allows.
    #[error("the name {0:?} is too long for nftables")]
    Name(String),
    /// The `nft` program failed.
    #[error("nft: {0}")]
    Program(String),
}

impl NftError {
    /// Whether a chain was still in use, as kernels before 6.2 say for a moment after its last
    /// reference went.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(libc::EBUSY))
    }

    /// Whether something that was to be deleted is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(libc::ENOENT))
    }
}

/// How often [`reconcile`] starts over because somebody else changed a ruleset meanwhile.
const RECONCILE_ATTEMPTS: u32 = 20;

/// Lists the table and performs what `plan` makes of it; anew when a ruleset changed in between.
/// Returns what was performed.
///
/// # Errors
/// What `plan` says, and [`NftError`] when the kernel refuses or does not come to rest.
pub fn reconcile<E: From<NftError>>(
    backend: &mut impl NftBackend,
    mut plan: impl FnMut(Option<&Observed>) -> Result<Transaction, E>,
) -> Result<Transaction, E> {
    for _ in 0..RECONCILE_ATTEMPTS {
        let listing = backend.list()?;
        let tx = plan(listing.table.as_ref())?;
        match backend.run(&tx, listing.generation) {
            Err(NftError::Changed) => {}
            other => return other.map(|()| tx).map_err(E::from),
        }
    }
    Err(E::from(NftError::Changed))
}

/// Something that can hold a table of ours.
pub trait NftBackend: Send {
    /// Performs `tx.ops` as one transaction. With `since` it fails with [`NftError::Changed`] when
    /// the kernel's rulesets are of another generation (backends that cannot tell ignore it).
    /// `tx.stale_chains` is the caller's to delete later.
    ///
    /// # Errors
    /// [`NftError`]; then nothing happened, except after [`NftError::Unanswered`] or
    /// [`NftError::Socket`], when the caller has to list.
    fn run(&mut self, tx: &Transaction, since: Option<Generation>) -> Result<(), NftError>;

    /// Whether `run` would work, without doing it.
    ///
    /// # Errors
    /// What `run` would say.
    fn check(&mut self, tx: &Transaction) -> Result<(), NftError>;

    /// Whether our table is there at all: a cheap question, to notice that somebody flushed it.
    ///
    /// # Errors
    /// [`NftError`] when the kernel does not answer.
    fn exists(&mut self) -> Result<bool, NftError>;

    /// Reads our table back.
    ///
    /// # Errors
    /// [`NftError`] when it cannot be read consistently.
    fn list(&mut self) -> Result<Listing, NftError>;
}
