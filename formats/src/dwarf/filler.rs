//! Bytes that close a hole in a debug section so that every reader passes over it in silence.
//!
//! A hole is left where a contribution shrank, moved or went. Each form below was linked between two real
//! units and read with gdb, binutils, elfutils, LLVM and gimli; none printed anything, and addresses behind
//! it resolved. Header forms that look simpler (a unit without a DIE, a null DIE, `header_length` over the
//! hole) each break at least one of them.
//!
//! All fillers are 32-bit DWARF, little-endian, with 8-byte addresses.
//!
//! # Source
//! DWARF 4 and 5, "Unit Headers" (7.5.1), "Line Number Program Header" (6.2.4), "Lookup by Address" (6.1.2),
//! "Call Frame Information" (6.4.1), "Range List Table" (7.28).

use super::DebugSection;

/// The abbreviations that fillers of `.debug_info` use; one copy somewhere in `.debug_abbrev`.
///
/// Four `DW_TAG_compile_unit` without children. Vendor attribute 0x3ff0 is `block4` in code 1, absent in code
/// 2, `block1` in code 3 and `data1` in code 4: together they reach every length. A zero byte ends the table.
pub const FILLER_ABBREVIATIONS: &[u8] = &[
    0x01, 0x11, 0x00, 0xf0, 0x7f, 0x04, 0x00, 0x00, //
    0x02, 0x11, 0x00, 0x00, 0x00, //
    0x03, 0x11, 0x00, 0xf0, 0x7f, 0x0a, 0x00, 0x00, //
    0x04, 0x11, 0x00, 0xf0, 0x7f, 0x0b, 0x00, 0x00, //
    0x00,
];

/// Unit lengths from 0xfffffff0 on are reserved by DWARF; the length does not count itself.
pub(super) const HOLE_MAX: u64 = 0xffff_ffef;
/// A version 4 header and one DIE without attributes.
pub(super) const INFO_MIN: u64 = 12;
/// A version 4 header with empty tables.
pub(super) const LINE_MIN: u64 = 30;
/// A header padded to 16 and the ending tuple.
pub(super) const ARANGES_MIN: u64 = 32;
/// A header.
pub(super) const RANGE_LISTS_MIN: u64 = 12;
/// A header, one offset, a location of no operations and the end of a list.
pub(super) const LOCATION_LISTS_MIN: u64 = 19;
/// A CIE of 15 bytes and one `DW_CFA_nop`.
pub(super) const FRAME_MIN: u64 = 16;

/// `DW_LNS_set_basic_block`: emits no row. Vendor extended opcodes would be shorter, but readers skipped them
/// wrongly.
const SET_BASIC_BLOCK: u8 = 0x07;

/// `DW_OP_nop`.
const NOP: u8 = 0x96;

/// What fillers refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillerContext {
    /// Offset of [`FILLER_ABBREVIATIONS`] in `.debug_abbrev`. Units: bytes.
    pub abbrev_offset: u32,
    /// Offset in `.debug_info` of a unit made by [`fill`], which address ranges refer to. Units: bytes.
    ///
    /// It must be a filler: a set that names a real unit makes gdb warn of a duplicate.
    pub unit_offset: u32,
    /// DWARF version of filler units, 4 or 5. A hole of 12 bytes in `.debug_info` always gets version 4.
    pub version: u16,
    /// Whether units find their location lists by tables of offsets ([`has_offsets`]).
    pub has_offsets: bool,
}

/// A hole that no filler fits: [`DebugSection::fillable`] is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no filler of {hole} bytes exists for debug section {section:?}")]
pub struct HoleTooSmall {
    /// Where the hole is.
    pub section: DebugSection,
    /// Its length. Units: bytes.
    pub hole: u64,
}

/// Whether the first of some tables of location lists has offsets.
pub fn has_offsets(tables: &[u8]) -> bool {
    tables.get(8..12).is_some_and(|count| count != [0; 4])
}

