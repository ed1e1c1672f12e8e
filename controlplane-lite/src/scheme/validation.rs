//! Validation, one file per kind or family. Pure; collects everything wrong.
