//! Where in the source a place of an object is: the `a.c:3` of diagnostics.
//!
//! An object's debug sections are not linked yet, so addresses in them are relocations, and with
//! `-ffunction-sections` every function starts at 0. Here each section gets a range of addresses of its own,
//! `place`, and copies of the debug sections are relocated to it. Only diagnostics come here: a copy per
//! question is cheap enough.
//!
//! # Source
//! DWARF 4 and 5, "Line Number Information" (6.2) and "Data Object Entries" (4.1).

use gimli::AttributeValue;
use gimli::LittleEndian;
use gimli::SectionId;
use gimli::constants as dw;
use object::LittleEndian as LE;
use object::elf;

use crate::object_file::ObjectFile;
use crate::object_file::SymbolPlace;
use crate::reloc::Op;
use crate::reloc::Values;
use crate::reloc::apply;

type Slice<'a> = gimli::EndianSlice<'a, LittleEndian>;

/// A line of a source file. Displayed as `a.c:3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// Name from the line table: as given to the compiler if relative to its directory, else
    /// `directory/name`.
    pub file: String,
    /// Counts from 1.
    pub line: u32,
}

impl std::fmt::Display for SourceLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The line that the code at `offset` bytes in section `section` comes from.
///
/// `None` if the object has no line table, or none that covers the place. Damaged debug sections count as
/// missing: a diagnostic must not fail over its decoration.
pub fn source_line(object: &ObjectFile, section: u32, offset: u64) -> Option<SourceLine> {
    let address = place(section, offset)?;
    let strings = Strings::load(object);
    // Type units bring line tables of their own, in groups.
    for index in sections_named(object, SectionId::DebugLine) {
        let line = relocated(object, index);
        let line = gimli::DebugLine::new(&line, LittleEndian);
        let mut next = 0;
        while let Ok(program) = line.program(gimli::DebugLineOffset(next), 8, None, None) {
            let header = program.header();
            let initial_length = if header.format() == gimli::Format::Dwarf64 { 12 } else { 4 };
            let Some(end) =
                next.checked_add(header.unit_length()).and_then(|end| end.checked_add(initial_length))
            else {
                break;
            };
            next = end;
            if let Some(found) = line_in_program(program, address, &strings) {
                return Some(found);
            }
        }
    }
    None
}