/// Overwrites `hole` with one filler.
///
/// # Errors
/// [`HoleTooSmall`] if the hole is not [`DebugSection::fillable`]; it is then unchanged.
///
/// # Examples
/// ```
/// use relink_formats::dwarf::{DebugSection, FillerContext, fill};
/// let mut hole = [0xaa; 13];
/// let ctx = FillerContext { abbrev_offset: 0x20, unit_offset: 0, version: 5, has_offsets: false };
/// fill(DebugSection::Info, &mut hole, ctx).unwrap();
/// assert_eq!(hole, [9, 0, 0, 0, 5, 0, 1, 8, 0x20, 0, 0, 0, 2]);
/// ```
pub fn fill(section: DebugSection, hole: &mut [u8], ctx: FillerContext) -> Result<(), HoleTooSmall> {
    let len = hole.len() as u64;
    if !section.fillable(len) {
        return Err(HoleTooSmall { section, hole: len });
    }
    if len == 0 {
        return Ok(());
    }
    hole.fill(0);
    // `fillable` admits no hole from 4 GiB on.
    let len = len as u32;
    let mut writer = Writer { rest: hole };
    match section {
        DebugSection::Info => info(&mut writer, len, ctx),
        DebugSection::Line => line(&mut writer, len),
        DebugSection::Aranges => aranges(&mut writer, len, ctx),
        // Header with no offset entries; version 5, whatever the units are: nothing refers to it.
        DebugSection::RngLists | DebugSection::Addr => {
            writer.length(len);
            writer.put(&[5, 0, 8, 0]);
        }
        DebugSection::LocLists => location_lists(&mut writer, len, ctx),
        DebugSection::StrOffsets => {
            writer.length(len);
            writer.put(&[5, 0, 0, 0]);
        }
        DebugSection::Frame => frame(&mut writer, len),
        _ => {}
    }
    Ok(())
}

/// Writes a prefix of the hole. Too long a write is cut, which `tests::chains_of_fillers_*` would show.
struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    fn put(&mut self, new: &[u8]) {
        let rest = std::mem::take(&mut self.rest);
        let (head, tail) = rest.split_at_mut(new.len().min(rest.len()));
        head.copy_from_slice(new.get(..head.len()).unwrap_or_default());
        self.rest = tail;
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    /// `unit_length` of a filler of `len` bytes.
    fn length(&mut self, len: u32) {
        self.put_u32(len.wrapping_sub(4));
    }
}

/// One compilation unit with one DIE, whose attribute spans the rest.
fn info(writer: &mut Writer<'_>, len: u32, ctx: FillerContext) {
    writer.length(len);
    let header = if ctx.version == 5 && len > INFO_MIN as u32 {
        // DW_UT_compile; other unit types make gdb and gimli reject the whole file.
        writer.put(&[5, 0, 1, 8]);
        writer.put_u32(ctx.abbrev_offset);
        12
    } else {
        writer.put(&[4, 0]);
        writer.put_u32(ctx.abbrev_offset);
        writer.put(&[8]);
        11
    };
    // A block of length 0 is avoided: readelf prints "Block ends prematurely".
    match len.saturating_sub(header) {
        0 | 1 => writer.put(&[2]),
        2 => writer.put(&[4, 0]),
        body @ 3..=257 => writer.put(&[3, (body - 2) as u8]),
        body => {
            writer.put(&[1]);
            writer.put_u32(body - 5);
        }
    }
}

/// Where units find their lists by offsets (clang's do), readelf reads the lists of each table one behind the other, and
/// takes what follows the last one for the next table: one list then, of a location (`DW_LLE_default_location`) that
/// spans the rest. Elsewhere it goes by what units refer to, and a table has no lists.
fn location_lists(writer: &mut Writer<'_>, len: u32, ctx: FillerContext) {
    const WIDEST: u32 = 5;
    writer.length(len);
    writer.put(&[5, 0, 8, 0]);
    if !ctx.has_offsets {
        return;
    }
    writer.put(&[1, 0, 0, 0, 4, 0, 0, 0]);
    // The length of the expression, LEB128 of as many bytes as there are, and the expression.
    let rest = len.saturating_sub(LOCATION_LISTS_MIN as u32 - 1);
    let width = rest.min(WIDEST);
    let expression = rest - width;
    writer.put(&[5]);
    for byte in 0..width {
        let more = if byte + 1 < width { 0x80 } else { 0 };
        writer.put(&[(expression >> (7 * byte) & 0x7f) as u8 | more]);
    }
    let nops = (expression as usize).min(writer.rest.len());
    writer.rest[..nops].fill(NOP);
}

/// A version 4 program with exact header length and only `DW_LNS_set_basic_block`. Legal beside version 5
/// units: nothing refers to it.
fn line(writer: &mut Writer<'_>, len: u32) {
    writer.length(len);
    writer.put(&[4, 0, 20, 0, 0, 0]);
    // Instruction length, operations, is_stmt, line_base, line_range, opcode_base. A line_range of 0 divides
    // by zero in some readers; an opcode_base of 1 would make the fill bytes rows.
    writer.put(&[1, 1, 1, 0xfb, 0x0e, 0x0d]);
    writer.put(&[0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1]);
    // No directories, no files.
    writer.put(&[0, 0]);
    writer.rest.fill(SET_BASIC_BLOCK);
}

