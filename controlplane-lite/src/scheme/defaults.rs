//! Defaulting, one file per kind or family. Pure; idempotent.
