//! Relocate: bytes of atoms and of the tables that relocations speak of.

pub(crate) mod bulk;
pub(crate) mod changed;
mod copies;
pub(crate) mod dynamic;
pub(crate) mod dynamic_relocs;
mod dynamic_symbols;
mod got;
pub(crate) mod headers;
mod needed;
mod plt;
pub(crate) mod tables;
mod unused;
