//! The bundled scheduler.
