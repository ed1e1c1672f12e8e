//! The one binary: parse arguments, build tasks, start, drain.
fn main() {}
