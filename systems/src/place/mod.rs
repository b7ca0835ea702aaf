//! Place: every atom gets a slot.

pub(crate) mod addresses;
pub(crate) mod arrange;
pub(crate) mod assign;
pub(crate) mod changed;
mod fixed;
pub(crate) mod free;
pub(crate) mod names;
pub(crate) mod reserve;
pub(crate) mod symbols;
pub(crate) mod symtab;
pub(crate) mod tables;
