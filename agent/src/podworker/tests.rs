//! Workers on the fake runtime, in paused time, with scripted faults.
#![allow(clippy::unwrap_used)]

mod dying;
mod ending;
mod faults;
mod grace;
mod harness;
mod keeping;
mod life;
mod pressure;
mod removing;
mod sources;
mod volumes;