/// A set of empty ranges (1, 0). With (0, 0) more than once eu-addr2line resolves nothing in the whole file.
fn aranges(writer: &mut Writer<'_>, len: u32, ctx: FillerContext) {
    writer.length(len);
    writer.put(&[2, 0]);
    writer.put_u32(ctx.unit_offset);
    writer.put(&[8, 0, 0, 0, 0, 0]);
    for _ in 0..(len / 16).saturating_sub(2) {
        writer.put(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}

/// A version 4 CIE without augmentation, return address column 16 (x86-64); zero bytes are `DW_CFA_nop`.
fn frame(writer: &mut Writer<'_>, len: u32) {
    writer.length(len);
    writer.put_u32(0xffff_ffff);
    writer.put(&[4, 0, 8, 0, 0x01, 0x78, 16]);
}

#[cfg(test)]
mod tests {
    use gimli::Reader;
    use gimli::UnwindSection;
    use gimli::constants as dw;
    use gimli::write;

    use super::*;

    type Slice<'a> = gimli::EndianSlice<'a, gimli::LittleEndian>;

    fn slice(bytes: &[u8]) -> Slice<'_> {
        gimli::EndianSlice::new(bytes, gimli::LittleEndian)
    }

    /// Sections of one real unit with a function and a line program, by name.
    fn real_unit(version: u16) -> impl Fn(gimli::SectionId) -> Vec<u8> {
        let encoding = gimli::Encoding { format: gimli::Format::Dwarf32, version, address_size: 8 };
        let mut dwarf = write::Dwarf::new();
        let text = |text: &str| write::LineString::String(text.as_bytes().to_vec());
        let mut program = write::LineProgram::new(
            encoding,
            gimli::LineEncoding::default(),
            text("/src"),
            None,
            text("a.c"),
            None,
        );
        let file = program.add_file(text("a.c"), program.default_directory(), None);
        program.begin_sequence(Some(write::Address::Constant(0x1000)));
        for (offset, line) in [(0, 3), (4, 4), (9, 7)] {
            program.row().address_offset = offset;
            program.row().file = file;
            program.row().line = line;
            program.generate_row();
        }
        program.end_sequence(16);
        let unit = dwarf.units.add(write::Unit::new(encoding, program));
        let unit = dwarf.units.get_mut(unit);
        let root = unit.root();
        unit.get_mut(root).set(dw::DW_AT_name, write::AttributeValue::String(b"a.c".to_vec()));
        let function = unit.add(root, dw::DW_TAG_subprogram);
        unit.get_mut(function).set(dw::DW_AT_name, write::AttributeValue::String(b"f".to_vec()));
        let mut sections = write::Sections::new(write::EndianVec::new(gimli::LittleEndian));
        dwarf.write(&mut sections).unwrap();
        move |id| sections.get(id).map(|section| section.slice().to_vec()).unwrap_or_default()
    }

    /// `real`, then a filler of every given size with a real one after each.
    fn chain(section: DebugSection, real: &[u8], sizes: &[usize], ctx: FillerContext) -> Vec<u8> {
        let mut all = real.to_vec();
        for size in sizes {
            let mut hole = vec![0xaa; *size];
            fill(section, &mut hole, ctx).unwrap();
            all.extend(hole);
            all.extend(real);
        }
        all
    }

    #[test]
    fn chains_of_fillers_in_info_parse() {
        for version in [4, 5] {
            let real = real_unit(version);
            let mut abbrev = real(gimli::SectionId::DebugAbbrev);
            let ctx = FillerContext {
                abbrev_offset: abbrev.len() as u32,
                unit_offset: 0,
                version,
                has_offsets: false,
            };
            abbrev.extend(FILLER_ABBREVIATIONS);
            let sizes: Vec<usize> = (12..52).chain(265..275).chain([311, 312, 5011, 70_000]).collect();
            let info = chain(DebugSection::Info, &real(gimli::SectionId::DebugInfo), &sizes, ctx);
            let abbrev = gimli::DebugAbbrev::new(&abbrev, gimli::LittleEndian);
            let info = gimli::DebugInfo::new(&info, gimli::LittleEndian);
            let mut units = info.units();
            let mut seen = 0;
            while let Some(unit) = units.next().unwrap() {
                let filler = seen % 2 == 1;
                let abbreviations = unit.abbreviations(&abbrev).unwrap();
                let mut entries = unit.entries(&abbreviations);
                let root = entries.next_dfs().unwrap().unwrap();
                assert_eq!(root.tag(), dw::DW_TAG_compile_unit);
                if filler {
                    assert!(root.attrs().len() <= 1);
                    assert!(!root.has_children());
                    assert!(entries.next_dfs().unwrap().is_none(), "bytes after the DIE of filler {seen}");
                    assert_eq!(unit.length_including_self(), sizes[seen / 2]);
                    let attributes_reach_the_end = entries_end(&unit, &abbreviations);
                    assert!(attributes_reach_the_end, "filler of {} bytes", sizes[seen / 2]);
                } else {
                    assert_eq!(entries.next_dfs().unwrap().unwrap().tag(), dw::DW_TAG_subprogram);
                }
                seen += 1;
            }
            assert_eq!(seen, sizes.len() * 2 + 1);
        }
    }

    /// Whether the one DIE of the unit ends exactly at the end of the unit.
    fn entries_end(unit: &gimli::UnitHeader<Slice<'_>>, abbreviations: &gimli::Abbreviations) -> bool {
        let mut entries = unit.entries_raw(abbreviations, None).unwrap();
        let abbreviation = entries.read_abbreviation().unwrap().unwrap();
        entries.skip_attributes(abbreviation.attributes()).unwrap();
        entries.is_empty()
    }

    #[test]
    fn chains_of_fillers_in_line_parse_without_rows() {
        for version in [4, 5] {
            let real = real_unit(version)(gimli::SectionId::DebugLine);
            let sizes: Vec<usize> = (30..60).chain([300, 5000]).collect();
            let bytes = chain(
                DebugSection::Line,
                &real,
                &sizes,
                FillerContext { abbrev_offset: 0, unit_offset: 0, version, has_offsets: false },
            );
            let line = gimli::DebugLine::new(&bytes, gimli::LittleEndian);
            let (mut offset, mut seen) = (0, 0);
            while offset < bytes.len() {
                let program = line.program(gimli::DebugLineOffset(offset), 8, None, None).unwrap();
                offset += program.header().unit_length() + 4;
                let mut rows = program.rows();
                let mut count = 0;
                while rows.next_row().unwrap().is_some() {
                    count += 1;
                }
                assert_eq!(count, if seen % 2 == 1 { 0 } else { 4 });
                seen += 1;
            }
            assert_eq!((offset, seen), (bytes.len(), sizes.len() * 2 + 1));
        }
    }

    #[test]
    fn chains_of_fillers_in_aranges_parse() {
        let mut real = vec![0x2c, 0, 0, 0, 2, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0];
        real.extend(0x1000_u64.to_le_bytes());
        real.extend(0x10_u64.to_le_bytes());
        real.extend([0; 16]);
        let sizes: Vec<usize> = (2..12).map(|n| n * 16).collect();
        let ctx = FillerContext { abbrev_offset: 0, unit_offset: 77, version: 5, has_offsets: false };
        let bytes = chain(DebugSection::Aranges, &real, &sizes, ctx);
        let aranges = gimli::DebugAranges::new(&bytes, gimli::LittleEndian);
        let mut headers = aranges.headers();
        let mut seen = 0;
        while let Some(header) = headers.next().unwrap() {
            let filler = seen % 2 == 1;
            assert_eq!(header.debug_info_offset().0, if filler { 77 } else { 0 });
            let mut entries = header.entries();
            let mut count = 0;
            while let Some(entry) = entries.next().unwrap() {
                assert_eq!(entry.length(), if filler { 0 } else { 0x10 });
                count += 1;
            }
            assert_eq!(count, if filler { sizes[seen / 2] / 16 - 2 } else { 1 });
            seen += 1;
        }
        assert_eq!(seen, sizes.len() * 2 + 1);
    }

    #[test]
    fn chains_of_fillers_in_frame_parse() {
        let mut table = write::FrameTable::default();
        let encoding = gimli::Encoding { format: gimli::Format::Dwarf32, version: 4, address_size: 8 };
        let cie = table.add_cie(write::CommonInformationEntry::new(encoding, 1, -8, gimli::X86_64::RA));
        table.add_fde(cie, write::FrameDescriptionEntry::new(write::Address::Constant(0x1000), 16));
        let mut real = write::DebugFrame::from(write::EndianVec::new(gimli::LittleEndian));
        table.write_debug_frame(&mut real).unwrap();
        let sizes: Vec<usize> = (2..20).map(|n| n * 8).collect();
        // Only the first: the CIE pointers of later copies would lead to it as well.
        let mut bytes = real.slice().to_vec();
        for size in &sizes {
            let mut hole = vec![0xaa; *size];
            fill(
                DebugSection::Frame,
                &mut hole,
                FillerContext { abbrev_offset: 0, unit_offset: 0, version: 5, has_offsets: false },
            )
            .unwrap();
            bytes.extend(hole);
        }
        bytes.extend(real.slice());
        let frame = gimli::DebugFrame::new(&bytes, gimli::LittleEndian);
        let bases = gimli::BaseAddresses::default();
        let mut entries = frame.entries(&bases);
        let (mut cies, mut fdes) = (0, 0);
        while let Some(entry) = entries.next().unwrap() {
            match entry {
                gimli::CieOrFde::Cie(cie) => {
                    assert_eq!(cie.return_address_register(), gimli::X86_64::RA);
                    let mut instructions = cie.instructions(&frame, &bases);
                    while instructions.next().unwrap().is_some() {}
                    cies += 1;
                }
                gimli::CieOrFde::Fde(partial) => {
                    partial.parse(gimli::DebugFrame::cie_from_offset).unwrap();
                    fdes += 1;
                }
            }
        }
        assert_eq!((cies, fdes), (sizes.len() + 2, 2));
    }

    #[test]
    fn chains_of_fillers_in_headed_tables_have_exact_lengths() {
        let tables = [
            (DebugSection::RngLists, 12, 1, 8, false),
            (DebugSection::LocLists, 19, 1, 8, false),
            (DebugSection::LocLists, 19, 1, 8, true),
            (DebugSection::Addr, 8, 8, 8, false),
            (DebugSection::StrOffsets, 8, 4, 0, false),
        ];
        for (section, min, step, address_size, has_offsets) in tables {
            let mut bytes = Vec::new();
            for size in (min..min + 40 * step).step_by(step) {
                let mut hole = vec![0xaa; size];
                fill(
                    section,
                    &mut hole,
                    FillerContext { abbrev_offset: 0, unit_offset: 0, version: 5, has_offsets },
                )
                .unwrap();
                assert_eq!(super::has_offsets(&hole), has_offsets);
                bytes.extend(hole);
            }
            let mut rest = slice(&bytes);
            let mut count = 0;
            while !rest.is_empty() {
                let (length, format) = rest.read_initial_length().unwrap();
                let mut table = rest.split(length).unwrap();
                assert_eq!(format, gimli::Format::Dwarf32);
                assert_eq!(table.read_u16().unwrap(), 5);
                assert_eq!(table.read_u8().unwrap(), address_size);
                if has_offsets {
                    let list = table.slice().strip_prefix(&[0, 1, 0, 0, 0, 4, 0, 0, 0, 5]).unwrap();
                    let mut reader = slice(list);
                    let expression = reader.read_uleb128().unwrap() as usize;
                    let (nops, end) = reader.slice().split_at(expression);
                    assert!(nops.iter().all(|byte| *byte == NOP));
                    assert_eq!(end, [0], "nothing follows the list");
                } else {
                    assert!(table.slice().iter().all(|byte| *byte == 0));
                }
                count += 1;
            }
            assert_eq!(count, 40);
        }
    }

    #[test]
    fn sections_reached_by_offset_are_zeroed() {
        use DebugSection::*;
        for section in [Abbrev, Str, LineStr, Ranges, Loc] {
            for size in 0..20 {
                let mut hole = vec![0xaa; size];
                fill(
                    section,
                    &mut hole,
                    FillerContext { abbrev_offset: 0, unit_offset: 0, version: 4, has_offsets: false },
                )
                .unwrap();
                assert!(hole.iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn fill_succeeds_exactly_where_the_hole_is_fillable() {
        use DebugSection::*;
        let all = [
            Info, Types, Line, Aranges, Abbrev, Str, LineStr, Ranges, Loc, RngLists, LocLists, Addr,
            StrOffsets, Names, Frame, Macro, Macinfo, PubNames, PubTypes, Other,
        ];
        for section in all {
            for size in 0..300 {
                for version in [0, 4, 5, u16::MAX] {
                    let mut hole = vec![0xaa; size];
                    let done = fill(
                        section,
                        &mut hole,
                        FillerContext { abbrev_offset: 1, unit_offset: 1, version, has_offsets: false },
                    );
                    assert_eq!(done.is_ok(), section.fillable(size as u64), "{section:?} {size}");
                    if let Err(error) = done {
                        assert_eq!(error, HoleTooSmall { section, hole: size as u64 });
                        assert!(hole.iter().all(|byte| *byte == 0xaa));
                    }
                }
            }
        }
    }
}
