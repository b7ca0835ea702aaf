//! Final addresses of all symbols, those that the linker defines included.

use bevy_ecs::prelude::{Res, ResMut};
use formats::elf;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::program::{OutputSection, Program};
use relink_engine::records::{AtomRecord, atom_flags, place, symbol_flags};
use relink_engine::rows::{AtomRow, InputRow, NONE, SectionRow, SymbolRow};
use relink_formats as formats;

use super::addresses::own_address;
use super::assign::{compute_assignments, sections_of};
use crate::ingest::classify::is_c_identifier;
use crate::resolve::bind::needs_dynamic_section;

/// Names that the linker defines when something refers to them and nothing defines them.
const NAMES: [&str; 22] = [
    "__ehdr_start",
    "__executable_start",
    "_end",
    "end",
    "_edata",
    "edata",
    "_etext",
    "etext",
    "__bss_start",
    "__init_array_start",
    "__init_array_end",
    "__fini_array_start",
    "__fini_array_end",
    "__preinit_array_start",
    "__preinit_array_end",
    "__rela_iplt_start",
    "__rela_iplt_end",
    "_GLOBAL_OFFSET_TABLE_",
    "_DYNAMIC",
    "_TLS_MODULE_BASE_",
    "__GNU_EH_FRAME_HDR",
    "__etext",
];

/// Before the scan: gives each referenced name of the linker's own an atom, whose address comes with the layout.
pub(crate) fn define_linker_names(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    frame: ResMut<'_, Frame>,
) {
    if !frame.resolving() {
        return;
    }
    let dynamic = needs_dynamic_section(request.options.output_kind);
    let program = &mut *program;
    for row in 0..program.globals as usize {
        let symbol = &program.symbols[row];
        // A library that was linked long ago may define `_end`; it means its own.
        let open = matches!(symbol.atom, place::UNDEFINED | place::SHARED);
        if !open || symbol.flags & symbol_flags::REFERENCED == 0 {
            continue;
        }
        let name = program.names.of(SymbolRow(row as u32));
        let bounded = name.strip_prefix(b"__start_").or_else(|| name.strip_prefix(b"__stop_"));
        let known = NAMES.iter().any(|known| known.as_bytes() == name);
        let defined = match name {
            b"_DYNAMIC" => dynamic,
            _ => {
                known
                    || bounded
                        .is_some_and(|section| is_c_identifier(section) && has_section(program, section))
            }
        };
        if !defined {
            continue;
        }
        let tls = name == b"_TLS_MODULE_BASE_";
        let atom = AtomRow(program.atoms.len() as u32);
        program.atoms.push(AtomRecord {
            input: InputRow::default(),
            section: NONE,
            flags: atom_flags::SYNTHETIC | atom_flags::LIVE | atom_flags::EXACT,
            ..Default::default()
        });
        let record = &mut program.symbols[row];
        record.atom = atom;
        record.input = InputRow::default();
        record.info = (elf::STB_GLOBAL << 4) | if tls { elf::STT_TLS } else { elf::STT_NOTYPE };
        record.other = elf::STV_HIDDEN;
        record.flags |= symbol_flags::LINKER_DEFINED | if tls { symbol_flags::TLS } else { 0 };
    }
}

/// Whether a name may be one of the linker's own.
pub(crate) fn is_linker_name(name: &[u8]) -> bool {
    NAMES.iter().any(|known| known.as_bytes() == name)
        || name.starts_with(b"__start_")
        || name.starts_with(b"__stop_")
}

fn has_section(program: &Program, name: &[u8]) -> bool {
    program.objects.iter().any(|object| {
        object.uses.iter().enumerate().any(|(index, used)| {
            used.atom().is_some_and(|row| {
                program.atoms[row.index()].flags & (atom_flags::DISCARDED | atom_flags::ALLOC)
                    == atom_flags::ALLOC
            }) && object.parsed.section_name(index) == name
        })
    })
}

