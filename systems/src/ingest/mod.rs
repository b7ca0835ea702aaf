//! Ingest: bytes to rows (cold) or to entities (warm).

pub(crate) mod bulk;
pub(crate) mod changed;
pub(crate) mod classify;
pub(crate) mod libraries;
mod read;
mod recognize;
pub(crate) mod wrap;
