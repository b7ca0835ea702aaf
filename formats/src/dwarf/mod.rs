//! Debug sections as the linker sees them: contributions of objects with holes between them.
//!
//! The linker never edits DWARF. It places whole contributions, applies their relocations, and fills what
//! lies between them with units that every reader skips in silence ([`filler`]).

pub mod extend;
pub mod filler;

pub use filler::FILLER_ABBREVIATIONS;
pub use filler::FillerContext;
pub use filler::HoleTooSmall;
pub use filler::fill;

/// The debug sections that differ in how a hole in them is filled. `.debug_` is left out of the names.
///
/// Compressed sections (`SHF_COMPRESSED`) must be decompressed before any of this applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DebugSection {
    /// `info`: units of DIEs.
    Info,
    /// `types`: DWARF 4 type units.
    Types,
    /// `line`: line number programs.
    Line,
    /// `aranges`: address to unit.
    Aranges,
    /// `abbrev`: abbreviation tables, reached by offset.
    Abbrev,
    /// `str`: strings, reached by offset.
    Str,
    /// `line_str`: strings of line number programs, reached by offset.
    LineStr,
    /// `ranges`: DWARF 4 range lists, reached by offset.
    Ranges,
    /// `loc`: DWARF 4 location lists, reached by offset.
    Loc,
    /// `rnglists`: DWARF 5 range lists.
    RngLists,
    /// `loclists`: DWARF 5 location lists.
    LocLists,
    /// `addr`: DWARF 5 address tables.
    Addr,
    /// `str_offsets`: DWARF 5 string offset tables.
    StrOffsets,
    /// `names`: DWARF 5 name indexes.
    Names,
    /// `frame`: call frame information for debuggers.
    Frame,
    /// `macro`: DWARF 5 macros.
    Macro,
    /// `macinfo`: DWARF 4 macros.
    Macinfo,
    /// `pubnames` and `gnu_pubnames`.
    PubNames,
    /// `pubtypes` and `gnu_pubtypes`.
    PubTypes,
    /// Any other, `gdb_scripts` for example.
    Other,
}

/// Bytes of the smallest unit that [`fill`] makes in `.debug_info`.
pub const UNIT_MIN: u64 = filler::INFO_MIN;

impl DebugSection {
    /// The section called `name`, or `None` if the name does not begin with `.debug_`.
    pub fn from_name(name: &[u8]) -> Option<DebugSection> {
        Some(match name.strip_prefix(b".debug_")? {
            b"info" => DebugSection::Info,
            b"types" => DebugSection::Types,
            b"line" => DebugSection::Line,
            b"aranges" => DebugSection::Aranges,
            b"abbrev" => DebugSection::Abbrev,
            b"str" => DebugSection::Str,
            b"line_str" => DebugSection::LineStr,
            b"ranges" => DebugSection::Ranges,
            b"loc" => DebugSection::Loc,
            b"rnglists" => DebugSection::RngLists,
            b"loclists" => DebugSection::LocLists,
            b"addr" => DebugSection::Addr,
            b"str_offsets" => DebugSection::StrOffsets,
            b"names" => DebugSection::Names,
            b"frame" => DebugSection::Frame,
            b"macro" => DebugSection::Macro,
            b"macinfo" => DebugSection::Macinfo,
            b"pubnames" | b"gnu_pubnames" => DebugSection::PubNames,
            b"pubtypes" | b"gnu_pubtypes" => DebugSection::PubTypes,
            _ => DebugSection::Other,
        })
    }

