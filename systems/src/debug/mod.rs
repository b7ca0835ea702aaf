//! Debug: what follows code and data about: unwind tables, symbol table, fillers of debug sections.

pub(crate) mod changed;
pub(crate) mod compress;
pub(crate) mod symbols;
pub(crate) mod symtab;
pub(crate) mod unwind;
mod unwind_header;
