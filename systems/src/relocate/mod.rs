//! Relocate: bytes of atoms and of the tables that relocations speak of.

pub(crate) mod bulk;
pub(crate) mod changed;
pub(crate) mod dynamic;
mod got;
pub(crate) mod headers;
pub(crate) mod relative;
pub(crate) mod tables;