/// After the layout: addresses of the linker's names, then of every symbol.
pub(crate) fn assign_symbol_addresses(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    let program = &mut *program;
    for row in 0..program.globals as usize {
        let symbol = program.symbols[row];
        if symbol.flags & symbol_flags::LINKER_DEFINED == 0 {
            continue;
        }
        let name = program.names.of(SymbolRow(row as u32)).to_vec();
        let (address, section) = linker_address(program, &name);
        let atom = &mut program.atoms[symbol.atom.index()];
        atom.address = address;
        atom.output = section;
    }
    let eh_frame = own_address(program, program.synthetic.eh_frame);
    for atom in &mut program.atoms {
        if atom.flags & atom_flags::EH_FRAME != 0 && atom.flags & atom_flags::LIVE != 0 {
            // Its `address` was its offset in the table so far.
            atom.address += eh_frame;
        }
    }
    if let Some(row) = program.synthetic.eh_frame.some() {
        let output = program.atoms[row.index()].output;
        for atom in &mut program.atoms {
            if atom.flags & atom_flags::EH_FRAME != 0 && atom.flags & atom_flags::LIVE != 0 {
                atom.output = output;
            }
        }
    }
    program.addresses = program
        .symbols
        .iter()
        .map(|symbol| {
            if symbol.plt != 0 {
                program.plt_address + 16 * u64::from(symbol.plt - 1)
            } else if place::is_atom(symbol.atom) {
                program.atoms[symbol.atom.index()].address.wrapping_add(symbol.value)
            } else if symbol.atom == place::ABSOLUTE {
                symbol.value
            } else {
                0
            }
        })
        .collect();
    if !program.assignments.is_empty() {
        let sections = sections_of(program);
        frame.errors.extend(compute_assignments(program, &request.options, &sections));
    }
    let name = request.options.entry.as_deref().unwrap_or("_start");
    let defined = |row: &SymbolRow| {
        let atom = program.symbols[row.index()].atom;
        place::is_atom(atom) || atom == place::ABSOLUTE
    };
    match (program.names.find(name.as_bytes()).filter(defined), parse_address(name)) {
        (Some(row), _) => program.entry = program.addresses[row.index()],
        (None, Some(address)) => program.entry = address,
        (None, None) if program.kind.is_shared() => {}
        (None, None) => frame.errors.push(Diagnostic::UndefinedSymbol {
            symbol: name.to_owned(),
            references: Vec::new(),
            reference_count: 0,
            suggestion: None,
        }),
    }
}

/// `-e 0x401000`: an address in place of a name.
fn parse_address(name: &str) -> Option<u64> {
    match name.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => name.parse().ok(),
    }
}

fn linker_address(program: &Program, name: &[u8]) -> (u64, SectionRow) {
    let find = |wanted: &[u8]| program.outputs.iter().position(|s| s.name == wanted && s.index != 0);
    let start = |row: usize| (program.outputs[row].address, SectionRow(row as u32));
    let end = |row: usize| (program.outputs[row].address + program.outputs[row].size, SectionRow(row as u32));
    let last = |accept: &dyn Fn(&OutputSection) -> bool| {
        program.outputs.iter().rposition(|section| section.index != 0 && accept(section))
    };
    let alloc = |s: &OutputSection| {
        s.flags & u64::from(elf::SHF_ALLOC) != 0
            && !(s.flags & u64::from(elf::SHF_TLS) != 0 && s.kind == elf::SHT_NOBITS)
    };
    let first_load =
        program.segments.iter().find(|segment| segment.kind == elf::PT_LOAD && segment.offset == 0);
    let base = first_load.map_or(0, |segment| segment.address);
    let found = match name {
        b"__ehdr_start" | b"__executable_start" => Some((base, first_row(program))),
        b"_end" | b"end" => last(&alloc).map(end),
        b"_edata" | b"edata" => last(&|s| alloc(s) && s.kind != elf::SHT_NOBITS).map(end),
        b"_etext" | b"etext" | b"__etext" => last(&|s| s.flags & u64::from(elf::SHF_EXECINSTR) != 0).map(end),
        b"__bss_start" => {
            find(b".bss").map(start).or_else(|| last(&|s| alloc(s) && s.kind != elf::SHT_NOBITS).map(end))
        }
        b"__init_array_start" => find(b".init_array").map(start),
        b"__init_array_end" => find(b".init_array").map(end),
        b"__fini_array_start" => find(b".fini_array").map(start),
        b"__fini_array_end" => find(b".fini_array").map(end),
        b"__preinit_array_start" => find(b".preinit_array").map(start),
        b"__preinit_array_end" => find(b".preinit_array").map(end),
        // In a PIE the startup code relocates everything from `.dynamic`; these must bound nothing.
        b"__rela_iplt_start" | b"__rela_iplt_end" if program.position_independent => None,
        b"__rela_iplt_start" => find(b".rela.dyn").map(start),
        b"__rela_iplt_end" => find(b".rela.dyn").map(end),
        b"_GLOBAL_OFFSET_TABLE_" => Some((
            program.got_base,
            find(b".got.plt").map_or(first_row(program), |row| SectionRow(row as u32)),
        )),
        b"_DYNAMIC" => find(b".dynamic").map(start),
        b"_TLS_MODULE_BASE_" => Some((
            program.tls_start,
            find(b".tdata")
                .or_else(|| find(b".tbss"))
                .map_or(first_row(program), |row| SectionRow(row as u32)),
        )),
        b"__GNU_EH_FRAME_HDR" => find(b".eh_frame_hdr").map(start),
        _ => {
            let bounded = name.strip_prefix(b"__start_").map(|section| (section, true));
            let bounded = bounded.or_else(|| name.strip_prefix(b"__stop_").map(|section| (section, false)));
            bounded.and_then(|(section, first)| {
                find(section).map(|row| if first { start(row) } else { end(row) })
            })
        }
    };
    // What bounds nothing starts and ends at the same place.
    let first = first_row(program);
    found.unwrap_or((program.outputs.get(first.index()).map_or(base, |section| section.address), first))
}

fn first_row(program: &Program) -> SectionRow {
    SectionRow(program.outputs.iter().position(|section| section.index != 0).unwrap_or(0) as u32)
}
