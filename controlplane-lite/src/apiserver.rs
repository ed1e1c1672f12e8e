//! The REST API over storage: routing, verbs, watches, admission, TLS.