    /// Whether [`fill`] can close a hole of `hole` bytes. A hole of 0 is always fine; one of 4 GiB never is,
    /// because fillers are 32-bit DWARF.
    ///
    /// The allocator of contributions must leave no other hole: split a free range only if the remainder is
    /// fillable.
    ///
    /// | Section | Holes |
    /// |---|---|
    /// | info | 12 and more |
    /// | line | 30 and more |
    /// | aranges | multiples of 16 from 32 |
    /// | rnglists | 12 and more |
    /// | loclists | 19 and more |
    /// | addr | multiples of 8 |
    /// | str_offsets | multiples of 4 from 8 |
    /// | frame | multiples of 8 from 16 |
    /// | abbrev, str, line_str, ranges, loc | all |
    /// | all others | none |
    ///
    /// The others: a type unit without a type (types), a second index over the same unit (names:
    /// `llvm-dwarfdump --verify` reports it), an entry with an invented name (pubnames, pubtypes: padding
    /// after the terminator is reported), and forms that no reader was measured on (macro, macinfo).
    pub fn fillable(self, hole: u64) -> bool {
        if hole == 0 {
            return true;
        }
        if hole > filler::HOLE_MAX {
            return false;
        }
        match self {
            DebugSection::Info => hole >= filler::INFO_MIN,
            DebugSection::Line => hole >= filler::LINE_MIN,
            DebugSection::Aranges => hole >= filler::ARANGES_MIN && hole.is_multiple_of(16),
            DebugSection::RngLists => hole >= filler::RANGE_LISTS_MIN,
            DebugSection::LocLists => hole >= filler::LOCATION_LISTS_MIN,
            DebugSection::Addr => hole.is_multiple_of(8),
            DebugSection::StrOffsets => hole >= 8 && hole.is_multiple_of(4),
            DebugSection::Frame => hole >= filler::FRAME_MIN && hole.is_multiple_of(8),
            DebugSection::Abbrev
            | DebugSection::Str
            | DebugSection::LineStr
            | DebugSection::Ranges
            | DebugSection::Loc => true,
            DebugSection::Types
            | DebugSection::Names
            | DebugSection::Macro
            | DebugSection::Macinfo
            | DebugSection::PubNames
            | DebugSection::PubTypes
            | DebugSection::Other => false,
        }
    }
}

/// What a relocation against a discarded section stores in section `section_name`.
///
/// 0 would end a DWARF 4 range or location list early, hence 1 there: an empty range. Elsewhere 0, which
/// debuggers take as "no code". bfd and lld (since 11) do the same.
pub fn tombstone(section_name: &[u8]) -> u64 {
    match DebugSection::from_name(section_name) {
        Some(DebugSection::Ranges | DebugSection::Loc) => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_to_sections() {
        assert_eq!(DebugSection::from_name(b".debug_info"), Some(DebugSection::Info));
        assert_eq!(DebugSection::from_name(b".debug_line_str"), Some(DebugSection::LineStr));
        assert_eq!(DebugSection::from_name(b".debug_gnu_pubnames"), Some(DebugSection::PubNames));
        assert_eq!(DebugSection::from_name(b".debug_gdb_scripts"), Some(DebugSection::Other));
        assert_eq!(DebugSection::from_name(b".debug_"), Some(DebugSection::Other));
        assert_eq!(DebugSection::from_name(b".text"), None);
        assert_eq!(DebugSection::from_name(b".debug"), None);
    }

    #[test]
    fn only_old_lists_have_a_tombstone_of_one() {
        assert_eq!(tombstone(b".debug_ranges"), 1);
        assert_eq!(tombstone(b".debug_loc"), 1);
        for name in
            [&b".debug_info"[..], b".debug_rnglists", b".debug_loclists", b".debug_aranges", b".text", b""]
        {
            assert_eq!(tombstone(name), 0);
        }
    }

    #[test]
    fn empty_hole_is_always_fillable_and_a_huge_one_never() {
        for name in [&b".debug_info"[..], b".debug_types", b".debug_str", b".debug_x", b".debug_names"] {
            let section = DebugSection::from_name(name).unwrap();
            assert!(section.fillable(0));
            assert!(!section.fillable(1 << 32));
            assert!(!section.fillable(u64::MAX));
        }
    }
}
