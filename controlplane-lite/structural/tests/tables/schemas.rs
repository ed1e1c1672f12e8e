//! What may be a schema.
