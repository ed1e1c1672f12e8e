//! nftables as data: typed objects, the difference between two tables, and their two encodings
//! (nft's text and netlink's bytes). Pure: nothing here touches the kernel, a clock or a log.

pub mod apply;
pub mod decode;
pub mod diff;
pub mod encode;
pub mod expr;
pub mod object;
pub mod render;
pub mod statement;
pub mod transaction;
pub mod uapi;
pub mod userdata;
pub mod wire;

use std::fmt;

/// The name of a table of ours (family `ip`). A backend is opened for one; tables as data and the
/// transactions between them do not name theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableName(&'static str);

impl TableName {
    /// Names a table; short and readable for `nft`, which is ours to see to.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The one table Services live in. Nothing else may be put there: a chain or set this crate's
/// rulesets do not name is removed at the next resync.
pub const TABLE: TableName = TableName::new("copepod");

#[cfg(test)]
mod tests;
