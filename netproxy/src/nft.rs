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

/// The one table Services live in (family `ip`). Nothing else may be put there: a chain or set
/// this crate's rulesets do not name is removed at the next resync.
pub const TABLE: &str = "copepod";

#[cfg(test)]
mod tests;
