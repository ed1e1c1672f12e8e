//! The controllers of the bundled controller manager.
