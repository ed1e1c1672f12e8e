//! Storage: the revisioned store contract, its backends and the watch cache.
