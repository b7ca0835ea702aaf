//! Ingest: bytes to rows (cold) or to entities (warm).

pub(crate) mod bulk;
pub(crate) mod changed;
pub(crate) mod classify;
pub(crate) mod libraries;
mod members;
pub(crate) mod offers;
mod pair;
mod read;
mod recognize;
mod rows;
pub(crate) mod wrap;
