//! A relocatable object: parse it, ask everything that it can be asked.

use object::LittleEndian as LE;
use relink_formats::object_file::{ObjectFile, SymbolPlace};
use relink_formats::{Bytes, eh_frame, elf, merge, property, source_line};

/// No panic; indexes that accessors hand out are in range.
pub(super) fn judge(data: &[u8]) {
    let Ok(object) = ObjectFile::parse(Bytes::copy_from_slice(data)) else { return };
    for index in 0..=object.symbols().len() {
        object.symbol_name(index);
        if let SymbolPlace::Section(section) = object.symbol_place(index) {
            assert!((section as usize) < object.sections.len());
        }
    }
    for index in 0..=object.sections.len() {
        object.section_name(index);
        let bytes = object.section_bytes(index);
        for relocation in object.relocations(index) {
            assert!(relocation.r_offset.get(LE) <= bytes.len() as u64);
            assert!((relocation.r_sym(LE, false) as usize) < object.symbols().len());
        }
        let Some(section) = object.sections.get(index) else { continue };
        let strings = section.flags & u64::from(elf::SHF_STRINGS) != 0;
        if let Ok(starts) = merge::split(bytes, section.entsize, strings) {
            assert!(starts.is_sorted() && starts.last().is_none_or(|&last| (last as usize) < bytes.len()));
        }
        let _ = eh_frame::records(bytes);
        let _ = property::Property::parse(bytes);
        let _ = source_line::source_line(&object, index as u32, 1);
    }
    for group in &object.groups {
        object.group_signature(group);
        assert!(group.sections.iter().all(|&member| (member as usize) < object.sections.len()));
    }
}
