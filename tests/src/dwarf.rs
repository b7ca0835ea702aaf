//! Which bytes of the debug and unwind sections belong to one unit and one function.
//!
//! Read with `gimli`, from sections and headers: what a reader would attribute to the unit, nothing that the linker says.

use std::collections::BTreeMap;
use std::ops::Range;

use gimli::{BaseAddresses, EhFrame, EndianSlice, LittleEndian, UnwindSection};

use crate::elf::Elf;

type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// File ranges that an edit of `function` in the unit whose `DW_AT_name` is `unit` may change.
///
/// They are: the unit in `.debug_info` and its abbreviations; its line program, address set, range and location lists; the function's FDE.
/// Each contribution reaches to the start of the next unit's, since what fills its slack is part of its slot.
#[track_caller]
pub fn contributions(elf: &Elf<'_>, unit: &str, function: u64) -> Vec<Range<u64>> {
    let load = |id: gimli::SectionId| -> Result<Slice<'_>, gimli::Error> {
        Ok(Slice::new(elf.section_bytes(id.name()), LittleEndian))
    };
    let dwarf = gimli::Dwarf::load(load).expect("loading fails never");
    let sets = address_sets(elf);
    let mut starts: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
    let mut abbreviations = Vec::new();
    let mut headers = dwarf.units();
    while let Some(header) = headers.next().expect("well-formed units") {
        let parsed = dwarf.unit(header).expect("a well-formed unit");
        abbreviations.push(header.debug_abbrev_offset().0 as u64);
        // What fills a hole has no name.
        let Some(name) = parsed.name else { continue };
        let info = header.offset().to_debug_info_offset(&header).expect("a unit of .debug_info").0 as u64;
        let own = [
            (".debug_info", Some(info)),
            (".debug_abbrev", Some(header.debug_abbrev_offset().0 as u64)),
            (".debug_line", parsed.line_program.as_ref().map(|program| program.header().offset().0 as u64)),
            (".debug_aranges", sets.iter().find(|(_, unit)| *unit == info).map(|(at, _)| *at)),
            (".debug_rnglists", lists(elf, &dwarf, &parsed, ".debug_rnglists", gimli::DW_AT_ranges)),
            (".debug_loclists", lists(elf, &dwarf, &parsed, ".debug_loclists", gimli::DW_AT_location)),
        ];
        for (section, start) in own.into_iter().filter_map(|(section, start)| Some((section, start?))) {
            starts.entry(section).or_default().push(start);
            if name.to_string_lossy() == unit {
                assert!(wanted.insert(section, start).is_none(), "two units {unit}");
            }
        }
    }
    assert!(wanted.contains_key(".debug_info"), "no unit {unit} in .debug_info");
    // The table of the fillers has no unit with a name.
    starts.entry(".debug_abbrev").or_default().extend(abbreviations);
    let mut ranges = vec![frame_entry(elf, function)];
    for (section, start) in wanted {
        let end = starts[section].iter().copied().filter(|&other| other > start).min();
        ranges.push(within(elf, section, start..end.unwrap_or(elf.section_bytes(section).len() as u64)));
    }
    ranges
}

fn within(elf: &Elf<'_>, section: &str, range: Range<u64>) -> Range<u64> {
    let start = elf.section(section).start;
    start + range.start..start + range.end
}

/// Start of each set of `.debug_aranges`, and the unit it is for.
fn address_sets(elf: &Elf<'_>) -> Vec<(u64, u64)> {
    let aranges = gimli::DebugAranges::new(elf.section_bytes(".debug_aranges"), LittleEndian);
    let mut headers = aranges.headers();
    let mut sets = Vec::new();
    while let Some(header) = headers.next().expect("well-formed sets") {
        sets.push((header.offset().0 as u64, header.debug_info_offset().0 as u64));
    }
    sets
}

/// Start of the contribution of a list section that holds the first list of a unit; DWARF 5 headers delimit it.
fn lists(
    elf: &Elf<'_>,
    dwarf: &gimli::Dwarf<Slice<'_>>,
    unit: &gimli::Unit<Slice<'_>>,
    section: &str,
    attribute: gimli::DwAt,
) -> Option<u64> {
    let mut offset = None;
    let mut entries = unit.entries();
    while let Ok(Some(entry)) = entries.next_dfs() {
        offset = offset.or(match entry.attr_value(attribute) {
            Some(gimli::AttributeValue::RangeListsRef(raw)) => {
                Some(dwarf.ranges_offset_from_raw(unit, raw).0)
            }
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
            return Some(at);
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
