//! Which bytes of the debug and unwind sections belong to one unit and one function.
//!
//! Read with `gimli`, from sections and headers: what a reader would attribute to the unit, nothing that the linker says.

use std::ops::Range;

use gimli::{BaseAddresses, EhFrame, EndianSlice, LittleEndian, UnwindSection};

use crate::elf::Elf;

type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// File ranges that an edit of `function` in the unit whose `DW_AT_name` is `unit` may change.
///
/// They are: the unit in `.debug_info`; its line program, address set, range and location lists; the function's FDE.
/// Each contribution reaches to the start of the next one, since what fills its slack is part of its slot.
#[track_caller]
pub fn contributions(elf: &Elf<'_>, unit: &str, function: u64) -> Vec<Range<u64>> {
    let load = |id: gimli::SectionId| -> Result<Slice<'_>, gimli::Error> {
        Ok(Slice::new(elf.section_bytes(id.name()), LittleEndian))
    };
    let dwarf = gimli::Dwarf::load(load).expect("loading fails never");
    let mut ranges = Vec::new();
    let mut lines = Vec::new();
    let mut wanted = None;
    let mut headers = dwarf.units();
    while let Some(header) = headers.next().expect("well-formed units") {
        let parsed = dwarf.unit(header).expect("a well-formed unit");
        let start = header.offset().to_debug_info_offset(&header).expect("a unit of .debug_info").0 as u64;
        let end = start + header.length_including_self() as u64;
        let line = parsed.line_program.as_ref().map(|program| program.header().offset().0 as u64);
        lines.extend(line);
        if parsed.name.is_some_and(|name| name.to_string_lossy() == unit) {
            assert!(wanted.is_none(), "two units {unit}");
            wanted = Some((start, line));
            ranges.push(within(elf, ".debug_info", start..end));
        }
    }
    let (info, line) = wanted.unwrap_or_else(|| panic!("no unit {unit} in .debug_info"));
    if let Some(line) = line {
        // Line programs that no unit refers to are filler; it belongs to the slot before it.
        let size = elf.section_bytes(".debug_line").len() as u64;
        let end = lines.iter().copied().filter(|&other| other > line).min().unwrap_or(size);
        ranges.push(within(elf, ".debug_line", line..end));
    }
    ranges.extend(address_set(elf, info));
    for (section, attribute) in [(".debug_rnglists", gimli::DW_AT_ranges), (".debug_loclists", gimli::DW_AT_location)] {
        ranges.extend(list_contribution(elf, &dwarf, info, section, attribute));
    }
    ranges.push(frame_entry(elf, function));
    ranges
}

fn within(elf: &Elf<'_>, section: &str, range: Range<u64>) -> Range<u64> {
    let start = elf.section(section).start;
    start + range.start..start + range.end
}

/// The set of `.debug_aranges` for the unit at `info`, and filler sets behind it.
fn address_set(elf: &Elf<'_>, info: u64) -> Option<Range<u64>> {
    let bytes = elf.section_bytes(".debug_aranges");
    let aranges = gimli::DebugAranges::new(bytes, LittleEndian);
    let mut headers = aranges.headers();
    let mut starts = Vec::new();
    let mut found = None;
    while let Some(header) = headers.next().expect("well-formed sets") {
        let at = header.offset().0 as u64;
        starts.push(at);
        if header.debug_info_offset().0 as u64 == info {
            found = Some((at, at + 4 + header.length() as u64));
        }
    }
    found.map(|(at, end)| within(elf, ".debug_aranges", at..end))
}

/// The contribution of a list section that holds the lists of the unit at `info`; DWARF 5 headers delimit it.
fn list_contribution(
    elf: &Elf<'_>,
    dwarf: &gimli::Dwarf<Slice<'_>>,
    info: u64,
    section: &str,
    attribute: gimli::DwAt,
) -> Option<Range<u64>> {
    let header = dwarf.debug_info.header_from_offset(gimli::DebugInfoOffset(info as usize)).ok()?;
    let unit = dwarf.unit(header).ok()?;
    let mut offset = None;
    let mut entries = unit.entries();
    while let Ok(Some(entry)) = entries.next_dfs() {
        offset = offset.or(match entry.attr_value(attribute) {
            Some(gimli::AttributeValue::RangeListsRef(raw)) => Some(dwarf.ranges_offset_from_raw(&unit, raw).0),
            Some(gimli::AttributeValue::LocationListsRef(list)) => Some(list.0),
            _ => None,
        });
    }
    let offset = offset? as u64;
    let bytes = elf.section_bytes(section);
    let mut at = 0u64;
    while let Some(length) = bytes.get(at as usize..at as usize + 4) {
        let end = at + 4 + u64::from(u32::from_le_bytes(length.try_into().expect("four bytes")));
        if (at..end).contains(&offset) {
            return Some(within(elf, section, at..end));
        }
        at = end;
    }
    panic!("{section} has no contribution at {offset:#x}")
}

/// File range of the FDE of the function (or island) at an address.
#[track_caller]
pub fn frame_entry(elf: &Elf<'_>, function: u64) -> Range<u64> {
    let frame = EhFrame::new(elf.section_bytes(".eh_frame"), LittleEndian);
    let address = |name: &str| {
        use object::{Object, ObjectSection};
        elf.file.section_by_name(name).map_or(0, |section| section.address())
    };
    let bases = BaseAddresses::default().set_eh_frame(address(".eh_frame")).set_text(address(".text"));
    let fde = frame
        .fde_for_address(&bases, function, EhFrame::cie_from_offset)
        .unwrap_or_else(|error| panic!("no FDE for {function:#x}: {error}"));
    let start = fde.offset() as u64;
    within(elf, ".eh_frame", start..start + 4 + fde.entry_len() as u64)
}
