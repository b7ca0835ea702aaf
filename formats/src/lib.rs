//! Bytes to plain structs and back: ELF, archives, linker scripts, DWARF, x86-64 relocations.
//!
//! Pure: no world, no files, and no panic on any input. Every parser validates once and then hands out
//! structs whose accessors can't fail; every writer is the inverse of a parser that is tested against it.
//!
//! | Module | Bytes |
//! |---|---|
//! | [`object_file`], [`property`] | a relocatable object (`ET_REL`) and its `.note.gnu.property` |
//! | [`shared_object`] | a shared library (`ET_DYN`), as far as a link sees it |
//! | [`archive`], [`script`] | the other two inputs: `.a` files and small linker scripts |
//! | [`version_script`] | which symbols are exported, under which version |
//! | [`expression`], [`linked_symbols`] | values of `--defsym`, symbols of `--just-symbols` |
//! | [`compress`] | compressed debug sections |
//! | [`merge`] | pieces of `SHF_MERGE` sections |
//! | [`eh_frame`] | call frame records, their fillers and `.eh_frame_hdr` |
//! | [`dwarf`], [`source_line`] | debug sections |
//! | [`dynamic`] | tables that the dynamic loader reads |
//! | [`reloc`], [`island`] | x86-64 instruction bytes |
//! | [`build_id`], [`content_id`] | identities of bytes |

pub mod archive;
pub mod build_id;
pub mod compress;
pub mod content_id;
mod cursor;
pub mod dwarf;
pub mod dynamic;
pub mod eh_frame;
pub mod elf;
pub mod error;
pub mod expression;
#[cfg(test)]
mod hostile;
pub mod island;
pub mod linked_symbols;
pub mod merge;
pub mod object_file;
pub mod property;
pub mod reloc;
pub mod script;
pub mod shared_object;
pub mod source_line;
pub mod units;
pub mod version_script;

pub use bytes::Bytes;
pub use error::FormatError;