/// The line that declares the global variable called `symbol`, by its linkage name.
///
/// `None` if no unit of the object describes it.
pub fn variable_line(object: &ObjectFile, symbol: &[u8]) -> Option<SourceLine> {
    let sections = gimli::DwarfSections::<Vec<u8>>::load(|id| {
        Ok::<_, std::convert::Infallible>(match id {
            SectionId::DebugInfo
            | SectionId::DebugAbbrev
            | SectionId::DebugLine
            | SectionId::DebugLineStr
            | SectionId::DebugStr
            | SectionId::DebugStrOffsets => main_section(object, id),
            _ => Vec::new(),
        })
    });
    let Ok(sections) = sections;
    let dwarf = sections.borrow(|bytes| Slice::new(bytes, LittleEndian));
    let strings = Strings::load(object);
    let mut headers = dwarf.units();
    // A unit that can't be read is passed over if its length was; otherwise the iterator ends.
    while let Ok(Some(header)) = headers.next() {
        let found =
            dwarf.unit(header).ok().and_then(|unit| variable_in_unit(&dwarf, &unit, symbol, &strings));
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The address that stands for `offset` bytes in section `section`. No two sections come within a TiB of each
/// other.
fn place(section: u32, offset: u64) -> Option<u64> {
    const SECTION_BITS: u32 = 40;
    let base = u64::from(section).checked_add(1)?;
    (base < 1 << (64 - SECTION_BITS) && offset < 1 << SECTION_BITS).then_some((base << SECTION_BITS) | offset)
}

/// Indexes of all sections with the name of `id`.
fn sections_named(object: &ObjectFile, id: SectionId) -> impl Iterator<Item = usize> {
    (0..object.sections.len()).filter(move |index| object.section_name(*index) == id.name().as_bytes())
}

/// A relocated copy of the section that the units refer to, empty if there is none. Of several with the name
/// it is the one outside of groups: in a group are the type units.
fn main_section(object: &ObjectFile, id: SectionId) -> Vec<u8> {
    let ungrouped = |index: &usize| object.sections.get(*index).is_some_and(|section| section.group == 0);
    let mut named = sections_named(object, id).filter(ungrouped);
    named.next().map(|index| relocated(object, index)).unwrap_or_default()
}

/// A copy of a debug section with its relocations applied: places in loaded sections become [`place`]s,
/// places in debug sections offsets. Relocations that can't be applied are left out.
fn relocated(object: &ObjectFile, section: usize) -> Vec<u8> {
    let mut bytes = object.section_bytes(section).to_vec();
    for relocation in object.relocations(section) {
        let kind = relocation.r_type(LE, false);
        let op = match kind {
            elf::R_X86_64_64 => Op::Abs64,
            elf::R_X86_64_32 => Op::Abs32,
            elf::R_X86_64_32S => Op::Abs32S,
            _ => continue,
        };
        let symbol = relocation.r_sym(LE, false) as usize;
        let value = object.symbols().get(symbol).map_or(0, |symbol| symbol.st_value.get(LE));
        let base = match object.symbol_place(symbol) {
            SymbolPlace::Section(index) => match object.sections.get(index as usize) {
                Some(section) if section.flags & elf::SHF_ALLOC.0 != 0 => place(index, 0),
                _ => Some(0),
            },
            SymbolPlace::Absolute => Some(0),
            SymbolPlace::Undefined | SymbolPlace::Common => None,
        };
        let Some(base) = base else { continue };
        let start = usize::try_from(relocation.r_offset.get(LE)).unwrap_or(usize::MAX);
        let values =
            Values { s: base.wrapping_add(value), a: relocation.r_addend.get(LE), ..Values::default() };
        if let Some(field) = bytes.get_mut(start..) {
            // A field that is too narrow or cut off keeps its bytes, as if it had no relocation.
            let _ = apply(op, field, &values);
        }
    }
    bytes
}

/// The strings that line tables refer to.
struct Strings {
    line: Vec<u8>,
    plain: Vec<u8>,
}

impl Strings {
    fn load(object: &ObjectFile) -> Strings {
        Strings {
            line: main_section(object, SectionId::DebugLineStr),
            plain: main_section(object, SectionId::DebugStr),
        }
    }

    /// The text of a path attribute.
    fn text(&self, value: AttributeValue<Slice<'_>>) -> Option<String> {
        let until_nul = |section: &[u8], offset: usize| {
            let rest = section.get(offset..)?;
            let text = rest.split(|byte| *byte == 0).next()?;
            Some(String::from_utf8_lossy(text).into_owned())
        };
        match value {
            AttributeValue::String(text) => Some(text.to_string_lossy().into_owned()),
            AttributeValue::DebugLineStrRef(offset) => until_nul(&self.line, offset.0),
            AttributeValue::DebugStrRef(offset) => until_nul(&self.plain, offset.0),
            _ => None,
        }
    }

    /// The name of a file in a line table.
    fn file(&self, header: &gimli::LineProgramHeader<Slice<'_>>, index: u64) -> Option<String> {
        let file = header.file(index)?;
        let name = self.text(file.path_name())?;
        // Directory 0 is the one that the compiler ran in.
        if file.directory_index() == 0 || name.starts_with('/') {
            return Some(name);
        }
        match file.directory(header).and_then(|directory| self.text(directory)) {
            Some(directory) if !directory.is_empty() => {
                Some(format!("{}/{name}", directory.trim_end_matches('/')))
            }
            _ => Some(name),
        }
    }

    fn source_line(
        &self,
        header: &gimli::LineProgramHeader<Slice<'_>>,
        file: u64,
        line: u64,
    ) -> Option<SourceLine> {
        let line = u32::try_from(line).ok().filter(|line| *line > 0)?;
        Some(SourceLine { file: self.file(header, file)?, line })
    }
}

/// The row that covers `address`: the last one at or before it in a sequence that goes on behind it.
fn line_in_program(
    program: gimli::IncompleteLineProgram<Slice<'_>>,
    address: u64,
    strings: &Strings,
) -> Option<SourceLine> {
    let mut rows = program.rows();
    let mut before: Option<(u64, u64, u64)> = None;
    while let Ok(Some((header, row))) = rows.next_row() {
        if let Some((start, file, line)) = before
            && (start..row.address()).contains(&address)
        {
            return strings.source_line(header, file, line);
        }
        let line = row.line().map_or(0, |line| line.get());
        before = (!row.end_sequence()).then_some((row.address(), row.file_index(), line));
    }
    None
}

/// The declaration of `symbol` among the external variables of a unit.
fn variable_in_unit(
    dwarf: &gimli::Dwarf<Slice<'_>>,
    unit: &gimli::Unit<Slice<'_>>,
    symbol: &[u8],
    strings: &Strings,
) -> Option<SourceLine> {
    let program = unit.line_program.as_ref()?;
    let mut entries = unit.entries();
    while let Ok(Some(entry)) = entries.next_dfs() {
        // Local variables have no symbol that a link could miss or see twice.
        let external = matches!(entry.attr_value(dw::DW_AT_external), Some(AttributeValue::Flag(true)));
        if entry.tag() != dw::DW_TAG_variable || !external {
            continue;
        }
        let name = entry.attr_value(dw::DW_AT_linkage_name).or_else(|| entry.attr_value(dw::DW_AT_name));
        let named = name.and_then(|name| dwarf.attr_string(unit, name).ok());
        if named.is_none_or(|name| name.slice() != symbol) {
            continue;
        }
        let number = |name| entry.attr(name).and_then(|attribute| attribute.udata_value());
        let file = entry.attr_value(dw::DW_AT_decl_file);
        let file = match file {
            Some(AttributeValue::FileIndex(index)) => Some(index),
            other => other.and_then(|value| value.udata_value()),
        };
        if let (Some(file), Some(line)) = (file, number(dw::DW_AT_decl_line)) {
            return strings.source_line(program.header(), file, line);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const DWARF4: &[u8] = include_bytes!("../testdata/source_line_dwarf4.o");
    const DWARF5: &[u8] = include_bytes!("../testdata/source_line_dwarf5.o");

    fn object(bytes: &'static [u8]) -> ObjectFile {
        ObjectFile::parse(bytes::Bytes::from_static(bytes)).unwrap()
    }

    fn index_of(object: &ObjectFile, name: &str) -> u32 {
        let index = (0..object.sections.len()).find(|index| object.section_name(*index) == name.as_bytes());
        index.unwrap() as u32
    }

    #[test]
    fn lines_of_functions_that_all_start_at_zero() {
        for (bytes, file) in [(DWARF4, "a.c"), (DWARF5, "sub/b.c")] {
            let object = object(bytes);
            let line = |section: &str, offset| {
                source_line(&object, index_of(&object, section), offset).map(|found| found.to_string())
            };
            let at = |line: u32| Some(format!("{file}:{line}"));
            assert_eq!(line(".text.first", 0), at(6));
            assert_eq!(line(".text.first", 0x12), at(7));
            assert_eq!(line(".text.first", 0x40), at(9));
            assert_eq!(line(".text.first", 0x41), None);
            assert_eq!(line(".text.second", 0), at(12));
            assert_eq!(line(".text.second", 0x1e), at(15));
            assert_eq!(line(".text.second", 0x31), at(17));
            assert_eq!(line(".text.second", 0x32), None);
            assert_eq!(line(".data.counter", 0), None);
        }
    }

    #[test]
    fn lines_of_variables() {
        for (bytes, file) in [(DWARF4, "a.c"), (DWARF5, "sub/b.c")] {
            let object = object(bytes);
            let wanted = SourceLine { file: file.to_string(), line: 2 };
            assert_eq!(variable_line(&object, b"counter"), Some(wanted));
            // Static: no other object can see it.
            assert_eq!(variable_line(&object, b"hidden"), None);
            assert_eq!(variable_line(&object, b"absent"), None);
            assert_eq!(variable_line(&object, b""), None);
        }
    }

    #[test]
    fn places_of_sections_do_not_meet() {
        assert_eq!(place(0, 5), Some((1 << 40) + 5));
        assert!(place(0, (1 << 40) - 1) < place(1, 0));
        assert_eq!(place(0, 1 << 40), None);
        assert_eq!(place(u32::MAX, 0), None);
        let object = object(DWARF5);
        assert_eq!(source_line(&object, u32::MAX, u64::MAX), None);
        assert_eq!(source_line(&object, 10_000, 0), None);
    }

    #[test]
    fn damaged_debug_sections_yield_an_answer() {
        for bytes in [DWARF4, DWARF5] {
            crate::hostile::every_damage(bytes, |damaged| {
                if let Ok(object) = ObjectFile::parse(bytes::Bytes::copy_from_slice(damaged)) {
                    let _ = source_line(&object, 6, 0x31);
                    let _ = variable_line(&object, b"absent");
                }
            });
        }
    }
}
