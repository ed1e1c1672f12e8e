//! podworker
