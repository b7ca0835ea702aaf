//! Which definition a name has: strong before common before weak, then link order; visibility is the strictest.

use bevy_ecs::prelude::{Res, ResMut};
use formats::elf;
use formats::object_file::SymbolPlace;
use object::LittleEndian;
use relink_engine::diagnostic::{Diagnostic, Place};
use relink_engine::frame::{Frame, Request};
use relink_engine::program::{Object, Program};
use relink_engine::records::{AtomRecord, atom_flags, place, symbol_flags};
use relink_engine::rows::{AtomRow, InputRow, SymbolRow, TargetKind};
use relink_formats as formats;

use crate::ingest::bulk::{ALIGN_MAX, SIZE_MAX, type_flags};

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    #[default]
    None,
    Weak,
    Common,
    Strong,
}

/// Resolves every global name and gives common symbols their storage.
pub(crate) fn resolve_names(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    frame.counters.whole_program_resolutions += 1;
    let program = &mut *program;
    let mut strengths = vec![Strength::None; program.globals as usize];
    for row in 0..program.objects.len() {
        let Program { objects, symbols, atoms, .. } = program;
        let object = &objects[row];
        let parsed = &object.parsed;
        for index in parsed.first_global as usize..parsed.symbols().len() {
            let TargetKind::Symbol(global) = object.targets[index].kind() else { continue };
            let symbol = &parsed.symbols()[index];
            let record = &mut symbols[global.index()];
            record.other = stricter(record.other, symbol.st_other.0);
            let weak = symbol.st_bind().0 == elf::STB_WEAK;
            let mut atom = match parsed.symbol_place(index) {
                SymbolPlace::Undefined => None,
                SymbolPlace::Absolute => Some(place::ABSOLUTE),
                SymbolPlace::Common => Some(place::UNDEFINED),
                SymbolPlace::Section(section) => {
                    object.uses.get(section as usize).and_then(|used| used.atom())
                }
            };
            let common = parsed.symbol_place(index) == SymbolPlace::Common;
            if atom.is_some_and(|row| {
                place::is_atom(row) && atoms[row.index()].flags & atom_flags::DISCARDED != 0
            }) {
                atom = None; // A discarded group's definition is a mere reference to the owner's.
            }
            let Some(atom) = atom else {
                record.flags |= symbol_flags::REFERENCED;
                continue;
            };
            let strength = match (common, weak) {
                (true, _) => Strength::Common,
                (false, true) => Strength::Weak,
                (false, false) => Strength::Strong,
            };
            let known = &mut strengths[global.index()];
            if *known != Strength::None {
                record.flags |= symbol_flags::CONTESTED;
            }
            if strength == Strength::Strong && *known == Strength::Strong {
                if !request.options.allow_multiple_definition {
                    let first = definition_place(&objects[record.input.index()], global);
                    let second = definition_place(object, global);
                    let symbol = String::from_utf8_lossy(program.names.of(global)).into_owned();
                    frame.errors.push(Diagnostic::DuplicateSymbol { symbol, first, second });
                }
                continue;
            }
            if strength == Strength::Common && *known == Strength::Common {
                record.size = record.size.max(symbol.st_size.get(LittleEndian));
                record.value = record.value.max(symbol.st_value.get(LittleEndian));
                continue;
            }
            if strength <= *known {
                continue;
            }
            *known = strength;
            let kept = symbol_flags::CONTESTED
                | symbol_flags::GLOBAL
                | symbol_flags::REFERENCED
                | symbol_flags::EXPORTED
                | symbol_flags::OFFERED;
            let keep = record.flags & kept;
            record.input = InputRow(row as u32);
            record.atom = atom;
            record.value = symbol.st_value.get(LittleEndian);
            record.size = symbol.st_size.get(LittleEndian);
            record.info = symbol.st_info.0;
            record.flags =
                keep | type_flags(symbol.st_type().0) | if common { symbol_flags::COMMON } else { 0 };
        }
    }
    place_commons(program, &mut frame);
    super::assign::define_listed_symbols(&request, program, &mut frame);
    super::assign::define_option_names(&request, program, &mut frame);
    frame.noted = frame.errors.len();
}

/// The stricter of two visibilities: internal, hidden, protected, default.
pub(crate) fn stricter(known: u8, new: u8) -> u8 {
    let (a, b) = (known & 3, new & 3);
    let visibility = match (a, b) {
        (0, other) | (other, 0) => other,
        (a, b) => a.min(b),
    };
    (known & !3) | visibility
}

/// Every common symbol that won becomes an atom of `.bss` in the object that gave it.
fn place_commons(program: &mut Program, frame: &mut Frame) {
    for row in 0..program.globals as usize {
        let symbol = program.symbols[row];
        if symbol.flags & symbol_flags::COMMON == 0 {
            continue;
        }
        let align = symbol.value.max(1);
        if symbol.size > SIZE_MAX || !align.is_power_of_two() || align.trailing_zeros() > u32::from(ALIGN_MAX)
        {
            let name = String::from_utf8_lossy(program.names.of(SymbolRow(row as u32))).into_owned();
            let why =
                format!("common symbol {name}: size {:#x} or alignment {align:#x} can't be met", symbol.size);
            let input = program.objects.get(symbol.input.index()).map(|object| object.name.clone());
            frame.errors.push(Diagnostic::BadInput { input: input.unwrap_or_default(), why });
            continue;
        }
        let tls = if symbol.flags & symbol_flags::TLS != 0 { atom_flags::TLS } else { 0 };
        let atom = AtomRow(program.atoms.len() as u32);
        program.atoms.push(AtomRecord {
            input: symbol.input,
            section: relink_engine::rows::NONE,
            flags: atom_flags::COMMON | atom_flags::ALLOC | atom_flags::WRITE | atom_flags::NOBITS | tls,
            size: symbol.size,
            kind: elf::SHT_NOBITS,
            align: align.trailing_zeros(),
            ..Default::default()
        });
        program.symbols[row].atom = atom;
        program.symbols[row].value = 0;
    }
}

/// Where an object defines a name, for messages.
fn definition_place(object: &Object, name: SymbolRow) -> Place {
    let index = object.targets.iter().position(|target| target.kind() == TargetKind::Symbol(name));
    let Some((index, SymbolPlace::Section(section))) =
        index.map(|index| (index, object.parsed.symbol_place(index)))
    else {
        return Place { object: object.name.clone(), ..Place::default() };
    };
    let offset = object.parsed.symbols()[index].st_value.get(LittleEndian);
    let code = object.parsed.sections[section as usize].flags & u64::from(elf::SHF_EXECINSTR) != 0;
    let line = if code {
        formats::source_line::source_line(&object.parsed, section, offset)
    } else {
        formats::source_line::variable_line(&object.parsed, object.parsed.symbol_name(index))
    };
    Place {
        object: object.name.clone(),
        section: String::from_utf8_lossy(object.parsed.section_name(section as usize)).into_owned(),
        offset,
        function: None,
        line: line.map(|line| (line.file, line.line)),
    }
}
