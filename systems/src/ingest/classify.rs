//! What becomes of a section: nothing, an atom, pieces of a pool, unwind records.

use formats::elf;
use formats::object_file::{ObjectFile, Section};
use relink_engine::options::Strip;
use relink_engine::records::atom_flags;
use relink_formats as formats;

/// The class of a section, before it has a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Ignore,
    Atom(u32),
    Merge(u32),
    EhFrame(u32),
}

/// Vectors of constants have 64, and strings that are copied by vector instructions 32.
const MERGED_ALIGN_MAX: u64 = 256;
/// `SHT_LLVM_ODRTAB` .. `SHT_LLVM_OFFLOADING`, and `SHT_GNU_INCREMENTAL_INPUTS`: notes to tools, not to the image.
const TOOL_SECTIONS: std::ops::RangeInclusive<u32> = 0x6fff_4700..=0x6fff_4cff;

pub(crate) fn classify(object: &ObjectFile, index: usize, section: &Section, strip: Strip) -> Class {
    let name = object.section_name(index);
    match section.kind {
        elf::SHT_NULL
        | elf::SHT_SYMTAB
        | elf::SHT_STRTAB
        | elf::SHT_RELA
        | elf::SHT_REL
        | elf::SHT_GROUP
        | elf::SHT_SYMTAB_SHNDX => return Class::Ignore,
        kind if TOOL_SECTIONS.contains(&kind) => return Class::Ignore,
        _ => {}
    }
    let has = |flag: u32| section.flags & u64::from(flag) != 0;
    if has(elf::SHF_EXCLUDE)
        || name == b".note.GNU-stack"
        || name == b".note.gnu.property"
        || name.starts_with(b".gnu.warning.")
    {
        return Class::Ignore;
    }
    let mut flags = 0;
    for (bit, flag) in [
        (elf::SHF_ALLOC, atom_flags::ALLOC),
        (elf::SHF_WRITE, atom_flags::WRITE),
        (elf::SHF_EXECINSTR, atom_flags::CODE),
        (elf::SHF_TLS, atom_flags::TLS | atom_flags::EXACT),
    ] {
        if has(bit) {
            flags |= flag;
        }
    }
    if section.kind == elf::SHT_NOBITS {
        flags |= atom_flags::NOBITS;
    }
    if !has(elf::SHF_ALLOC) {
        if strip != Strip::None && name.starts_with(b".debug_") {
            return Class::Ignore;
        }
        flags |= atom_flags::DEBUG;
    }
    if object.groups.get((section.group as usize).wrapping_sub(1)).is_some_and(|group| group.comdat) {
        flags |= atom_flags::COMDAT;
    }
    if has(elf::SHF_ALLOC) && (name == b".eh_frame" || section.kind == elf::SHT_X86_64_UNWIND) {
        return Class::EhFrame(flags | atom_flags::EH_FRAME);
    }
    // An empty section has no piece that a label in it could follow: it is placed like any other. So is one whose
    // pieces, each aligned as the section, would be padding for the most part; merging is a permission.
    let aligned = section.align.bytes() <= MERGED_ALIGN_MAX;
    let cut = section.entsize > 0 && section.size > 0 && section.relocations.is_empty() && aligned;
    if has(elf::SHF_MERGE) && !has(elf::SHF_WRITE) && cut {
        return Class::Merge(flags | atom_flags::MERGE);
    }
    let ordered = matches!(section.kind, elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY | elf::SHT_PREINIT_ARRAY)
        || [&b".init"[..], b".fini", b".ctors", b".dtors", b".init_array", b".fini_array", b".preinit_array"]
            .iter()
            .any(|&prefix| name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'.'));
    if section.kind == elf::SHT_NOTE {
        flags |= atom_flags::FIXED | atom_flags::EXACT;
    }
    if has(elf::SHF_ALLOC) && (ordered || is_c_identifier(name)) {
        flags |= atom_flags::EXACT;
    }
    Class::Atom(flags)
}

/// Whether `__start_NAME` and `__stop_NAME` can bound the section, so that no hole may be in it.
pub(crate) fn is_c_identifier(name: &[u8]) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    name.first().is_some_and(letter) && name.iter().all(|byte| letter(byte) || byte.is_ascii_digit())
}
