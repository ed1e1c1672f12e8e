//! The table of kinds: schemas, defaults, validation, patches, tables, discovery, OpenAPI. Pure.
