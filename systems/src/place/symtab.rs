//! The shape of `.symtab` and `.strtab`: which symbols are in them, at which index.

use bevy_ecs::prelude::{Res, ResMut};
use formats::elf;
use rayon::prelude::*;
use relink_engine::frame::{Frame, Request};
use relink_engine::options::{Discard, LinkOptions, Strip};
use relink_engine::program::{Object, OutputSection, Program};
use relink_engine::records::{AtomRecord, SymbolRecord, atom_flags, place, symbol_flags};
use relink_engine::rows::{SectionRow, SymbolRow};
use relink_formats as formats;

use super::addresses::finish_file;
use super::reserve;
use crate::ingest::bulk::local_symbols;

/// Lays out the symbol and string tables behind everything else, and then the section headers.
pub(crate) fn lay_out_symbol_table(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    let options = &request.options;
    let program = &mut *program;
    let mut offset = program.image_len;
    let mut index = program.outputs.iter().map(|section| section.index).max().unwrap_or(0);
    let mut add =
        |program: &mut Program, name: &[u8], kind: u32, align: u8, entsize: u64, size: u64, capacity: u64| {
            offset = offset.next_multiple_of(1 << align);
            index += 1;
            program.outputs.push(OutputSection {
                name: name.to_vec(),
                kind,
                align,
                entsize,
                offset,
                size,
                capacity,
                index,
                ..Default::default()
            });
            offset += capacity;
            SectionRow(program.outputs.len() as u32 - 1)
        };
    if options.strip != Strip::All {
        assign_indexes(program, options);
        let size = u64::from(program.symtab_len) * 24;
        let globals = program.symtab_len - program.symtab_locals;
        let tail = if options.incremental.is_some() { 24 * reserve::global_tail(globals) } else { 0 };
        let symtab = add(program, b".symtab", elf::SHT_SYMTAB, 3, 24, size, size + tail);
        program.synthetic.symtab = symtab;
        program.outputs[symtab.index()].info = program.symtab_locals;
    }
    let mut names: Vec<u8> = vec![0];
    for section in program.outputs.iter().filter(|section| section.index != 0) {
        names.extend_from_slice(&section.name);
        names.push(0);
    }
    names.extend_from_slice(b".shstrtab\0.strtab\0");
    let size = names.len() as u64;
    program.synthetic.shstrtab = add(program, b".shstrtab", elf::SHT_STRTAB, 0, 0, size, size);
    if options.strip != Strip::All {
        let size = program.strtab_len;
        let tail = if options.incremental.is_some() { reserve::string_tail(size) } else { 0 };
        let strtab = add(program, b".strtab", elf::SHT_STRTAB, 0, 0, u64::from(size), u64::from(size + tail));
        program.synthetic.strtab = strtab;
        let link = program.outputs[strtab.index()].index;
        let symtab = program.synthetic.symtab;
        program.outputs[symtab.index()].link = link;
    }
    finish_file(program, offset);
}

/// Whether an object's local symbol is written.
pub(crate) fn keeps_local(
    program: &Program,
    object: &Object,
    index: usize,
    record: &SymbolRecord,
    options: &LinkOptions,
) -> bool {
    let name = object.parsed.symbol_name(index);
    if options.discard == Discard::All || name.is_empty() || name.starts_with(b".L") {
        return false;
    }
    let kind = record.info & 0xf;
    if kind == elf::STT_FILE {
        return true;
    }
    match record.atom {
        place::ABSOLUTE => true,
        row if place::is_atom(row) => program.atoms[row.index()].flags & atom_flags::LIVE != 0,
        _ => false,
    }
}

/// Whether a global name is written, and whether as a local one.
pub(crate) fn keeps_global(program: &Program, row: SymbolRow) -> Option<bool> {
    let symbol = &program.symbols[row.index()];
    let hidden = matches!(symbol.other & 3, elf::STV_HIDDEN | elf::STV_INTERNAL);
    match symbol.atom {
        place::ABSOLUTE => Some(hidden),
        place::LAZY | place::UNDEFINED | place::SHARED => {
            (symbol.flags & symbol_flags::REFERENCED != 0).then_some(false)
        }
        atom => {
            let live = program.atoms[atom.index()].flags & atom_flags::LIVE != 0;
            live.then_some(hidden)
        }
    }
}

fn assign_indexes(program: &mut Program, options: &LinkOptions) {
    let counts: Vec<(u32, u32)> = {
        let program = &*program;
        program
            .objects
            .par_iter()
            .map(|object| {
                let (mut symbols, mut bytes) = (0, 0);
                for (row, index) in object.locals.range().zip(local_symbols(&object.parsed)) {
                    if keeps_local(program, object, index, &program.symbols[row as usize], options) {
                        symbols += 1;
                        bytes += object.parsed.symbol_name(index).len() as u32 + 1;
                    }
                }
                (symbols, bytes)
            })
            .collect()
    };
    let (mut next, mut strings) = (1, 1);
    for (object, (symbols, bytes)) in program.objects.iter_mut().zip(counts) {
        object.symtab = next;
        object.strtab = strings;
        next += symbols;
        strings += bytes;
    }
    for row in 0..program.objects.len() {
        let first = program.objects[row].symtab;
        let kept: Vec<u32> = {
            let object = &program.objects[row];
            object
                .locals
                .range()
                .zip(local_symbols(&object.parsed))
                .filter(|&(row, index)| {
                    keeps_local(program, object, index, &program.symbols[row as usize], options)
                })
                .map(|(row, _)| row)
                .collect()
        };
        for (index, row) in (first..).zip(kept) {
            program.symbols[row as usize].symtab = index;
        }
    }
    program.strtab_globals = strings;
    let mut written: Vec<(SymbolRow, bool)> = Vec::new();
    for row in 0..program.globals {
        if let Some(local) = keeps_global(program, SymbolRow(row)) {
            written.push((SymbolRow(row), local));
            strings += program.names.of(SymbolRow(row)).len() as u32 + 1;
        }
    }
    for local in [true, false] {
        if !local {
            program.symtab_hole = next;
            if options.incremental.is_some() {
                let code = |atom: &&AtomRecord| {
                    atom.flags & (atom_flags::LIVE | atom_flags::CODE) == atom_flags::LIVE | atom_flags::CODE
                };
                next += reserve::symbol_hole(program.atoms.iter().filter(code).count());
            }
            program.symtab_locals = next;
        }
        for &(row, _) in written.iter().filter(|(_, is_local)| *is_local == local) {
            program.symbols[row.index()].symtab = next;
            next += 1;
        }
    }
    program.symtab_len = next;
    program.strtab_len = strings;
}
