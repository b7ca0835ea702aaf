//! `.symtab` and `.strtab` of a whole program.

use bevy_ecs::prelude::{Res, ResMut};
use formats::elf;
use formats::units::VirtAddr;
use object::elf::{Sym64, SymbolInfo, SymbolOther, SymbolSection};
use object::endian::{U16, U32, U64};
use object::{LittleEndian as LE, pod};
use rayon::prelude::*;
use relink_engine::frame::{Frame, Request};
use relink_engine::options::Strip;
use relink_engine::program::Program;
use relink_engine::records::{SymbolRecord, place, symbol_flags};
use relink_engine::rows::SymbolRow;
use relink_formats as formats;

use crate::ingest::bulk::local_symbols;
use crate::place::symtab::{keeps_global, keeps_local};
use crate::relocate::headers::put;

/// Writes both tables, and the filler unit that debug fillers may speak of.
pub(crate) fn write_symbol_table(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    let options = &request.options;
    let program = &mut *program;
    write_fillers(program);
    if options.strip == Strip::All {
        return;
    }
    let chunks: Vec<(Vec<u8>, Vec<u8>)> = {
        let program = &*program;
        program
            .objects
            .par_iter()
            .map(|object| {
                let (mut symbols, mut strings) = (Vec::new(), Vec::new());
                for (row, index) in object.locals.range().zip(local_symbols(&object.parsed)) {
                    let record = &program.symbols[row as usize];
                    if keeps_local(program, object, index, record, options) {
                        let name = object.strtab + strings.len() as u32;
                        symbols.extend_from_slice(&entry(program, SymbolRow(row), name, true));
                        strings.extend_from_slice(object.parsed.symbol_name(index));
                        strings.push(0);
                    }
                }
                (symbols, strings)
            })
            .collect()
    };
    let symtab = program.outputs[program.synthetic.symtab.index()].offset;
    let strtab = program.outputs[program.synthetic.strtab.index()].offset;
    let mut image = std::mem::take(&mut program.image);
    for (object, (symbols, strings)) in program.objects.iter().zip(&chunks) {
        put(&mut image, symtab + 24 * u64::from(object.symtab), symbols);
        put(&mut image, strtab + u64::from(object.strtab), strings);
    }
    // Room for islands: nameless file symbols, which every reader passes over (`nm` would list null symbols).
    for index in program.symtab_hole..program.symtab_locals {
        let hole = SymbolRecord { info: elf::STT_FILE, ..Default::default() };
        let bytes = symbol_bytes(&hole, 0, elf::SHN_ABS, VirtAddr(0), true);
        put(&mut image, symtab + 24 * u64::from(index), &bytes);
    }
    let mut name = program.strtab_globals;
    for row in (0..program.globals).map(SymbolRow) {
        let Some(local) = keeps_global(program, row, options) else { continue };
        let index = program.symbols[row.index()].symtab;
        let bytes = program.names.of(row);
        put(&mut image, symtab + 24 * u64::from(index), &entry(program, row, name, local));
        put(&mut image, strtab + u64::from(name), bytes);
        name += bytes.len() as u32 + 1;
    }
    frame.counters.symbols_written = u64::from(program.symtab_len);
    program.image = image;
}

fn entry(program: &Program, row: SymbolRow, name: u32, local: bool) -> [u8; 24] {
    let record = &program.symbols[row.index()];
    let (section, value) = match record.atom {
        place::ABSOLUTE => (elf::SHN_ABS, record.value),
        atom if place::is_atom(atom) => {
            let atom = &program.atoms[atom.index()];
            let index =
                atom.output.some().and_then(|row| program.outputs.get(row.index())).map_or(0, |s| s.index);
            let section = if index == 0 { elf::SHN_ABS } else { index as u16 };
            (section, atom.address.wrapping_add(record.value))
        }
        _ => (elf::SHN_UNDEF, 0),
    };
    let value = if record.flags & symbol_flags::TLS != 0 && section != elf::SHN_UNDEF {
        value.wrapping_sub(program.tls_start)
    } else {
        value
    };
    symbol_bytes(record, name, section, VirtAddr(value), local)
}

/// The bytes of a symbol: local if its visibility hides it from other images.
pub(crate) fn symbol_bytes(
    record: &SymbolRecord,
    name: u32,
    section: u16,
    value: VirtAddr,
    local: bool,
) -> [u8; 24] {
    let mut info = record.info;
    if section == elf::SHN_UNDEF {
        let strong = record.flags & symbol_flags::STRONG != 0;
        info = (if strong { elf::STB_GLOBAL } else { elf::STB_WEAK } << 4) | (info & 0xf);
    } else if local {
        info &= 0xf;
    }
    if record.flags & symbol_flags::COMMON != 0 && info & 0xf == elf::STT_COMMON {
        info = (info & 0xf0) | elf::STT_OBJECT;
    }
    let symbol = Sym64::<LE> {
        st_name: U32::new(LE, name),
        st_info: SymbolInfo(info),
        st_other: SymbolOther(record.other),
        st_shndx: U16::new(LE, SymbolSection(section)),
        st_value: U64::new(LE, value.0),
        // What a library's definition measures is its own business: it may change without its users.
        st_size: U64::new(LE, if section == elf::SHN_UNDEF { 0 } else { record.size }),
    };
    let mut bytes = [0; 24];
    bytes.copy_from_slice(pod::bytes_of(&symbol));
    bytes
}

fn write_fillers(program: &mut Program) {
    use formats::dwarf::{DebugSection, FILLER_ABBREVIATIONS, filler::fill};
    let context = crate::relocate::bulk::filler_context(program);
    crate::relocate::tables::write_own(program, program.synthetic.filler_abbrev, FILLER_ABBREVIATIONS);
    let mut unit = vec![0; crate::place::arrange::FILLER_UNIT_BYTES as usize];
    if fill(DebugSection::Info, &mut unit, context).is_ok() {
        crate::relocate::tables::write_own(program, program.synthetic.filler_unit, &unit);
    }
}
