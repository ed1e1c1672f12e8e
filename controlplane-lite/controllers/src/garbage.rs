//! Garbage collection: objects whose owners are gone go too; foreground and
//! orphaning deletions are carried out.

pub mod graph;
mod kinds;
mod monitor;
pub mod plan;
mod sync;
mod table;

pub(super) use sync::start;

#[cfg(test)]
mod tests;
