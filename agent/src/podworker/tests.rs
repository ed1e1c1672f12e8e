//! Workers on the fake runtime, in paused time, with scripted faults.
#![allow(clippy::unwrap_used)]

mod faults;
mod harness;
mod life;
mod pressure;
