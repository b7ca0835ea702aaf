//! Content ids: what a cache or another machine keys objects and atoms on. Computed when asked for; no link needs
//! them.

use std::fmt;

use object::LittleEndian;
use relink_engine::diagnostic::LinkError;
use relink_formats::Bytes;
use relink_formats::content_id::{
    AtomHeader, AtomReloc, TargetKey, atom_bytes_id, atom_content_id, object_content_id,
};
use relink_formats::elf;
use relink_formats::merge::{piece_at, split};
use relink_formats::object_file::{ObjectFile, SymbolPlace};

/// A BLAKE2b-256 digest of content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub [u8; 32]);

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

/// The id of one section of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtomId {
    /// Name of the section.
    pub section: String,
    /// Ordinal among the object's sections of that name.
    pub ordinal: u32,
    /// Its id: bytes with relocation fields masked, and relocations with their targets by name or content.
    pub id: ContentId,
}

/// The id of a whole object.
pub fn object_id(bytes: &[u8]) -> ContentId {
    ContentId(object_content_id(bytes))
}

/// The id of each loaded section of an object. Where its neighbours stand in the file, or in which order the symbol
/// table lists them, makes no difference.
///
/// # Errors
/// If the bytes are no object that can be linked.
pub fn atom_ids(bytes: impl Into<Bytes>) -> Result<Vec<AtomId>, LinkError> {
    let object = ObjectFile::parse(bytes.into()).map_err(|error| LinkError::bad_input("object", error))?;
    let mut seen: Vec<(&[u8], u32)> = Vec::new();
    let mut ordinals = Vec::with_capacity(object.sections.len());
    for index in 0..object.sections.len() {
        let name = object.section_name(index);
        let ordinal = match seen.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                seen.push((name, 0));
                0
            }
        };
        ordinals.push(ordinal);
    }
    let digests: Vec<[u8; 32]> = (0..object.sections.len()).map(|index| own_digest(&object, index)).collect();
    let ids = (1..object.sections.len()).filter(|&index| {
        let section = &object.sections[index];
        section.flags & u64::from(elf::SHF_ALLOC) != 0
    });
    Ok(ids
        .map(|index| AtomId {
            section: String::from_utf8_lossy(object.section_name(index)).into_owned(),
            ordinal: ordinals[index],
            id: ContentId(full_digest(&object, index, &ordinals, &digests)),
        })
        .collect())
}

fn header(object: &ObjectFile, index: usize) -> AtomHeader {
    let section = &object.sections[index];
    AtomHeader {
        machine: EM_X86_64,
        kind: section.kind,
        flags: section.flags,
        align: section.align.bytes(),
        entsize: section.entsize,
        size: section.size,
    }
}

const EM_X86_64: u16 = 62;

fn width(kind: u32) -> u64 {
    match kind {
        elf::R_X86_64_64 | elf::R_X86_64_PC64 | elf::R_X86_64_DTPOFF64 | elf::R_X86_64_TPOFF64 => 8,
        elf::R_X86_64_16 | elf::R_X86_64_PC16 => 2,
        elf::R_X86_64_8 | elf::R_X86_64_PC8 => 1,
        elf::R_X86_64_NONE => 0,
        _ => 4,
    }
}

/// A section by its bytes alone, relocation fields masked: the key of what has no name.
fn own_digest(object: &ObjectFile, index: usize) -> [u8; 32] {
    let masks = object.relocations(index).iter().map(|rela| {
        let start = rela.r_offset.get(LittleEndian);
        start..start.saturating_add(width(rela.r_type(LittleEndian, false).0))
    });
    atom_bytes_id(&header(object, index), object.section_bytes(index), masks)
}

fn full_digest(object: &ObjectFile, index: usize, ordinals: &[u32], digests: &[[u8; 32]]) -> [u8; 32] {
    let relocs = object.relocations(index).iter().map(|rela| {
        let kind = rela.r_type(LittleEndian, false).0;
        let addend = rela.r_addend.get(LittleEndian);
        let symbol = rela.r_sym(LittleEndian, false) as usize;
        let target = target_key(object, symbol, addend, ordinals, digests);
        let by_section = object.symbols().get(symbol).is_some_and(|raw| raw.st_type().0 == elf::STT_SECTION);
        // The addend that has chosen a piece is where the piece happens to stand.
        let addend = if by_section && matches!(target, TargetKey::Merge { .. }) { 0 } else { addend };
        AtomReloc { offset: rela.r_offset.get(LittleEndian), kind, addend, width: width(kind), target }
    });
    atom_content_id(&header(object, index), object.section_bytes(index), relocs)
}

fn target_key<'a>(
    object: &'a ObjectFile,
    symbol: usize,
    addend: i64,
    ordinals: &[u32],
    digests: &'a [[u8; 32]],
) -> TargetKey<'a> {
    let Some(raw) = object.symbols().get(symbol) else { return TargetKey::Undefined };
    let name = object.symbol_name(symbol);
    if symbol >= object.first_global as usize {
        return TargetKey::Global { name, version: b"" };
    }
    let value = raw.st_value.get(LittleEndian);
    let section = match object.symbol_place(symbol) {
        SymbolPlace::Section(section) => section as usize,
        SymbolPlace::Absolute => return TargetKey::Absolute { value },
        _ => return TargetKey::Undefined,
    };
    let Some(target) = object.sections.get(section) else { return TargetKey::Undefined };
    if target.flags & u64::from(elf::SHF_MERGE) != 0 {
        let strings = target.flags & u64::from(elf::SHF_STRINGS) != 0;
        let bytes = object.section_bytes(section);
        // A section symbol's addend chooses the piece, a label's value does.
        let by_section = raw.st_type().0 == elf::STT_SECTION;
        let at = if by_section { value.wrapping_add_signed(addend) } else { value };
        if let Ok(starts) = split(bytes, target.entsize, strings)
            && let Some(piece) = piece_at(&starts, at)
        {
            let start = starts[piece] as usize;
            let end = starts.get(piece + 1).map_or(bytes.len(), |&next| next as usize);
            return TargetKey::Merge { piece: &bytes[start..end], offset: at.wrapping_sub(start as u64) };
        }
    }
    let section_name = object.section_name(section);
    let anonymous =
        section_name.starts_with(b".rodata..Lanon.") || section_name.starts_with(b".data.rel.ro..Lanon.");
    if anonymous {
        return TargetKey::Anonymous { digest: &digests[section], offset: value };
    }
    TargetKey::Local { section: section_name, ordinal: ordinals[section], offset: value }
}
