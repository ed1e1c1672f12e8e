//! Machines for the program under test.

pub use harness::machine::{SETTINGS, open_without_waiting};

/// The program under test.
pub const COPEPOD: &str = env!("CARGO_BIN_EXE_copepod");

/// Makes a machine; `name` tells it from other tests'.
pub fn new(name: &str) -> anyhow::Result<harness::machine::Machine> {
    harness::machine::Machine::new(name, COPEPOD)
}
