//! Relocate: bytes of atoms and of the tables that relocations speak of.

pub(crate) mod bulk;
pub(crate) mod changed;
pub(crate) mod dynamic;
pub(crate) mod dynamic_relocs;
mod got;
pub(crate) mod headers;
pub(crate) mod tables;
